/** Kernel distance between sets of features: of Inception's, it is the KID (Bińkowski et al., 2018). */
import { fork, permutation, type RandomKey } from "../engine/random/random.ts";
import { UsageError } from "../engine/errors.ts";
import { checkSets, type Features, rowsAt } from "./features.ts";

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
