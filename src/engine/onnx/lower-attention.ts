/** Attention in ONNX, as one fused op or written out. */
import type { Shape } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import type { Emitter } from "./emitter.ts";
import type { LowerContext, LowerRule } from "./lower-rules.ts";

/**
 * Attention is ONNX Runtime's fused op, which takes the heads side by side, so that nothing is transposed, and never holds the
 * probabilities in memory. It is written out if the probabilities are read, by a backward pass or a tap, or if the device's
 * fused op gives wrong results.
 */
export const attention: LowerRule<"attention"> = (context) => {
  const { node, inputs, emitter, isUsed } = context;
  const { heads, scale } = node.attributes;
  const [q, k, , bias] = node.inputs as [Tensor, Tensor, Tensor, Tensor | undefined];
  if (isUsed(node.outputs[1]!) || !emitter.fusedAttention) return attentionParts(context);
  const optional = bias ? ["", "", attentionBias(q, k, bias, inputs[3]!, emitter)] : [];
  return emitter.emit(
    "MultiHeadAttention",
    [...inputs.slice(0, 3), ...optional],
    { num_heads: heads, scale: { float: scale } },
    "com.microsoft",
  );
};

/** Attention written out. ONNX Runtime folds the transpose of k and the scale into the first product. */
function attentionParts({ node, inputs, emitter }: LowerContext<"attention">): string[] {
  const { heads, scale } = node.attributes;
  const [q, k, v] = node.inputs.slice(0, 3).map((x, i) => {
    const split = emitter.reshapeDims([...x.shape.slice(0, 2), heads, x.size(2) / heads]);
    const perm = i === 1 ? [0, 2, 3, 1] : [0, 2, 1, 3];
    return emitter.emit("Transpose", [emitter.emit("Reshape", [inputs[i]!, split])], { perm });
  }) as [string, string, string];
  const product = emitter.emit("Mul", [
    emitter.emit("MatMul", [q, k]),
    emitter.scalar(scale, node.inputs[0]!.dtype),
  ]);
  const scores = inputs[3] === undefined ? product : emitter.emit("Add", [product, inputs[3]]);
  const p = emitter.emit("Softmax", [scores], { axis: -1 });
  const mixed = emitter.emit("Transpose", [emitter.emit("MatMul", [p, v])], { perm: [0, 2, 1, 3] });
  return [emitter.emit("Reshape", [mixed, emitter.reshapeDims(node.outputs[0]!.shape)]), p];
}

/** The fused op requires a bias of four axes, of which only the first two may have size 1. */
function attentionBias(q: Tensor, k: Tensor, bias: Tensor, name: string, emitter: Emitter): string {
  const leading = [...new Array<number>(4 - bias.rank).fill(1), ...bias.shape.slice(0, -2)];
  const shape: Shape = [...leading.slice(0, 2), q.dim(1), k.dim(1)];
  const padded: Shape = [...new Array<number>(4 - bias.rank).fill(1), ...bias.shape];
  const reshaped =
    bias.rank === 4 ? name : emitter.emit("Reshape", [name, emitter.reshapeDims(padded)]);
  return padded[2] === shape[2] && padded[3] === shape[3]
    ? reshaped
    : emitter.emit("Expand", [reshaped, emitter.dims(shape)]);
}
