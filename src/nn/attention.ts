/** Multi-head attention (Vaswani et al., 2017). */
import { attention, full, where } from "../engine/functional.ts";
import type { Tensor } from "../engine/tensor.ts";
import { linear, linearParts } from "./linear.ts";
import { type Norm, norm } from "./norm.ts";
import type { Params } from "./params.ts";
import { rotate, type RotaryTable } from "./rotary.ts";

export interface SelfAttentionOptions {
  /** Norm of each head's queries and keys (Henry et al., 2020), named `q_norm` and `k_norm`. */
  readonly qkNorm?: Norm | null | undefined;
  /** Turns queries and keys by their positions, one row a token. */
  readonly rotary?: RotaryTable | null | undefined;
  /** Added to the scores, broadcastable to [B, heads, N, M]. */
  readonly bias?: Tensor | undefined;
}

/**
 * Self-attention over all tokens, with q, k and v from one projection (timm's names `qkv`, `proj`).
 *
 * @param x [B, N, C]
 */
export function selfAttention(
  p: Params,
  x: Tensor,
  heads: number,
  { qkNorm, rotary, bias }: SelfAttentionOptions = {},
): Tensor {
  const width = x.size(-1);
  const [q, k, v] = linearParts(p.at("qkv"), x, 3, width) as [Tensor, Tensor, Tensor]; // 3 × [B, N, C]
  const prepared = (y: Tensor, name: string) => {
    if (!qkNorm && !rotary) return y;
    const split = y.reshape([y.dim(0), y.dim(1), heads, width / heads]); // [B, N, heads, D]
    const normed = qkNorm ? norm(p.at(name), split, qkNorm) : split;
    return (rotary ? rotate(normed, rotary) : normed).reshape(y.shape);
  };
  const [query, key] = [prepared(q, "q_norm"), prepared(k, "k_norm")];
  const mixed = attention(query, key, v, { heads, ...(bias && { bias }) }); // [B, N, C]
  return linear(p.at("proj"), mixed, width); // [B, N, C]
}

/**
 * A mask of keys, [B, M] bool, as a bias of the scores, [B, 1, 1, M]: 0 where true, −10⁴ elsewhere,
 * which float16 can hold and after which a softmax gives exactly 0.
 */
export function maskBias(mask: Tensor): Tensor {
  return where(mask, full([], 0), full([], -10_000)).reshape([mask.dim(0), 1, 1, mask.dim(1)]);
}
