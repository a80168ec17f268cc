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

export interface GatedMlpOptions {
  /** Scopes of the three layers; LLaMA's `w1`, `w3` and `w2` unless given. */
  readonly names?: readonly [gate: string, value: string, output: string];
  /** Activation of the gate; SiLU unless given, which makes it SwiGLU. */
  readonly activation?: (gate: Tensor) => Tensor;
}

/** A gate times a linear branch, and a layer behind them, all without biases (Shazeer, 2020): [B, N, C] → [B, N, C]. */
export function gatedMlp(
  p: Params,
  x: Tensor,
  hidden: number,
  { names: [gate, value, output] = ["w1", "w3", "w2"], activation = silu }: GatedMlpOptions = {},
): Tensor {
  const layer = (name: string, input: Tensor, outputs: number) =>
    linear(p.at(name), input, outputs, { bias: false });
  const inner = activation(layer(gate, x, hidden)).mul(layer(value, x, hidden)); // [B, N, hidden]
  return layer(output, inner, x.size(-1));
}

const silu = (x: Tensor) => x.silu();
