/** Adaptive layer norm: time and condition scale and shift the output of a norm (Peebles & Xie, 2022). */
import type { Tensor } from "../engine/graph/tensor.ts";
import { linear, type LinearOptions } from "./linear.ts";
import { type Norm, norm } from "./norm.ts";
import type { Params } from "./params.ts";

export interface ModulationOptions {
  /**
   * Computes the modulation through this many channels (`adaLN_modulation.0`), which saves most of its weights; one full matrix
   * by default.
   */
  readonly rank?: number | undefined;
  /** Initial value of the weight; Xavier uniform by default. */
  readonly init?: LinearOptions["init"];
}

/**
 * Shifts, scales and gates from one linear layer with DiT's name `adaLN_modulation.1`.
 *
 * @param vector time and condition: [B, C], or [B, N, C] with one vector for each token
 * @returns as many tensors as `parts`, each of the shape of `vector`
 */
export function modulation(
  p: Params,
  vector: Tensor,
  parts: number,
  { rank, init }: ModulationOptions = {},
): readonly Tensor[] {
  const width = vector.size(-1);
  const narrow = rank
    ? linear(p.at("adaLN_modulation.0"), vector, rank, { bias: false }) // [..., rank]
    : vector;
  const values = linear(p.at("adaLN_modulation.1"), narrow, parts * width, init && { init });
  return values.split(parts, -1);
}

/** A vector for all tokens, [B, C], or one for each, [B, N, C], in a form that broadcasts to [B, N, C]. */
function overTokens(vector: Tensor): Tensor {
  return vector.rank === 2 ? vector.unsqueeze(1) : vector;
}

/** x·(1 + scale) + shift, with x [B, N, C] and a scale and a shift that are [B, C] or [B, N, C]. */
export function modulate(x: Tensor, shift: Tensor, scale: Tensor): Tensor {
  return x.mul(overTokens(scale.add(1))).add(overTokens(shift));
}

/** A branch [B, N, C] times its gate, which is [B, C] or [B, N, C]. */
export function gated(gate: Tensor, branch: Tensor): Tensor {
  return branch.mul(overTokens(gate));
}

/** What a residual block does before and after one of its branches. */
export interface Branch {
  readonly norm: (x: Tensor) => Tensor;
  readonly gate: (branch: Tensor) => Tensor;
}

/** A branch without modulation; its norm is affine. */
export function plainBranch(p: Params, style: Norm): Branch {
  return { norm: (x) => norm(p, x, { ...style, affine: true }), gate: (branch) => branch };
}

/**
 * Adaptive branches, one for each scope, whose shifts, scales and, unless left out, gates one linear layer gives.
 *
 * @param styles the norm of all branches, or one for each
 */
export function adaptiveBranches(
  p: Params,
  scopes: readonly Params[],
  vector: Tensor,
  styles: Norm | readonly Norm[],
  {
    gates,
    spread = (values) => values,
    ...options
  }: ModulationOptions & {
    readonly gates: boolean;
    /** Gives the modulations the rows of the tokens, where several tokens share one. */
    readonly spread?: ((values: Tensor) => Tensor) | undefined;
  },
): readonly Branch[] {
  const each = gates ? 3 : 2;
  const values = modulation(p, vector, each * scopes.length, options).map(spread);
  return scopes.map((scope, i) => {
    const [shift, scale, gate] = values.slice(i * each, (i + 1) * each);
    const style = "kind" in styles ? styles : styles[i]!;
    return adaptiveBranch(scope, style, [shift!, scale!, gate]);
  });
}

/** A branch whose norm is scaled and shifted, and whose output is gated where there is a gate; each [B, C] or [B, N, C]. */
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
