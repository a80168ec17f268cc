/** Compares computed arrays with recorded ones. */
import { castArray, isFloat, type NdArray } from "../engine/arrays/ndarray.ts";

/**
 * Bounds |got - want| by a number, each element by a fraction of |want|, or of `floor` if |want| is smaller, or each row of the
 * first axis by a fraction of the largest |want| in it.
 */
export type Tolerance =
  | { readonly atol: number }
  | { readonly rtol: number; readonly floor?: number }
  | { readonly ofRow: number };

export interface Comparison {
  /** The largest error in the measure of the tolerance; NaN if there is a NaN or the arrays cannot be compared. */
  readonly maxError: number;
  /** 0 for integers, which are compared exactly. */
  readonly limit: number;
  readonly ok: boolean;
  /** The reason for a failure that the numbers do not show. */
  readonly reason?: string;
}

/**
 * Compares every element. A NaN on either side fails, and equal infinities agree.
 *
 * @param tolerance the bound for floats, 0 by default; integers and bools must always be equal
 */
export function compare(
  got: NdArray,
  want: NdArray,
  tolerance: Tolerance = { atol: 0 },
): Comparison {
  const exact = !isFloat(want.dtype);
  const bound = exact ? { atol: 0 } : tolerance;
  const limit = "atol" in bound ? bound.atol : "rtol" in bound ? bound.rtol : bound.ofRow;
  const reason = mismatch(got, want);
  if (reason !== undefined) return { maxError: NaN, limit, ok: false, reason };

  const maxError = exact ? integerError(got, want) : floatError(got, want, bound);
  if (Number.isNaN(maxError)) {
    return { maxError, limit, ok: false, reason: `NaN among the ${want.data.length} elements` };
  }
  return { maxError, limit, ok: maxError <= limit };
}

function mismatch(got: NdArray, want: NdArray): string | undefined {
  if (got.shape.join() !== want.shape.join()) {
    return `shape is [${got.shape.join(", ")}], but [${want.shape.join(", ")}] was recorded`;
  }
  if (isFloat(got.dtype) !== isFloat(want.dtype)) {
    return `dtype is ${got.dtype}, but ${want.dtype} was recorded`;
  }
  return undefined;
}

function integerError(got: NdArray, want: NdArray): number {
  let error = 0n;
  for (let i = 0; i < want.data.length; i++) {
    const difference = BigInt(got.data[i]!) - BigInt(want.data[i]!);
    const distance = difference < 0n ? -difference : difference;
    if (distance > error) error = distance;
  }
  return Number(error);
}

function floatError(got: NdArray, want: NdArray, bound: Tolerance): number {
  const [a, b] = [castArray(got, "float64").data, castArray(want, "float64").data];
  const unitOf = unitOfErrors(b, want.shape[0] ?? 1, bound);
  let error = 0;
  for (let i = 0; i < b.length; i++) {
    if (a[i] === b[i]) continue;
    // Math.max returns NaN if either argument is NaN.
    error = Math.max(error, Math.abs(a[i]! - b[i]!) / unitOf(i));
  }
  return error;
}

/** What the error of an element is measured in. */
function unitOfErrors(want: Float64Array, rows: number, bound: Tolerance): (i: number) => number {
  if ("atol" in bound) return () => 1;
  if ("rtol" in bound) {
    const { floor = 0 } = bound;
    return (i) => Math.max(Math.abs(want[i]!), floor);
  }
  const size = want.length / rows;
  const largest = Array.from({ length: rows }, (_, row) =>
    want.subarray(row * size, (row + 1) * size).reduce((most, x) => Math.max(most, Math.abs(x)), 0),
  );
  return (i) => largest[Math.floor(i / size)]!;
}
