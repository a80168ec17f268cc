/** Draws the noise levels of training on the host, by a key. */
import { type NdArray, ndarray } from "../engine/arrays/ndarray.ts";
import { integers, normal, type RandomKey, uniform } from "../engine/random/random.ts";
import { shiftTime } from "./levels.ts";

/** Distributions of training times in [0, 1] (Esser et al., 2024, section 3.1). */
export type TimeDistribution =
  | { readonly kind: "uniform" }
  /** The sigmoid of a normal number, which prefers the middle, where prediction is hardest; mean 0 and deviation 1 unless given. */
  | { readonly kind: "logit-normal"; readonly mean?: number; readonly std?: number }
  /** A positive scale prefers the middle, a negative one the ends; from −1 to 2/(π − 2), 1.29 unless given. */
  | { readonly kind: "mode"; readonly scale?: number }
  /** The distribution of noise-to-signal ratios of the cosine schedule. */
  | { readonly kind: "cosmap" };

/** With a larger scale, times would no longer increase with the uniform number. */
export const largestModeScale = 2 / (Math.PI - 2);

export interface FlowTimesOptions {
  /** The distribution from which times are drawn; uniform by default. */
  readonly distribution?: TimeDistribution;
  /** Time shift as in sampling, above 1 for more noisy times; 1 unless given. */
  readonly shift?: number;
}

/** Draws times [B] of rectified flow, float32 in [0, 1]. */
export function flowTimes(
  key: RandomKey,
  count: number,
  { distribution = { kind: "uniform" }, shift = 1 }: FlowTimesOptions = {},
): NdArray<"float32"> {
  const drawn = distribution.kind === "logit-normal" ? normal(key, [count]) : uniform(key, [count]);
  const times = drawn.data.map((value) => shiftTime(timeOf(value, distribution), shift));
  return ndarray("float32", [count], times);
}

/** The time of a standard normal number for "logit-normal", and of a uniform one for the other distributions. */
export function timeOf(value: number, distribution: TimeDistribution): number {
  switch (distribution.kind) {
    case "uniform":
      return value;
    case "logit-normal": {
      const { mean = 0, std = 1 } = distribution;
      return 1 / (1 + Math.exp(-(mean + std * value)));
    }
    case "mode": {
      const { scale = 1.29 } = distribution;
      // The published formula of 1 − value, so that times increase with the value.
      return value + scale * (value - Math.sin((Math.PI / 2) * value) ** 2);
    }
    case "cosmap":
      return 1 - 1 / (Math.tan((Math.PI / 2) * value) + 1);
  }
}

/** Draws steps [B] of a discrete process, int64, uniformly. */
export function uniformSteps(key: RandomKey, count: number, steps: number): NdArray<"int64"> {
  return integers(key, 0, steps, [count]);
}
