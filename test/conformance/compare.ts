/** How near two arrays are, said in one sentence where they are not near enough. */
import { type DType, isFloat, type NdArray, toNumbers } from "../../src/engine/arrays/ndarray.ts";

/**
 * Largest error relative to the largest magnitude of the expected array. float32: a few roundings of
 * 2^-24 and the accuracy that runtimes give exp, erf and the like; float16: two units in the last
 * place of 2^-11. float64 ops run in float64, but transcendental ones may take float32 on the way.
 */
const tolerances: { readonly [D in DType]: number } = {
  float64: 1e-5,
  float32: 1e-5,
  float16: 2 ** -9,
  bfloat16: 2 ** -6,
  float8_e4m3fn: 2 ** -3,
  float8_e5m2: 2 ** -2,
  int64: 0,
  int32: 0,
  uint8: 0,
  int8: 0,
  bool: 0,
};

export interface Closeness {
  /** Every bit has to agree. */
  readonly exact: boolean;
  /** The coarsest dtype that a value passes through. */
  readonly through: DType;
  /** Smallest magnitude that errors are relative to. */
  readonly scale: number;
}

/** The coarser of two dtypes. */
export function coarser(a: DType, b: DType): DType {
  return tolerances[a] >= tolerances[b] ? a : b;
}

/**
 * Describes the difference between arrays; undefined within the tolerance. NaN must match NaN, and
 * infinities must be equal.
 */
export function difference(
  actual: NdArray,
  expected: NdArray,
  { exact, through, scale }: Closeness,
): string | undefined {
  if (actual.dtype !== expected.dtype) return `dtype ${actual.dtype}, expected ${expected.dtype}`;
  if (actual.shape.join() !== expected.shape.join()) {
    return `shape [${actual.shape.join(", ")}], expected [${expected.shape.join(", ")}]`;
  }
  const [found, wanted] = [toNumbers(actual), toNumbers(expected)];
  if (found.length !== wanted.length) return `${found.length} elements, expected ${wanted.length}`;
  const largest = wanted.reduce(
    (max, x) => (Number.isFinite(x) ? Math.max(max, Math.abs(x)) : max),
    scale,
  );
  const tolerance = tolerances[coarser(expected.dtype, through)];
  const allowed = exact || !isFloat(expected.dtype) ? 0 : tolerance * largest;
  let worst = -1;
  let worstError = allowed;
  for (const [i, x] of wanted.entries()) {
    const y = found[i]!;
    const error = Object.is(x, y) || x === y ? 0 : Math.abs(x - y);
    if (error > worstError || Number.isNaN(error)) {
      worst = i;
      worstError = Number.isNaN(error) ? Infinity : error;
    }
  }
  if (worst < 0) return undefined;
  return `element ${worst} of [${expected.shape.join(", ")}] is ${found[worst]}, expected ${wanted[worst]} (allowed error ${allowed})`;
}
