/**
 * Mean flows (Geng et al., 2025, "Mean Flows for One-step Generative Modeling"): a network that predicts the average velocity u
 * of a step from time t to r instead of the velocity v at t, so that few steps suffice. On the path of x,
 *
 *     u(x, t, r) = v(x, t) − (t − r) · du/dt.
 *
 * The form is that of MiniT2I: the network predicts a picture, and the velocity that it learns is a teacher's with guidance,
 * whose strength and interval the network is told. Times run from 1, noise, to 0.
 */
import { jvp } from "../engine/gradients/jvp.ts";
import { detach, onesLike, zerosLike } from "../engine/graph/functional.ts";
import type { Tensor } from "../engine/graph/tensor.ts";
import { perImage } from "./losses.ts";

/** The velocity of a prediction of x0 is taken as if no less noise were left than this time. */
export const LOWEST_TIME = 0.05;

/** The velocity at x [B, …] that leads to a predicted picture, with times t [B] of no less than `LOWEST_TIME`. */
export function velocityTo(x0: Tensor, x: Tensor, t: Tensor): Tensor {
  return x.sub(x0).div(perImage(t.clamp(LOWEST_TIME, 1), x));
}

/**
 * The velocity with guidance where a time lies in its interval, ends included: scale·conditional + (1 − scale)·unconditional.
 *
 * @param guidance of each example, [B]
 */
export function guidedVelocity(
  { conditional, unconditional }: { readonly conditional: Tensor; readonly unconditional: Tensor },
  { t, guidance, from, to }: Pick<MeanFlowTimes<Tensor>, "t" | "guidance" | "from" | "to">,
): Tensor {
  const inside = t.greaterEqual(from).and(t.lessEqual(to)).cast(guidance.dtype);
  const scale = perImage(guidance.sub(1).mul(inside).add(1), conditional);
  return conditional.mul(scale).add(unconditional.mul(scale.neg().add(1)));
}

/** Times and guidance of examples: [B] each. */
export interface MeanFlowTimes<T> {
  /** The noisy end of the step. */
  readonly t: T;
  /** The other end, no later than t. */
  readonly r: T;
  readonly guidance: T;
  /** The interval of times in which it guides. */
  readonly from: T;
  readonly to: T;
}

/** The random numbers that determine the times of one example. */
export interface MeanFlowDraw {
  /** Standard normal numbers. */
  readonly t: number;
  readonly r: number;
  /** Uniform numbers in [0, 1). */
  readonly from: number;
  readonly to: number;
  readonly guidance: number;
}

export interface MeanFlowOptions {
  /** Mean and deviation of the normal numbers whose sigmoids are the times. */
  readonly mean: number;
  readonly std: number;
  /** The share of each batch, its first examples, whose steps have no length: there the mean velocity is the velocity. */
  readonly instantShare: number;
  /** Guidance lies between 1 and one more than this. */
  readonly mostGuidance: number;
  /** Guidance g has a density proportional to g^(−guidancePower); 1 is even in its logarithm. */
  readonly guidancePower: number;
}

/** MiniT2I's. */
export const meanFlowDefaults: MeanFlowOptions = {
  mean: 0.8,
  std: 0.8,
  instantShare: 0.5,
  mostGuidance: 12,
  guidancePower: 1,
};

/**
 * Times and guidance of a batch. Examples whose step has no length are guided everywhere; the interval of the others begins in
 * the first half of the times and ends in the second.
 */
export function meanFlowTimes(
  draws: readonly MeanFlowDraw[],
  { mean, std, instantShare, ...options }: MeanFlowOptions,
): MeanFlowTimes<readonly number[]> {
  const time = (value: number) => 1 / (1 + Math.exp(-(mean + std * value)));
  const instant = Math.trunc(draws.length * instantShare);
  const examples = draws.map((draw, i) => {
    const first = time(draw.t);
    const second = i < instant ? first : time(draw.r);
    return {
      t: Math.max(first, second),
      r: Math.min(first, second),
      guidance: guidanceAt(draw.guidance, options),
      from: i < instant ? 0 : draw.from / 2,
      to: i < instant ? 1 : 0.5 + draw.to / 2,
    };
  });
  return {
    t: examples.map(({ t }) => t),
    r: examples.map(({ r }) => r),
    guidance: examples.map(({ guidance }) => guidance),
    from: examples.map(({ from }) => from),
    to: examples.map(({ to }) => to),
  };
}

/** The guidance of a uniform number, by the inverse of its distribution. */
function guidanceAt(
  share: number,
  { mostGuidance, guidancePower }: Pick<MeanFlowOptions, "mostGuidance" | "guidancePower">,
): number {
  const logMost = Math.log1p(mostGuidance);
  if (guidancePower === 1) return Math.exp(share * logMost);
  const rest = 1 - guidancePower;
  return Math.exp(Math.log1p(share * Math.expm1(rest * logMost)) / rest);
}

export interface MeanFlowLoss {
  /** The mean velocity that the network predicts, [B, …]. */
  readonly u: Tensor;
  /** du/dt along the velocity. */
  readonly derivative: Tensor;
  /** The velocity that the prediction and its derivative imply. */
  readonly implied: Tensor;
  /** The squared distance from the velocity, summed over each example, [B]. */
  readonly distance: Tensor;
  /** The distance divided by its own power, so that noisier examples do not have larger gradients, [B]. */
  readonly loss: Tensor;
}

/** The weight 1/(distance + epsilon)^power of an example, which gets no gradient (Geng et al., 2025, eq. 22). */
export interface AdaptiveWeight {
  readonly power: number;
  readonly epsilon: number;
}

/**
 * The loss of a mean flow (Geng et al., 2025, eq. 10).
 *
 * @param x noisy pictures, [B, …]
 * @param velocity the velocity at x, which gets no gradient
 * @param u the network: noisy pictures and both times [B] → mean velocity
 */
export function meanFlowLoss(
  x: Tensor,
  { t, r }: Pick<MeanFlowTimes<Tensor>, "t" | "r">,
  velocity: Tensor,
  u: (x: Tensor, t: Tensor, r: Tensor) => Tensor,
  { power, epsilon }: AdaptiveWeight = { power: 1, epsilon: 0.01 },
): MeanFlowLoss {
  const known = detach(velocity);
  // The noisy pictures may have been made with t, but move along the velocity here.
  const at = [detach(x), detach(t), detach(r)] as const;
  const predicted = u(...at);
  const derivative = detach(jvp(predicted, at, [known, onesLike(t), zerosLike(r)]));
  const implied = predicted.add(derivative.mul(perImage(t.sub(r), x)));
  const axes = x.shape.slice(1).map((_, i) => i + 1);
  const distance = implied.sub(known).square().sum(axes);
  const loss = distance.div(detach(distance.add(epsilon).pow(power)));
  return { u: predicted, derivative, implied, distance, loss };
}
