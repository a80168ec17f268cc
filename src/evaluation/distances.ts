/** Compares sets of pictures by the features of an extractor: distances, precision and recall. */
import { UsageError } from "../engine/errors.ts";
import { fork, permutation, type RandomKey } from "../engine/random/random.ts";

export interface Features {
  readonly count: number;
  readonly width: number;
  /** [count, width], row-major. */
  readonly values: Float32Array | Float64Array;
}

/** Some of the rows, in the order of the indices. */
export function rowsAt({ width, values }: Features, indices: ArrayLike<number>): Features {
  const rows = new Float64Array(indices.length * width);
  for (let i = 0; i < indices.length; i++) {
    rows.set(values.subarray(indices[i]! * width, (indices[i]! + 1) * width), i * width);
  }
  return { count: indices.length, width, values: rows };
}

/** @throws UsageError unless both are as wide, and each has at least so many */
export function checkSets(a: Features, b: Features, least: number, what: string): void {
  if (a.width !== b.width) {
    throw new UsageError(
      `The ${what} was asked for of features of widths ${a.width} and ${b.width}; compare features of one extractor.`,
    );
  }
  const fewer = Math.min(a.count, b.count);
  if (fewer >= least) return;
  throw new UsageError(
    `The ${what} was asked for of ${fewer} pictures, but needs at least ${least} on either side; give more.`,
  );
}

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

export interface KernelDistance {
  /** Over the subsets; about 0 for sets of one distribution, and at times below. */
  readonly mean: number;
  readonly std: number;
  readonly subsets: number;
  /** Rows of each set in a subset. */
  readonly size: number;
}

export interface KernelDistanceOptions {
  readonly key: RandomKey;
  /** 50 unless given. */
  readonly subsets?: number;
  /** At most 500, and half of the smaller set, unless given. */
  readonly size?: number;
}

/**
 * Squared maximum mean discrepancy with the kernel (x·y / width + 1)³, without bias, on subsets drawn without replacement.
 *
 * @throws UsageError unless both have at least four rows of one width
 */
export function kernelDistance(
  a: Features,
  b: Features,
  {
    key,
    subsets = 50,
    size = Math.min(500, Math.floor(Math.min(a.count, b.count) / 2)),
  }: KernelDistanceOptions,
): KernelDistance {
  checkSets(a, b, 4, "kernel distance");
  const most = Math.min(a.count, b.count);
  if (!Number.isInteger(size) || size < 2 || size > most || !(subsets >= 1)) {
    throw new UsageError(
      `The kernel distance was asked for on ${subsets} subsets of ${size} pictures; give at least one, of 2 to ${most} pictures.`,
    );
  }
  const distances = Array.from({ length: subsets }, (_, i) => {
    const drawn = fork(key, i);
    const [x, y] = [a, b].map((set, side) =>
      rowsAt(set, permutation(fork(drawn, side), set.count).subarray(0, size)),
    ) as [Features, Features];
    const pairs = size * (size - 1);
    return (kernelSum(x) + kernelSum(y)) / pairs - (2 * kernelSum(x, y)) / (size * size);
  });
  const mean = distances.reduce((sum, value) => sum + value, 0) / subsets;
  const variance = distances.reduce((sum, value) => sum + (value - mean) ** 2, 0) / subsets;
  return { mean, std: Math.sqrt(variance), subsets, size };
}

/** The kernel summed over all pairs of two sets, or of one without those of a row with itself. */
function kernelSum(x: Features, y?: Features): number {
  const other = y ?? x;
  const { width } = x;
  let sum = 0;
  for (let i = 0; i < x.count; i++) {
    for (let j = y ? 0 : i + 1; j < other.count; j++) {
      let dot = 0;
      for (let k = 0; k < width; k++)
        dot += x.values[i * width + k]! * other.values[j * width + k]!;
      sum += (dot / width + 1) ** 3;
    }
  }
  return y ? sum : 2 * sum;
}

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
