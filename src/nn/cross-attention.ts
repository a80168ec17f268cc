/** Attention with a projection of its own for each of q, k and v, under diffusers' names. */
import { attention } from "../engine/graph/functional.ts";
import type { Tensor } from "../engine/graph/tensor.ts";
import { linear, type LinearOptions } from "./linear.ts";
import type { Params } from "./params.ts";

export interface CrossAttentionOptions {
  readonly heads: number;
  /** Whether q, k and v have a bias; they have unless this is false. */
  readonly qkvBias?: boolean;
  /** Added to the scores, broadcastable to [B, heads, N, M]. */
  readonly bias?: Tensor;
  /** First value of the weight behind the attention. */
  readonly outputInit?: LinearOptions["init"];
}

/**
 * x [B, N, C] attends to context [B, M, D], which may be x itself: `to_q`, `to_k`, `to_v`, `to_out.0`.
 *
 * @returns [B, N, C]
 */
export function crossAttention(
  p: Params,
  x: Tensor,
  context: Tensor,
  options: CrossAttentionOptions,
): Tensor {
  const { heads, qkvBias = true, bias, outputInit } = options;
  const width = x.size(-1);
  const q = linear(p.at("to_q"), x, width, { bias: qkvBias }); // [B, N, C]
  const k = linear(p.at("to_k"), context, width, { bias: qkvBias }); // [B, M, C]
  const v = linear(p.at("to_v"), context, width, { bias: qkvBias }); // [B, M, C]
  const mixed = attention(q, k, v, { heads, ...(bias && { bias }) }); // [B, N, C]
  return linear(p.at("to_out.0"), mixed, width, outputInit && { init: outputInit }); // [B, N, C]
}
