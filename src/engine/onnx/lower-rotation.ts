/** The rotation of a weight's groups (arrays/hadamard.ts) as a part of an ONNX graph. */
import { rotationMatrix } from "../arrays/hadamard.ts";
import type { Emitter } from "./emitter.ts";

/**
 * Adds the rotation of each group of `size` numbers along the rows of a matrix. It is taken as two products with the matrices of the
 * root of the size, since one with all of it would be 8 times as much work for groups of 256.
 */
export function lowerRotation(
  emitter: Emitter,
  numbers: string,
  size: number,
  shape: readonly number[],
): string {
  const outer = 4 ** Math.floor(Math.log2(size) / 4);
  const inner = size / outer;
  const groups = emitter.emit("Reshape", [numbers, emitter.ints([-1, outer, inner])]);
  const within = emitter.emit("MatMul", [groups, emitter.constant(rotationMatrix(inner))]);
  const across =
    outer === 1
      ? within
      : emitter.emit("MatMul", [emitter.constant(rotationMatrix(outer)), within]);
  return emitter.emit("Reshape", [across, emitter.ints(shape)]);
}
