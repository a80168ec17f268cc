/** Seeded host data for tests. */
import {
  castArray,
  type DType,
  isFloat,
  type NdArray,
  ndarray,
  sizeOf,
} from "../../src/engine/arrays/ndarray.ts";

/** Uniform numbers in [0, 1): the same for the same seed (mulberry32). */
function randomNumbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Uniform numbers in [low, high); integers and bools are rounded down. */
export function randomArray(
  seed: number,
  dtype: DType,
  shape: readonly number[],
  low = -2,
  high = 2,
): NdArray {
  const next = randomNumbers(seed);
  const whole = !isFloat(dtype);
  const values = Array.from({ length: sizeOf(shape) }, () => {
    const value = low + (high - low) * next();
    return whole ? Math.floor(value) : value;
  });
  return castArray(ndarray("float64", shape, values), dtype);
}
