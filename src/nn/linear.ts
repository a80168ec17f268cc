/** Linear layers with PyTorch's names and layout of weights. */
import type { Tensor } from "../engine/graph/tensor.ts";
import { lowRankSum } from "./lora.ts";
import { type Init, type Params, xavierUniform, zero } from "./params.ts";

export interface LinearOptions {
  /** True if the layer has a bias; true by default. */
  readonly bias?: boolean;
  /** Initial value of the weight; Xavier uniform by default. */
  readonly init?: Init;
}

/** x·Wᵀ + b: [..., in] → [..., outputs], with `weight` [outputs, in] and `bias` [outputs]. */
export function linear(p: Params, x: Tensor, outputs: number, options: LinearOptions = {}): Tensor {
  const shape = [outputs, x.size(-1)];
  const weight = p.param("weight", shape, options.init ?? xavierUniform(shape));
  const bias = options.bias === false ? undefined : p.param("bias", [outputs], zero);
  return slicesOf(x, weight, [outputs], [bias])[0]!;
}

/**
 * Several linear layers of one input that are stored as one `weight` [parts · outputs, in]: [..., in] → parts × [..., outputs].
 *
 * The weight is split, which costs nothing, rather than the output, which is far larger.
 */
export function linearParts(
  p: Params,
  x: Tensor,
  parts: number,
  outputs: number,
  { bias = true }: { readonly bias?: boolean } = {},
): readonly Tensor[] {
  return linearSlices(p, x, new Array<number>(parts).fill(outputs), { bias });
}

/** `linearParts` for layers of different widths: [..., in] → one [..., width] for each of `widths`. */
export function linearSlices(
  p: Params,
  x: Tensor,
  widths: readonly number[],
  { bias = true }: { readonly bias?: boolean } = {},
): readonly Tensor[] {
  const outputs = widths.reduce((sum, width) => sum + width, 0);
  const shape = [outputs, x.size(-1)];
  const weight = p.param("weight", shape, xavierUniform(shape));
  const biases = bias ? p.param("bias", [outputs], zero).split(widths, 0) : [];
  return slicesOf(x, weight, widths, biases);
}

/** x times consecutive rows of a weight. What a LoRA adds to the weight is multiplied apart, which is far less work than its sum. */
function slicesOf(
  x: Tensor,
  weight: Tensor,
  widths: readonly number[],
  biases: readonly (Tensor | undefined)[],
): readonly Tensor[] {
  const rowsOf = (matrix: Tensor) => (widths.length === 1 ? [matrix] : matrix.split(widths, 0));
  const sum = lowRankSum(weight);
  const plain = rowsOf(sum?.weight ?? weight).map((rows, i) => x.linear(rows, biases[i]));
  if (!sum) return plain;
  const narrow = x.linear(sum.a).mul(sum.scale); // [..., rank]
  return rowsOf(sum.b).map((rows, i) => plain[i]!.add(narrow.linear(rows)));
}
