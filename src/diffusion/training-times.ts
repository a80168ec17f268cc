/** Noise levels to train at, drawn on the host: randomness is an argument. */
import { type NdArray, ndarray } from "../engine/ndarray.ts";
import { integers, normal, type RandomKey, uniform } from "../engine/random.ts";
import { shiftTime } from "./levels.ts";

/** How often each time of [0, 1] is trained. */
export type TimeDistribution =
  | { readonly kind: "uniform" }
  /** sigmoid of a normal: mostly the middle, where prediction is hardest (Esser et al., 2024, section 3.1); 0 and 1 unless given. */
  | { readonly kind: "logit-normal"; readonly mean?: number; readonly std?: number };

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
  const drawn = distribution.kind === "uniform" ? uniform(key, [count]) : normal(key, [count]);
  const times = drawn.data.map((value) => shiftTime(timeOf(value, distribution), shift));
  return ndarray("float32", [count], times);
}

function timeOf(value: number, distribution: TimeDistribution): number {
  if (distribution.kind === "uniform") return value;
  const { mean = 0, std = 1 } = distribution;
  return 1 / (1 + Math.exp(-(mean + std * value)));
}

/** Steps [B] of a discrete process, int64, all equally likely. */
export function uniformSteps(key: RandomKey, count: number, steps: number): NdArray<"int64"> {
  return integers(key, 0, steps, [count]);
}
