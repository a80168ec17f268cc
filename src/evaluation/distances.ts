/** Compares sets of pictures by the features of an extractor: distances, precision and recall. */
import { UsageError } from "../engine/errors.ts";
import { defined } from "../engine/records.ts";
import { fork, permutation, type RandomKey, randomKey } from "../engine/random/random.ts";

export interface Features {
  readonly count: number;
  readonly width: number;
  /** [count, width], row-major. */
  readonly values: Float32Array | Float64Array;
}

/** Returns `count` of `all` indices, at even distances. */
export function evenIndices(all: number, count: number): number[] {
  return Array.from({ length: count }, (_, i) => Math.floor((i * all) / count));
}

/** Selects rows in the order of the indices. */
export function rowsAt({ width, values }: Features, indices: ArrayLike<number>): Features {
  const rows = new Float64Array(indices.length * width);
  for (let i = 0; i < indices.length; i++) {
    rows.set(values.subarray(indices[i]! * width, (indices[i]! + 1) * width), i * width);
  }
  return { count: indices.length, width, values: rows };
}

/** @throws UsageError unless both sets have the same width and at least `least` rows each */
function checkSets(a: Features, b: Features, least: number, what: string): void {
  if (a.width !== b.width) {
    throw new UsageError(
      `The ${what} needs features of one width, got ${a.width} and ${b.width}; compare features of one extractor.`,
    );
  }
  const fewer = Math.min(a.count, b.count);
  if (fewer >= least) return;
  throw new UsageError(`The ${what} needs at least ${least} pictures in each set, got ${fewer}.`);
}

/**
 * The Fréchet distance between Gaussians fitted to two sets of features; of Inception's features, it is the
 * FID (Heusel et al., 2017). |μa − μb|² + Tr(Ca + Cb − 2·√(Ca·Cb)), with unbiased covariances as in the
 * original code. Equal sets have distance 0, and the distance is biased upwards for small sets.
 *
 * With factors C = RᵀR the last trace is the sum of the singular values of Ra·Rbᵀ. This avoids the square
 * roots of covariances, which amplify rounding errors if there are fewer pictures than features.
 *
 * @throws UsageError unless both sets have the same width and at least two rows
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

/** Computes the mean and the upper triangular factor R of the covariance C = RᵀR. */
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
    // Givens rotations add the row to the factor, one column at a time.
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
 * The sum of the singular values of an n×n matrix, by one-sided Jacobi rotations (Hestenes, 1958): they make
 * the rows orthogonal, whose lengths are then the singular values.
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
  /** Mean over the subsets; about 0 for sets of one distribution, and sometimes negative. */
  readonly mean: number;
  readonly std: number;
  readonly subsets: number;
  /** Rows of each set in a subset. */
  readonly size: number;
}

export interface KernelDistanceOptions {
  readonly key: RandomKey;
  /** 50 by default. */
  readonly subsets?: number;
  /** By default half of the smaller set, but at most 500. */
  readonly size?: number;
}

/**
 * The squared maximum mean discrepancy with the kernel (x·y / width + 1)³, unbiased, over subsets drawn
 * without replacement; of Inception's features, it is the KID (Bińkowski et al., 2018).
 *
 * @throws UsageError unless both sets have the same width and at least four rows
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
      `The kernel distance needs at least one subset of 2 to ${most} pictures, got ${subsets} of ${size}.`,
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

/** Sums the kernel over all pairs of two sets, or over all pairs of different rows of one set. */
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

/** Improved precision and recall (Kynkäänniemi et al., 2019), in [0, 1]. */
export interface PrecisionRecall {
  /**
   * The share of generated pictures within the k-th nearest neighbour distance of a real one: do they look
   * real?
   */
  readonly precision: number;
  /** The share of real pictures within that distance of a generated one: is everything covered? */
  readonly recall: number;
}

/**
 * Computes precision and recall. They are comparable only between sets of one size.
 *
 * @param k the number of neighbours; 3 by default, as in the paper
 * @throws UsageError unless both sets have the same width and more than k rows
 */
export function precisionRecall(real: Features, generated: Features, k = 3): PrecisionRecall {
  checkSets(real, generated, k + 1, "precision");
  return { precision: shareWithin(generated, real, k), recall: shareWithin(real, generated, k) };
}

function shareWithin(points: Features, among: Features, k: number): number {
  const radii = Array.from({ length: among.count }, (_, i) => {
    const distances = new Float64Array(among.count);
    for (let j = 0; j < among.count; j++) distances[j] = squaredDistance(among, i, among, j);
    // The nearest one is the row itself.
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

/** The measures by which drawn pictures are compared with real ones. */
export interface Measures {
  readonly fid: number;
  readonly kid: number;
  /** The standard deviation of the KID over subsets. */
  readonly kidDeviation: number;
  readonly precision: number;
  readonly recall: number;
}

/**
 * Computes all measures; precision and recall of the same number of pictures at even distances in each set.
 *
 * @param options.subsets of the KID
 * @param options.most the most pictures for precision and recall, whose cost grows with the square of the number
 */
export function measuresOf(
  real: Features,
  drawn: Features,
  { most = Infinity, subsets }: { readonly most?: number; readonly subsets?: number } = {},
): Measures {
  const { mean, std } = kernelDistance(real, drawn, { key: randomKey(0), ...defined({ subsets }) });
  const count = Math.min(most, real.count, drawn.count);
  const [some, others] = [real, drawn].map((set) => rowsAt(set, evenIndices(set.count, count)));
  const fid = frechetDistance(real, drawn);
  return { fid, kid: mean, kidDeviation: std, ...precisionRecall(some!, others!) };
}
