/** Fréchet distance between Gaussians that are fitted to features: of Inception's, it is the FID (Heusel et al., 2017). */
import { checkSets, type Features } from "./features.ts";

/**
 * |μa − μb|² + Tr(Ca + Cb − 2·√(Ca·Cb)), with unbiased covariances as the original code has them; 0 of equal sets, and
 * larger the fewer pictures there are.
 *
 * With factors C = RᵀR the last trace is the sum of the singular values of Ra·Rbᵀ: without the roots of covariances, in
 * which rounding would count as much as its own root where there are fewer pictures than features.
 *
 * @throws UsageError unless both have at least two rows of one width
 */
export function frechetDistance(a: Features, b: Features): number {
  checkSets(a, b, 2, "Fréchet distance");
  const n = a.width;
  const [first, second] = [gaussianOf(a), gaussianOf(b)];
  const means = first.mean.reduce((sum, mean, i) => sum + (mean - second.mean[i]!) ** 2, 0);
  const traces = squared(first.factor) + squared(second.factor);
  const shared = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < n; j++) {
      for (let k = Math.max(i, j); k < n; k++) {
        shared[i * n + j]! += first.factor[i * n + k]! * second.factor[j * n + k]!;
      }
    }
  }
  return Math.max(0, means + traces - 2 * singularValueSum(shared, n));
}

/** The mean, and of the covariance the upper triangular factor R, with RᵀR = C. */
function gaussianOf({ count, width, values }: Features): {
  readonly mean: Float64Array;
  readonly factor: Float64Array;
} {
  const mean = new Float64Array(width);
  for (let i = 0; i < count * width; i++) mean[i % width]! += values[i]! / count;
  const factor = new Float64Array(width * width);
  const rest = new Float64Array(width);
  const scale = 1 / Math.sqrt(count - 1);
  for (let row = 0; row < count; row++) {
    for (let j = 0; j < width; j++) rest[j] = scale * (values[row * width + j]! - mean[j]!);
    // Givens rotations take the row into the factor, place by place.
    for (let j = 0; j < width; j++) {
      if (rest[j] === 0) continue;
      const at = j * width;
      const length = Math.hypot(factor[at + j]!, rest[j]!);
      const [cosine, sine] = [factor[at + j]! / length, rest[j]! / length];
      for (let k = j; k < width; k++) {
        const [r, x] = [factor[at + k]!, rest[k]!];
        factor[at + k] = cosine * r + sine * x;
        rest[k] = cosine * x - sine * r;
      }
    }
  }
  return { mean, factor };
}

const squared = (values: Float64Array) => values.reduce((sum, value) => sum + value * value, 0);

const MOST_SWEEPS = 60;

/**
 * Of an n×n matrix, by one-sided Jacobi rotations (Hestenes, 1958): they make its rows orthogonal, which then are as long
 * as its singular values.
 */
function singularValueSum(matrix: Float64Array, n: number): number {
  const rows = Float64Array.from(matrix);
  const tolerance = n * Number.EPSILON;
  const none = tolerance ** 2 * squared(rows);
  for (let sweep = 0, rotated = true; rotated && sweep < MOST_SWEEPS; sweep++) {
    rotated = false;
    for (let a = 0; a < n * n; a += n) {
      for (let b = a + n; b < n * n; b += n) {
        let [aa, bb, ab] = [0, 0, 0];
        for (let i = 0; i < n; i++) {
          const [x, y] = [rows[a + i]!, rows[b + i]!];
          aa += x * x;
          bb += y * y;
          ab += x * y;
        }
        if (Math.abs(ab) <= tolerance * Math.sqrt(aa * bb) || Math.min(aa, bb) <= none) continue;
        rotated = true;
        const zeta = (bb - aa) / (2 * ab);
        const tangent = (zeta < 0 ? -1 : 1) / (Math.abs(zeta) + Math.sqrt(1 + zeta * zeta));
        const cosine = 1 / Math.sqrt(1 + tangent * tangent);
        const sine = cosine * tangent;
        for (let i = 0; i < n; i++) {
          const [x, y] = [rows[a + i]!, rows[b + i]!];
          rows[a + i] = cosine * x - sine * y;
          rows[b + i] = sine * x + cosine * y;
        }
      }
    }
  }
  let sum = 0;
  for (let at = 0; at < n * n; at += n) sum += Math.sqrt(squared(rows.subarray(at, at + n)));
  return sum;
}
