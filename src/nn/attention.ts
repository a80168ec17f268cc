/** Multi-head attention (Vaswani et al., 2017). */
import { attention, full, where } from "../engine/graph/functional.ts";
import type { Tensor } from "../engine/graph/tensor.ts";
import { linear, linearParts } from "./linear.ts";
import { type Norm, norm } from "./norm.ts";
import type { Params } from "./params.ts";
import { rotate, type RotaryTable } from "./rotary.ts";

export interface ProjectionOptions {
  /** Norm of each head's queries and keys (Henry et al., 2020). */
  readonly qkNorm?: Norm | null | undefined;
  /** What its norms are called; `q_norm` and `k_norm` unless given. */
  readonly normNames?: readonly [queries: string, keys: string];
  /** Turns queries and keys by their positions, one row a token. */
  readonly rotary?: RotaryTable | null | undefined;
  /** Whether q, k and v have a bias; they have unless this is false. */
  readonly qkvBias?: boolean;
}

export interface SelfAttentionOptions extends ProjectionOptions {
  /** Added to the scores, broadcastable to [B, heads, N, M]. */
  readonly bias?: Tensor | undefined;
}

/** Queries, keys and values of all heads, from one projection (timm's name `qkv`): [B, N, C] → 3 × [B, N, C]. */
export function queriesKeysValues(
  p: Params,
  x: Tensor,
  heads: number,
  { qkNorm, normNames = ["q_norm", "k_norm"], rotary, qkvBias = true }: ProjectionOptions,
): [q: Tensor, k: Tensor, v: Tensor] {
  const width = x.size(-1);
  const parts = linearParts(p.at("qkv"), x, 3, width, { bias: qkvBias }); // 3 × [B, N, C]
  const [q, k, v] = parts as [Tensor, Tensor, Tensor];
  const prepared = (y: Tensor, name: string) => {
    if (!qkNorm && !rotary) return y;
    const split = y.reshape([y.dim(0), y.dim(1), heads, width / heads]); // [B, N, heads, D]
    const normed = qkNorm ? norm(p.at(name), split, qkNorm) : split;
    return (rotary ? rotate(normed, rotary) : normed).reshape(y.shape);
  };
  return [prepared(q, normNames[0]), prepared(k, normNames[1]), v];
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
  { bias, ...projection }: SelfAttentionOptions = {},
): Tensor {
  const [q, k, v] = queriesKeysValues(p, x, heads, projection); // 3 × [B, N, C]
  const mixed = attention(q, k, v, { heads, ...(bias && { bias }) }); // [B, N, C]
  return linear(p.at("proj"), mixed, x.size(-1)); // [B, N, C]
}

/**
 * A mask of keys, [B, M] bool, as a bias of the scores, [B, 1, 1, M]: 0 where true, −10⁴ elsewhere,
 * which float16 can hold and after which a softmax gives exactly 0.
 */
export function maskBias(mask: Tensor): Tensor {
  return where(mask, full([], 0), full([], -10_000)).reshape([mask.dim(0), 1, 1, mask.dim(1)]);
}
