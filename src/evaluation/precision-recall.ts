/** Whether pictures look real, and whether all real ones are covered, apart (Kynkäänniemi et al., 2019). */
import { checkSets, type Features } from "./features.ts";

/** Shares in [0, 1]. */
export interface PrecisionRecall {
  /** Of the generated that lie among the real: within a real one's distance to its k-th nearest real one. */
  readonly precision: number;
  /** Of the real that lie among the generated. */
  readonly recall: number;
}

/**
 * Precision and recall of features; comparable only between sets of one size.
 *
 * @param k the paper's 3 unless given
 * @throws UsageError unless both have more than k rows of one width
 */
export function precisionRecall(real: Features, generated: Features, k = 3): PrecisionRecall {
  checkSets(real, generated, k + 1, "precision");
  return { precision: shareWithin(generated, real, k), recall: shareWithin(real, generated, k) };
}

function shareWithin(points: Features, among: Features, k: number): number {
  const radii = Array.from({ length: among.count }, (_, i) => {
    const distances = new Float64Array(among.count);
    for (let j = 0; j < among.count; j++) distances[j] = squaredDistance(among, i, among, j);
    // The nearest is the row itself.
    return distances.sort()[k]!;
  });
  let within = 0;
  for (let i = 0; i < points.count; i++) {
    if (radii.some((radius, j) => squaredDistance(points, i, among, j) <= radius)) within++;
  }
  return within / points.count;
}

function squaredDistance(a: Features, i: number, b: Features, j: number): number {
  const [from, to] = [i * a.width, j * b.width];
  let sum = 0;
  for (let k = 0; k < a.width; k++) sum += (a.values[from + k]! - b.values[to + k]!) ** 2;
  return sum;
}
