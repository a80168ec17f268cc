/** The feed-forward half of a transformer block. */
import type { Tensor } from "../engine/tensor.ts";
import { linear } from "./linear.ts";
import type { Params } from "./params.ts";

/** Two linear layers around a GELU (timm's names `fc1`, `fc2`): [B, N, C] → [B, N, C]. */
export function mlp(
  p: Params,
  x: Tensor,
  hidden: number,
  approximate: "none" | "tanh" = "tanh",
): Tensor {
  const inner = linear(p.at("fc1"), x, hidden).gelu(approximate); // [B, N, hidden]
  return linear(p.at("fc2"), inner, x.size(-1)); // [B, N, C]
}
