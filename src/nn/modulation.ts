/** Adaptive layer norm: the condition scales and shifts what a norm gives (Peebles & Xie, 2022). */
import type { Tensor } from "../engine/tensor.ts";

/** x·(1 + scale) + shift, with x [B, N, C] and one scale and shift [B, C] for all tokens. */
export function modulate(x: Tensor, shift: Tensor, scale: Tensor): Tensor {
  return x.mul(scale.add(1).unsqueeze(1)).add(shift.unsqueeze(1));
}

/** A branch weighted by one gate [B, C] for all tokens of [B, N, C]. */
export function gated(gate: Tensor, branch: Tensor): Tensor {
  return branch.mul(gate.unsqueeze(1));
}
