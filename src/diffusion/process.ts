/**
 * A discrete diffusion process as tables over its steps (Ho et al., 2020; Nichol & Dhariwal, 2021), in float64. Training
 * losses look numbers up in them, and samplers step through their levels.
 */
import { clean, type NoiseLevel } from "./levels.ts";
import { alphaBarsOf, levelOf } from "./schedule.ts";

export interface DiffusionProcess {
  /** The network's time at each step, ascending. */
  readonly times: readonly number[];
  readonly betas: Float64Array;
  /** ᾱ */
  readonly alphaBars: Float64Array;
  /** ᾱ of the previous step; 1 for the first. */
  readonly previousAlphaBars: Float64Array;
  /** q(x[t − 1] | x[t], x0), a Gaussian (Ho et al., eq. 6 and 7). */
  readonly posterior: {
    /** Coefficients of x0 and of x[t] in its mean. */
    readonly ofX0: Float64Array;
    readonly ofX: Float64Array;
    /** β̃; 0 at the first step, which ends in the image. */
    readonly variance: Float64Array;
    /** log β̃; the first step has the second step's value. */
    readonly logVariance: Float64Array;
  };
}

/**
 * Makes a process of betas in (0, 1].
 *
 * @param times the network's time at each step; the step's number unless given
 */
export function diffusionProcess(
  betas: Float64Array,
  times: readonly number[] = Array.from(betas, (_, t) => t),
): DiffusionProcess {
  const alphaBars = alphaBarsOf(betas);
  const previousAlphaBars = alphaBars.map((_, t) => (t === 0 ? 1 : alphaBars[t - 1]!));
  const table = (entry: (beta: number, alphaBar: number, previous: number) => number) =>
    betas.map((beta, t) => entry(beta, alphaBars[t]!, previousAlphaBars[t]!));
  const variance = table((beta, alphaBar, previous) => (beta * (1 - previous)) / (1 - alphaBar));
  return {
    times,
    betas,
    alphaBars,
    previousAlphaBars,
    posterior: {
      ofX0: table((beta, alphaBar, previous) => (beta * Math.sqrt(previous)) / (1 - alphaBar)),
      ofX: table(
        (beta, alphaBar, previous) => ((1 - previous) * Math.sqrt(1 - beta)) / (1 - alphaBar),
      ),
      variance,
      // A process of one step has no second one; its only step adds no noise.
      logVariance: variance.map((value, t) => Math.log(t === 0 ? (variance[1] ?? value) : value)),
    },
  };
}

/** The process that goes through some of the steps only; the network gets the times of the full process. */
export function respaced(process: DiffusionProcess, kept: readonly number[]): DiffusionProcess {
  const alphaBar = (t: number | undefined) => (t === undefined ? 1 : process.alphaBars[t]!);
  const betas = kept.map((t, i) => 1 - alphaBar(t) / alphaBar(kept[i - 1]));
  return diffusionProcess(
    Float64Array.from(betas),
    kept.map((t) => process.times[t]!),
  );
}

/** Every level of a process, noisiest first, and the clean image. */
export function levelsOf({ times, alphaBars }: DiffusionProcess): NoiseLevel[] {
  const levels = times.map((time, t) => levelOf(time, alphaBars[t]!));
  return [...levels.toReversed(), clean];
}
