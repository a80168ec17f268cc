/** The feed-forward part of a transformer block. */
import type { Tensor } from "../engine/graph/tensor.ts";
import { linear, linearParts } from "./linear.ts";
import type { Params } from "./params.ts";

/** Two linear layers around a GELU, or SwiGLU (Shazeer, 2020). */
export type FeedForward =
  | { readonly kind: "gelu"; readonly approximate: "none" | "tanh" }
  | { readonly kind: "swiglu" };

/** A feed-forward network [B, N, C] → [B, N, C] with `hidden` channels; SwiGLU has three matrices, and so two thirds of the channels. */
export function feedForward(p: Params, x: Tensor, hidden: number, kind: FeedForward): Tensor {
  return kind.kind === "gelu"
    ? mlp(p, x, hidden, kind.approximate)
    : swiGlu(p, x, Math.floor((hidden * 2) / 3));
}

/** Two linear layers around a GELU, with timm's names `fc1` and `fc2`: [B, N, C] → [B, N, outputs]. */
export function mlp(
  p: Params,
  x: Tensor,
  hidden: number,
  approximate: "none" | "tanh" = "tanh",
  outputs: number = x.size(-1),
): Tensor {
  const inner = linear(p.at("fc1"), x, hidden).gelu(approximate); // [B, N, hidden]
  return linear(p.at("fc2"), inner, outputs); // [B, N, outputs]
}

/** SwiGLU, a SiLU gate times a linear branch, both from `w12`, and then `w3`: [B, N, C] → [B, N, C]. */
function swiGlu(p: Params, x: Tensor, hidden: number): Tensor {
  const [gate, value] = linearParts(p.at("w12"), x, 2, hidden) as [Tensor, Tensor]; // 2 × [B, N, hidden]
  return linear(p.at("w3"), gate.silu().mul(value), x.size(-1)); // [B, N, C]
}
