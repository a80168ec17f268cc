/** What measures of quality compare: feature vectors of pictures, a row each. */
import { UsageError } from "../engine/errors.ts";

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
