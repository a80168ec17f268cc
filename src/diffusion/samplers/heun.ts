/** Heun's method, of order 2 with two evaluations a step (Karras et al., 2022, algorithm 1 without churn), and its coordinates. */
import { combine } from "../arrays.ts";
import { type Denoiser, noiseOf } from "../denoiser.ts";
import { type NoiseLevel, noiseRatio } from "../levels.ts";
import { report, type Sampler, transitions } from "./sampler.ts";
import { PatchwiseError } from "../../engine/errors.ts";

/**
 * Goes from level to level on a straight line, where dx = x0·dalpha + noise·dsigma: with alpha = 1 this is the published
 * algorithm, on straight levels Heun's method for the velocity. A step to sigma 0 is Euler's, since no network runs there.
 */
export const heun: Sampler = async function* (denoise, x, levels, { signal } = {}) {
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
};

/**
 * Runs a sampler on x / alpha, as Karras et al. (2022) do: the noise grows without bound while the image keeps its scale.
 * Samplers of order 1 give the same result either way; others differ within their error.
 */
export function exploding(sampler: Sampler): Sampler {
  return async function* (denoise, x, levels, options) {
    const [first] = levels;
    if (first?.alpha === 0) {
      throw new PatchwiseError(
        "This sampler divides by alpha, which is 0 at the first noise level; begin at a level that holds something of the image, or take another sampler.",
      );
    }
    const stretched = levels.map((level) => ({ ...level, alpha: 1, sigma: noiseRatio(level) }));
    const original = (level: NoiseLevel) => levels[stretched.indexOf(level)] ?? level;
    const denoiseStretched: Denoiser = async (y, level) => {
      const known = original(level);
      return denoise(combine([known.alpha, y]), known);
    };
    const steps = sampler(
      denoiseStretched,
      combine([1 / (first?.alpha ?? 1), x]),
      stretched,
      options,
    );
    for (;;) {
      const next = await steps.next();
      if (next.done) return combine([levels.at(-1)!.alpha, next.value]);
      const level = original(next.value.level);
      yield { ...next.value, level, x: combine([level.alpha, next.value.x]) };
    }
  };
}
