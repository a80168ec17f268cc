/** Heun's method, of order 2 with two evaluations a step (Karras et al., 2022, algorithm 1 without churn). */
import type { NdArray } from "../../engine/arrays/ndarray.ts";
import { combine } from "../arrays.ts";
import { type Denoiser, noiseOf } from "../denoiser.ts";
import type { NoiseLevel } from "../levels.ts";
import { report, type SamplerOptions, type SampleStep, transitions } from "./sampler.ts";

/**
 * Goes from level to level on a straight line, where dx = x0·dalpha + noise·dsigma: with alpha = 1 this is the published
 * algorithm, on straight levels Heun's method for the velocity. A step to sigma 0 is Euler's, since no network runs there.
 */
export async function* heun(
  denoise: Denoiser,
  x: NdArray,
  levels: readonly NoiseLevel[],
  options: SamplerOptions = {},
): AsyncGenerator<SampleStep, NdArray> {
  const { signal } = options;
  for (const step of transitions(levels, signal)) {
    const { from, to } = step;
    const first = await denoise(x, from);
    const firstNoise = noiseOf(first, x, from);
    const [dalpha, dsigma] = [to.alpha - from.alpha, to.sigma - from.sigma];
    const end = combine([1, x], [dalpha, first.x0], [dsigma, firstNoise]);
    if (to.sigma === 0) x = end;
    else {
      signal?.throwIfAborted();
      const second = await denoise(end, to);
      const [image, noise] = [dalpha / 2, dsigma / 2];
      x = combine(
        [1, x],
        [image, first.x0],
        [image, second.x0],
        [noise, firstNoise],
        [noise, noiseOf(second, end, to)],
      );
    }
    yield report(step, levels, x, first.x0);
  }
  return x;
}
