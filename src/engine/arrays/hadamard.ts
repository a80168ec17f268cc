/**
 * The rotation that spreads large numbers of a row over their group before the row is rounded to 8 bits ("ConvRot" of ComfyUI's files): a
 * power of Kronecker of the regular Hadamard matrix of 4 rows, divided by the root of its size. It is symmetric, and its own inverse.
 */
import { type NdArray, ndarray } from "./ndarray.ts";

/** Returns true if a group can have this size, a power of 4 from 4 on. */
export function isRotationSize(size: number): boolean {
  return Number.isInteger(size) && size >= 4 && Number.isInteger(Math.log2(size) / 2);
}

/** Rotates each group of `size` numbers in place. */
export function rotateGroups(values: Float32Array, size: number): void {
  for (let step = 1; step < size; step *= 4) {
    for (let start = 0; start < values.length; start += 4 * step) {
      for (let i = start; i < start + step; i++) {
        const [a, b] = [values[i]!, values[i + step]!];
        const [c, d] = [values[i + 2 * step]!, values[i + 3 * step]!];
        values[i] = (a + b + c - d) / 2;
        values[i + step] = (a + b - c + d) / 2;
        values[i + 2 * step] = (a - b + c + d) / 2;
        values[i + 3 * step] = (-a + b + c + d) / 2;
      }
    }
  }
}

/** The matrix of the rotation, [size, size] float32. */
export function rotationMatrix(size: number): NdArray<"float32"> {
  const rows = new Float32Array(size * size);
  for (let i = 0; i < size; i++) rows[i * size + i] = 1;
  rotateGroups(rows, size);
  return ndarray("float32", [size, size], rows);
}
