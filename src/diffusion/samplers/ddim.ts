/**
 * DDIM (Song et al., 2021) and its two special cases in (alpha, sigma): Euler's method, which adds no noise, and Euler
 * ancestral, which adds all of DDPM's.
 */
import { combine } from "../arrays.ts";
import { noiseOf } from "../denoiser.ts";
import { type NoiseLevel, noiseRatio } from "../levels.ts";
import { noiseFor, report, type Sampler, type SamplerOptions, transitions } from "./sampler.ts";

export interface DDIMOptions extends SamplerOptions {
  /** Share of DDPM's noise that each step adds; 0 unless given. */
  readonly eta?: number;
}

/** Song et al., eq. 12 and 16, for any alpha and sigma. */
export const ddim: Sampler<DDIMOptions> = async function* (denoise, x, levels, options = {}) {
  for (const step of transitions(levels, options.signal)) {
    const { from, to } = step;
    const denoised = await denoise(x, from);
    const added = (options.eta ?? 0) * ancestralDeviation(from, to);
    const kept = Math.sqrt(Math.max(0, to.sigma ** 2 - added ** 2));
    const next = combine([to.alpha, denoised.x0], [kept, noiseOf(denoised, x, from)]);
    x = added === 0 ? next : combine([1, next], [added, noiseFor(step, x, options)]);
    yield report(step, levels, x, denoised.x0);
  }
  return x;
};

/** Standard deviation of the noise of an ancestral step, √β̃. */
function ancestralDeviation(from: NoiseLevel, to: NoiseLevel): number {
  return to.sigma * Math.sqrt(1 - (noiseRatio(to) / noiseRatio(from)) ** 2);
}

/** Euler's method for x / alpha over sigma / alpha (Karras et al., 2022), or for x over time on straight levels. Order 1. */
export const euler: Sampler = (denoise, x, levels, options) =>
  ddim(denoise, x, levels, { ...options, eta: 0 });

/** Euler's method to a lower noise level, plus fresh noise (`sample_euler_ancestral` of k-diffusion). */
export const eulerAncestral: Sampler = (denoise, x, levels, options) =>
  ddim(denoise, x, levels, { ...options, eta: 1 });
