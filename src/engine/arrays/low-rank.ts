/** Products of two matrices of a low rank. */
import type { NdArray } from "./ndarray.ts";

/** Adds up [rows, rank] · down [rank, columns] to values [rows, columns]. */
export function addProduct(
  values: Float32Array,
  up: NdArray<"float32">,
  down: NdArray<"float32">,
): void {
  const [rank = 0, columns = 0] = down.shape;
  const added = new Float64Array(columns);
  for (let row = 0; row < up.shape[0]!; row++) {
    added.fill(0);
    for (let k = 0; k < rank; k++) {
      const factor = up.data[row * rank + k]!;
      for (let j = 0; j < columns; j++) added[j]! += factor * down.data[k * columns + j]!;
    }
    for (let j = 0; j < columns; j++) values[row * columns + j]! += added[j]!;
  }
}
