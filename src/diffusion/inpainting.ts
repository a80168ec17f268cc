/** Inpainting: images of which a part is known. */
import type { NdArray } from "../engine/arrays/ndarray.ts";
import { mapElements } from "./arrays.ts";
import { type Denoiser, noiseOf } from "./denoiser.ts";

/**
 * A denoiser whose estimate is `known` where the mask is 0. A sampler that starts with noised `known` then keeps it at every
 * level, noised as much as the rest, and ends with it; this holds for every sampler.
 *
 * @param known images of x's shape
 * @param mask of the same shape, in [0, 1]: the share of the denoiser's own estimate
 */
export function inpaint(denoise: Denoiser, known: NdArray, mask: NdArray): Denoiser {
  const blend = (drawn: NdArray, kept: NdArray) =>
    mapElements((a, b, share) => share * a + (1 - share) * b, drawn, kept, mask);
  return async (x, level) => {
    const { x0, noise, variance } = await denoise(x, level);
    return {
      x0: blend(x0, known),
      noise: noise && blend(noise, noiseOf({ x0: known }, x, level)),
      variance,
    };
  };
}
