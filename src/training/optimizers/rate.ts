/** The learning rate over a training. */

export interface RateSchedule {
  /** The highest rate. */
  readonly rate: number;
  /** Steps over which it rises from 0. */
  readonly warmUp: number;
  readonly decay: Decay;
}

export type Decay =
  | { readonly kind: "none" }
  /** Falls to `to` times the rate over the last `over` of the training, in (0, 1]. */
  | { readonly kind: "linear" | "cosine"; readonly over: number; readonly to: number };

/**
 * The rate of a step.
 *
 * @param step from 1
 * @param progress share of the training that is done before it, in [0, 1]
 */
export function rateAt(
  { rate, warmUp, decay }: RateSchedule,
  step: number,
  progress: number,
): number {
  const rising = Math.min(1, step / Math.max(1, warmUp));
  if (decay.kind === "none") return rate * rising;
  const fallen = Math.max(0, Math.min(1, (progress - (1 - decay.over)) / decay.over));
  const shape = decay.kind === "linear" ? 1 - fallen : (1 + Math.cos(Math.PI * fallen)) / 2;
  return rate * rising * (decay.to + (1 - decay.to) * shape);
}
