/** Multi-head attention (Vaswani et al., 2017). */
import { attention } from "../engine/functional.ts";
import type { Tensor } from "../engine/tensor.ts";
import { linear } from "./linear.ts";
import type { Params } from "./params.ts";

/**
 * Self-attention over all tokens, with q, k and v from one projection (timm's names `qkv`, `proj`).
 *
 * @param x [B, N, C]
 */
export function selfAttention(p: Params, x: Tensor, heads: number): Tensor {
  const width = x.size(-1);
  const [q, k, v] = linear(p.at("qkv"), x, 3 * width).split(3, -1) as [Tensor, Tensor, Tensor]; // 3 × [B, N, C]
  return linear(p.at("proj"), attention(q, k, v, { heads }), width); // [B, N, C]
}
