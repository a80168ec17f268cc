/** The interface of samplers, and what they share. */
import { PatchwiseError, ShapeError } from "../../engine/errors.ts";
import type { NdArray } from "../../engine/arrays/ndarray.ts";
import type { Denoiser } from "../denoiser.ts";
import { type NoiseLevel, noiseRatio } from "../levels.ts";
import type { NoiseSource } from "../noise.ts";

export interface SamplerOptions {
  /** The noise of stochastic samplers. */
  readonly noise?: NoiseSource | undefined;
  /** Ends sampling before the next run of the network, by throwing the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

/** The state of sampling after a step. */
export interface SampleStep {
  /** Number of steps that are done, from 1. */
  readonly step: number;
  readonly steps: number;
  /** The level after the step. */
  readonly level: NoiseLevel;
  readonly x: NdArray;
  /** The estimate of x0 that the step used, for a preview. */
  readonly x0: NdArray;
}

/**
 * Takes x, images [B, …] at the first level, through all levels; yields after each step and returns x at the last level.
 *
 * @param levels noisiest first, at least two
 */
export type Sampler<Options extends SamplerOptions = SamplerOptions> = (
  denoise: Denoiser,
  x: NdArray,
  levels: readonly NoiseLevel[],
  options?: Options,
) => AsyncGenerator<SampleStep, NdArray>;

/** An estimate of x0 that later steps extrapolate from. */
export interface Estimate {
  readonly x0: NdArray;
  /** The value of the variable over which x0 is extrapolated, such as λ. */
  readonly time: number;
}

/** Runs a sampler to its end and returns the images. */
export async function finalImages(steps: AsyncGenerator<unknown, NdArray>): Promise<NdArray> {
  for (;;) {
    const next = await steps.next();
    if (next.done) return next.value;
  }
}

export interface Transition {
  /** Number of this step, from 0. */
  readonly index: number;
  readonly from: NoiseLevel;
  readonly to: NoiseLevel;
  readonly last: boolean;
}

/**
 * The steps between levels; checks the signal before each.
 *
 * @throws PatchwiseError unless there are at least two levels, none noisier than the one before
 */
export function* transitions(
  levels: readonly NoiseLevel[],
  signal: AbortSignal | undefined,
): Generator<Transition> {
  const count = levels.length - 1;
  if (count < 1) {
    throw new PatchwiseError(
      `A sampler needs at least two noise levels, the first to start from and the last to end at, got ${levels.length}.`,
    );
  }
  const at = levels.findIndex(
    (level, i) => i > 0 && !(noiseRatio(level) <= noiseRatio(levels[i - 1]!)),
  );
  if (at > 0) {
    const [before, level] = [levels[at - 1]!, levels[at]!];
    throw new PatchwiseError(
      `Noise level ${at} (alpha ${level.alpha}, sigma ${level.sigma}) is noisier than the one before (alpha ${before.alpha}, sigma ${before.sigma}); give levels in descending order of noise.`,
    );
  }
  for (let index = 0; index < count; index++) {
    signal?.throwIfAborted();
    yield { index, from: levels[index]!, to: levels[index + 1]!, last: index === count - 1 };
  }
}

/** Returns true if later steps can extrapolate from this one: λ must be finite, and the levels must differ. */
export function canExtrapolate({ from, to }: Transition): boolean {
  return from.alpha !== 0 && noiseRatio(from) !== noiseRatio(to);
}

/** The state of sampling after a step. */
export function report(
  { index, to }: Transition,
  levels: readonly NoiseLevel[],
  x: NdArray,
  x0: NdArray,
): SampleStep {
  return { step: index + 1, steps: levels.length - 1, level: to, x, x0 };
}

/**
 * Noise of x's shape for a step.
 *
 * @throws PatchwiseError if the sampler has no source of noise
 * @throws ShapeError if the source gives another shape
 */
export function noiseFor({ index }: Transition, x: NdArray, { noise }: SamplerOptions): NdArray {
  if (!noise) {
    throw new PatchwiseError(
      "This sampler adds noise at each step and needs a source of it; give `noise`, such as keyedNoise(keys).",
    );
  }
  const drawn = noise(index, x.shape);
  if (drawn.shape.join() === x.shape.join()) return drawn;
  throw new ShapeError(
    `The noise for step ${index} has the shape [${drawn.shape.join(", ")}], but the images have [${x.shape.join(", ")}].`,
  );
}
