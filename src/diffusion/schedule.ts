/**
 * Discrete variance-preserving schedules: at step t of T, a share beta[t] of the signal's variance is replaced by noise
 * (Ho et al., 2020). ᾱ[t], the product of all 1 − beta so far, is alpha².
 */
import { UsageError } from "../engine/errors.ts";
import { clean, linspace, type NoiseLevel, variancePreserving } from "./levels.ts";

export type BetaSchedule =
  /** Ho et al., 2020; from 1e-4 to 0.02 over 1000 steps, scaled for other numbers of steps, unless given. */
  | { readonly kind: "linear"; readonly start?: number; readonly end?: number }
  /** Linear in the square root, as in latent diffusion (Rombach et al., 2022); from 0.00085 to 0.012 unless given. */
  | { readonly kind: "scaled-linear"; readonly start?: number; readonly end?: number }
  /** Nichol & Dhariwal, 2021, eq. 17; no beta above 0.999 unless given. */
  | { readonly kind: "cosine"; readonly maxBeta?: number };

/** Rounding of intermediate results: none, or Math.fround for the tables of code that computes in float32. */
export type Rounding = (x: number) => number;
const exact: Rounding = (x) => x;

/**
 * beta[0 … steps − 1].
 *
 * @throws UsageError if one is not in (0, 1), as in a linear schedule of few steps
 */
export function betasOf(schedule: BetaSchedule, steps: number): Float64Array {
  const betas = rawBetas(schedule, steps);
  const wrong = betas.find((beta) => !(beta > 0 && beta < 1));
  if (wrong === undefined) return betas;
  throw new UsageError(
    `The ${schedule.kind} schedule of ${steps} steps has a beta of ${wrong}; each must be between 0 and 1; give more steps or other ends.`,
  );
}

function rawBetas(schedule: BetaSchedule, steps: number): Float64Array {
  switch (schedule.kind) {
    case "linear": {
      const { start = 0.1 / steps, end = 20 / steps } = schedule;
      return Float64Array.from(linspace(start, end, steps));
    }
    case "scaled-linear": {
      const { start = 0.00085, end = 0.012 } = schedule;
      const roots = linspace(Math.sqrt(start), Math.sqrt(end), steps);
      return Float64Array.from(roots, (root) => root ** 2);
    }
    case "cosine": {
      const { maxBeta = 0.999 } = schedule;
      const alphaBar = (time: number) => Math.cos((((time + 0.008) / 1.008) * Math.PI) / 2) ** 2;
      return Float64Array.from({ length: steps }, (_, t) =>
        Math.min(1 - alphaBar((t + 1) / steps) / alphaBar(t / steps), maxBeta),
      );
    }
  }
}

/** ᾱ, the cumulative product of 1 − beta. */
export function alphaBarsOf(betas: Float64Array, round = exact): Float64Array {
  let product = 1;
  return betas.map((beta) => round((product *= round(1 - beta))));
}

/**
 * Betas rescaled so that the last level is pure noise: √ᾱ is shifted to end at 0 and stretched to keep its first value
 * (Lin et al., 2024, "Common Diffusion Noise Schedules and Sample Steps Are Flawed", algorithm 1).
 */
export function zeroTerminalSNR(betas: Float64Array, round = exact): Float64Array {
  const roots = alphaBarsOf(betas, round).map((alphaBar) => round(Math.sqrt(alphaBar)));
  const [first, last] = [roots[0]!, roots.at(-1)!];
  const stretch = round(first / round(first - last));
  const alphaBars = roots.map((root) => round(round(round(root - last) * stretch) ** 2));
  return alphaBars.map((alphaBar, t) =>
    round(1 - (t === 0 ? alphaBar : round(alphaBar / alphaBars[t - 1]!))),
  );
}

/** √((1 − ᾱ) / ᾱ) of every step. */
export function noiseRatios(alphaBars: Float64Array, round = exact): Float64Array {
  return alphaBars.map((alphaBar) => round(Math.sqrt(round(round(1 - alphaBar) / alphaBar))));
}

/** The level of ᾱ. */
export function levelOf(time: number, alphaBar: number): NoiseLevel {
  return { time, alpha: Math.sqrt(alphaBar), sigma: Math.sqrt(1 - alphaBar) };
}

/**
 * Levels at times of a schedule, then the clean level.
 *
 * @param times descending, within the schedule; between two steps the noise-to-signal ratio is interpolated
 */
export function levelsAt(
  alphaBars: Float64Array,
  times: readonly number[],
  end: NoiseLevel = clean,
): NoiseLevel[] {
  const ratios = noiseRatios(alphaBars);
  const levels = times.map((time) =>
    Number.isInteger(time) && time >= 0 && time < alphaBars.length
      ? levelOf(time, alphaBars[time]!)
      : variancePreserving(time, interpolate(ratios, time)),
  );
  return [...levels, end];
}

/** The value at a fractional index, clamped to the ends. */
export function interpolate(values: Float64Array, index: number): number {
  const at = Math.min(Math.max(index, 0), values.length - 1);
  const [low, rest] = [Math.floor(at), at % 1];
  return rest === 0 ? values[low]! : values[low]! + rest * (values[low + 1]! - values[low]!);
}

/**
 * The fractional step with a noise-to-signal ratio, interpolated in its logarithm and clamped to the ends.
 *
 * @param logRatios log of the ratio at every step, ascending
 */
export function timeOfRatio(logRatios: Float64Array, ratio: number): number {
  const wanted = Math.log(Math.max(ratio, 1e-10));
  const found = logRatios.findLastIndex((value) => value <= wanted);
  const low = Math.min(Math.max(found, 0), logRatios.length - 2);
  const [below, above] = [logRatios[low]!, logRatios[low + 1]!];
  return low + Math.min(Math.max((wanted - below) / (above - below), 0), 1);
}
