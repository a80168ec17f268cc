/** Fréchet distance between Gaussians that are fitted to features: of Inception's, it is the FID (Heusel et al., 2017). */
import { checkSets, type Features } from "./features.ts";
import { matrixRoot, nuclearNorm, product } from "./jacobi.ts";

/**
 * |μa − μb|² + Tr(Ca + Cb − 2·√(Ca·Cb)), with unbiased covariances as the original code has them; 0 of equal sets, and
 * larger the fewer pictures there are.
 *
 * @throws UsageError unless both have at least two rows of one width
 */
export function frechetDistance(a: Features, b: Features): number {
  checkSets(a, b, 2, "Fréchet distance");
  const { width } = a;
  const [first, second] = [gaussianOf(a), gaussianOf(b)];
  let distance = 0;
  for (let i = 0; i < width; i++) {
    distance += (first.mean[i]! - second.mean[i]!) ** 2;
    distance += first.covariance[i * width + i]! + second.covariance[i * width + i]!;
  }
  // Tr √(Ca·Cb) is the sum of the singular values of √Ca·√Cb.
  const [rootA, rootB] = [first, second].map((each) => matrixRoot(each.covariance, width));
  const shared = nuclearNorm(product(rootA!, rootB!, width), width);
  return Math.max(0, distance - 2 * shared);
}

function gaussianOf({ count, width, values }: Features): {
  readonly mean: Float64Array;
  readonly covariance: Float64Array;
} {
  const mean = new Float64Array(width);
  for (let i = 0; i < count * width; i++) mean[i % width]! += values[i]! / count;
  const covariance = new Float64Array(width * width);
  const centred = new Float64Array(width);
  for (let row = 0; row < count; row++) {
    for (let i = 0; i < width; i++) centred[i] = values[row * width + i]! - mean[i]!;
    for (let i = 0; i < width; i++) {
      const factor = centred[i]! / (count - 1);
      for (let j = 0; j < width; j++) covariance[i * width + j]! += factor * centred[j]!;
    }
  }
  return { mean, covariance };
}
