/** DDPM (Ho et al., 2020): each step draws from the reverse process, given the estimate of x0. */
import { PatchwiseError } from "../../engine/errors.ts";
import type { NdArray } from "../../engine/arrays/ndarray.ts";
import { combine, mapElements } from "../arrays.ts";
import type { Denoised } from "../denoiser.ts";
import type { NoiseLevel } from "../levels.ts";
import { noiseFor, report, type Sampler, type SamplerOptions, transitions } from "./sampler.ts";

export interface DDPMOptions extends SamplerOptions {
  /**
   * Variance of each step: β̃ ("small"), which is exact for data of a single point; β ("large"), exact for normal data; or
   * the model's own between the two ("learned"). If not given, "learned" for models that learn one, else "small".
   */
  readonly variance?: "small" | "large" | "learned" | undefined;
}

/** Ho et al., algorithm 2, for any alpha and sigma. No noise is added by the step that ends at sigma 0. */
export const ddpm: Sampler<DDPMOptions> = async function* (denoise, x, levels, options = {}) {
  for (const step of transitions(levels, options.signal)) {
    const { from, to } = step;
    const { beta, betaTilde, ofX0, ofX } = posterior(from, to);
    const denoised = await denoise(x, from);
    const mean = combine([ofX0, denoised.x0], [ofX, x]);
    if (to.sigma === 0) x = mean;
    else {
      const noise = noiseFor(step, x, options);
      switch (options.variance ?? (denoised.variance ? "learned" : "small")) {
        case "small":
          x = combine([1, mean], [Math.sqrt(betaTilde), noise]);
          break;
        case "large":
          x = combine([1, mean], [Math.sqrt(beta), noise]);
          break;
        case "learned": {
          const [low, high] = [Math.log(betaTilde), Math.log(beta)];
          const middle = (low + high) / 2;
          // exp(log variance / 2), where −1 is the low end and 1 the high one.
          const deviation = (place: number) => Math.exp((middle + (place * (high - low)) / 2) / 2);
          const variance = learned(denoised);
          x = mapElements((m, place, n) => m + deviation(place) * n, mean, variance, noise);
        }
      }
    }
    yield report(step, levels, x, denoised.x0);
  }
  return x;
};

/**
 * q(x at `to` | x at `from`, x0): mean ofX0·x0 + ofX·x and variance betaTilde; beta is that of q(from | to)
 * (Kingma et al., 2021, "Variational Diffusion Models", eq. 25 to 27).
 */
function posterior(from: NoiseLevel, to: NoiseLevel) {
  const kept = from.alpha / to.alpha;
  const beta = from.sigma ** 2 - (kept * to.sigma) ** 2;
  return {
    beta,
    betaTilde: (beta * to.sigma ** 2) / from.sigma ** 2,
    ofX0: (to.alpha * beta) / from.sigma ** 2,
    ofX: (kept * to.sigma ** 2) / from.sigma ** 2,
  };
}

function learned({ variance }: Denoised): NdArray {
  if (variance) return variance;
  throw new PatchwiseError(
    'This model has no learned variance; give the variance "small" or "large".',
  );
}
