/** Other coordinates for samplers. */
import { PatchwiseError } from "../../engine/errors.ts";
import { combine } from "../arrays.ts";
import type { Denoiser } from "../denoiser.ts";
import { type NoiseLevel, noiseRatio } from "../levels.ts";
import type { Sampler } from "./sampler.ts";

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
