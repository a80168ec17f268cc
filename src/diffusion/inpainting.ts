/** Inpainting: images of which a part is known. */
import type { NdArray } from "../engine/arrays/ndarray.ts";
import { mapElements } from "./arrays.ts";
import { type Denoiser, type Network, noiseOf } from "./denoiser.ts";
import type { NoiseLevel } from "./levels.ts";

/**
 * A denoiser whose estimate is `known` where the mask is 0. A sampler that starts with noised `known` then keeps it at every
 * level, noised as much as the rest, and ends with it; this holds for every sampler.
 *
 * @param known images of x's shape
 * @param mask of the same shape, in [0, 1]: the share of the denoiser's own estimate
 */
export function inpaint(denoise: Denoiser, known: NdArray, mask: NdArray): Denoiser {
  return async (x, level) => {
    const { x0, noise, variance } = await denoise(x, level);
    return {
      x0: blended(x0, known, mask),
      noise: noise && blended(noise, noiseOf({ x0: known }, x, level), mask),
      variance,
    };
  };
}

/** Tokens that a network sees without noise. */
export interface CleanTokens {
  /** Of x's shape: 0 in the places of these tokens, 1 elsewhere. */
  readonly mask: NdArray;
  /** The times at a level, one for each token or frame, [B, times]: that of the level, or where it is clean that of no noise. */
  readonly timesAt: (level: NoiseLevel) => NdArray;
}

/**
 * A network that sees `known` in the places of some tokens, at the time of no noise, whatever the level of the others is. It was
 * trained with a noise level for each token, as Wan2.2-TI2V (first frame) or by diffusion forcing (Chen et al., 2024).
 */
export function withCleanTokens(
  network: Network,
  known: NdArray,
  { mask, timesAt }: CleanTokens,
): Network {
  return (x, level, told) =>
    network(blended(x, known, mask), level, { ...told, t: timesAt(level) });
}

function blended(drawn: NdArray, kept: NdArray, mask: NdArray): NdArray {
  return mapElements((a, b, share) => share * a + (1 - share) * b, drawn, kept, mask);
}
