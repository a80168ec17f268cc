/** Adaptive layer norm: the condition scales and shifts what a norm gives (Peebles & Xie, 2022). */
import type { Tensor } from "../engine/graph/tensor.ts";
import { linear, type LinearOptions } from "./linear.ts";
import { type Norm, norm } from "./norm.ts";
import type { Params } from "./params.ts";

export interface ModulationOptions {
  /** Makes them through so many channels (name `adaLN_modulation.0`), which saves most of the weights. */
  readonly rank?: number | undefined;
  /** First value of the weight; Xavier uniform unless given. */
  readonly init?: LinearOptions["init"];
}

/** Shifts, scales and gates, all from one linear layer (DiT's name `adaLN_modulation.1`): [B, C] → parts × [B, C]. */
export function modulation(
  p: Params,
  vector: Tensor,
  parts: number,
  { rank, init }: ModulationOptions = {},
): readonly Tensor[] {
  const width = vector.size(-1);
  const narrow = rank
    ? linear(p.at("adaLN_modulation.0"), vector, rank, { bias: false }) // [B, rank]
    : vector;
  return linear(p.at("adaLN_modulation.1"), narrow, parts * width, init && { init }).split(
    parts,
    -1,
  );
}

/** x·(1 + scale) + shift, with x [B, N, C] and one scale and shift [B, C] for all tokens. */
export function modulate(x: Tensor, shift: Tensor, scale: Tensor): Tensor {
  return x.mul(scale.add(1).unsqueeze(1)).add(shift.unsqueeze(1));
}

/** A branch weighted by one gate [B, C] for all tokens of [B, N, C]. */
export function gated(gate: Tensor, branch: Tensor): Tensor {
  return branch.mul(gate.unsqueeze(1));
}

/** What stands before and behind a branch of a residual block. */
export interface Branch {
  readonly norm: (x: Tensor) => Tensor;
  readonly gate: (branch: Tensor) => Tensor;
}

/** A branch that knows no condition; its norm is affine. */
export function plainBranch(p: Params, style: Norm): Branch {
  return { norm: (x) => norm(p, x, { ...style, affine: true }), gate: (branch) => branch };
}

/** A branch whose norm a condition scales and shifts, and which it weights where there is a gate; each [B, C]. */
export function adaptiveBranch(
  p: Params,
  style: Norm,
  [shift, scale, gate]: readonly [shift: Tensor, scale: Tensor, gate?: Tensor | undefined],
): Branch {
  return {
    norm: (x) => modulate(norm(p, x, style), shift, scale),
    gate: (branch) => (gate ? gated(gate, branch) : branch),
  };
}
