/** Noise levels to train at, drawn on the host: randomness is an argument. */
import { type NdArray, ndarray } from "../engine/arrays/ndarray.ts";
import { integers, normal, type RandomKey, uniform } from "../engine/random/random.ts";
import { shiftTime } from "./levels.ts";

/** How often each time of [0, 1] is trained (Esser et al., 2024, section 3.1). */
export type TimeDistribution =
  | { readonly kind: "uniform" }
  /** sigmoid of a normal: mostly the middle, where prediction is hardest; 0 and 1 unless given. */
  | { readonly kind: "logit-normal"; readonly mean?: number; readonly std?: number }
  /** A positive scale prefers the middle without neglecting the ends, a negative one the ends; from −1 to 2/(π − 2), 1.29 unless given. */
  | { readonly kind: "mode"; readonly scale?: number }
  /** As often as the cosine schedule has its ratio of noise to signal. */
  | { readonly kind: "cosmap" };

/** Beyond it a time would no longer rise with what it is made of. */
export const largestModeScale = 2 / (Math.PI - 2);

export interface FlowTimesOptions {
  readonly distribution?: TimeDistribution;
  /** As in sampling: more of the noisy times for larger images; 1 unless given. */
  readonly shift?: number;
}

/** Times [B] of rectified flow, float32 in [0, 1]. */
export function flowTimes(
  key: RandomKey,
  count: number,
  { distribution = { kind: "uniform" }, shift = 1 }: FlowTimesOptions = {},
): NdArray<"float32"> {
  const drawn = distribution.kind === "logit-normal" ? normal(key, [count]) : uniform(key, [count]);
  const times = drawn.data.map((value) => shiftTime(timeOf(value, distribution), shift));
  return ndarray("float32", [count], times);
}

/** Of a standard normal value where the distribution is "logit-normal", else of a uniform one. */
function timeOf(value: number, distribution: TimeDistribution): number {
  switch (distribution.kind) {
    case "uniform":
      return value;
    case "logit-normal": {
      const { mean = 0, std = 1 } = distribution;
      return 1 / (1 + Math.exp(-(mean + std * value)));
    }
    case "mode": {
      const { scale = 1.29 } = distribution;
      // What is published, of 1 − value, so that times rise with it: 0 is as rare as 1 is never.
      return value + scale * (value - Math.sin((Math.PI / 2) * value) ** 2);
    }
    case "cosmap":
      return 1 - 1 / (Math.tan((Math.PI / 2) * value) + 1);
  }
}

/** Steps [B] of a discrete process, int64, all equally likely. */
export function uniformSteps(key: RandomKey, count: number, steps: number): NdArray<"int64"> {
  return integers(key, 0, steps, [count]);
}
