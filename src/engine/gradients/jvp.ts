/**
 * Forward-mode differentiation, as two reverse passes: Jᵀw is linear in w, so the derivative of (Jᵀw)·v in w is Jv, whatever w
 * is. Nothing in the result reads w, and neither the first reverse pass: only the derivatives that a forward pass would carry
 * along remain in the graph.
 */
import { isFloat } from "../arrays/ndarray.ts";
import { ShapeError, UsageError } from "../errors.ts";
import { nodesBehind } from "../graph/graph.ts";
import { onesLike } from "../graph/functional.ts";
import { formatShape, sameShape } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import { backpropagate } from "./gradient.ts";

/**
 * The derivative of an output when tensors move in a direction: Σ ∂output/∂at · along, of the output's shape. Move all that
 * changes: what the output reads besides is held fixed.
 *
 * @param at float tensors that the output may depend on, none of which is computed from another; `detach` those that are
 * @param along the direction of each, of its shape
 * @example const speed = jvp(u, [z, t], [velocity, onesLike(t)]); // du/dt along the path of z
 * @throws ShapeError unless each direction is a float tensor of its tensor's shape; UsageError if a tensor is computed from
 *   another of them
 */
export function jvp(output: Tensor, at: readonly Tensor[], along: readonly Tensor[]): Tensor {
  if (along.length !== at.length) {
    throw new ShapeError(
      `jvp: there are ${along.length} directions for ${at.length} tensors; give one for each.`,
    );
  }
  for (const [i, tensor] of at.entries()) {
    const direction = along[i]!;
    if (isFloat(direction.dtype) && sameShape(direction.shape, tensor.shape)) continue;
    throw new ShapeError(
      `jvp: the direction of a ${tensor.dtype} ${formatShape(tensor.shape)} is ${direction.dtype} ${formatShape(direction.shape)}; give a float tensor of its shape.`,
    );
  }
  for (const tensor of at) {
    const behind = new Set(nodesBehind([tensor]));
    if (!at.some((other) => other !== tensor && behind.has(other.node))) continue;
    throw new UsageError(
      "jvp: one of the tensors is computed from another, so that they cannot move on their own; detach it.",
    );
  }
  const probe = onesLike(output);
  const reverse = backpropagate([output], [probe], at);
  return backpropagate(reverse, along, [probe])[0]!;
}
