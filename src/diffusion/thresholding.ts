/** Keeps estimates of x0 in the range of images, for models of pixels (Saharia et al., 2022, section 2.3). */
import type { NdArray } from "../engine/arrays/ndarray.ts";
import { images, mapElements, real } from "./arrays.ts";
import type { Denoiser } from "./denoiser.ts";

export type Threshold =
  /** Limits x0 to [−range, range]. */
  | {
      readonly kind: "static";
      readonly range?: number;
      /** Keeps the noise that the network predicted, instead of the noise that the limited x0 implies. */
      readonly keepNoise?: boolean;
    }
  /** Limits x0 to the quantile of its magnitudes, at least 1 and at most `most`, and divides by it. */
  | {
      readonly kind: "dynamic";
      readonly quantile?: number;
      readonly most?: number;
      readonly keepNoise?: boolean;
    };

/** A denoiser whose estimates are limited by a threshold. */
export function thresholded(denoise: Denoiser, threshold: Threshold): Denoiser {
  return async (x, level) => {
    const denoised = await denoise(x, level);
    const noise = threshold.keepNoise ? denoised.noise : undefined;
    return { ...denoised, x0: limited(denoised.x0, threshold), noise };
  };
}

function limited(x0: NdArray, threshold: Threshold): NdArray {
  if (threshold.kind === "static") {
    const { range = 1 } = threshold;
    return mapElements((value) => Math.min(Math.max(value, -range), range), x0);
  }
  const { quantile = 0.995, most = 1 } = threshold;
  const result = mapElements((value) => value, x0);
  for (const image of images(result)) {
    const bound = Math.min(Math.max(quantileOf(image.map(Math.abs), quantile), 1), most);
    for (let i = 0; i < image.length; i++) {
      image[i] = Math.min(Math.max(image[i]!, -bound), bound) / bound;
    }
  }
  return real(result);
}

/** A quantile, interpolated between the two nearest values. */
function quantileOf(values: Float32Array | Float64Array, quantile: number): number {
  values.sort();
  const place = quantile * (values.length - 1);
  const [low, rest] = [Math.floor(place), place % 1];
  return rest === 0 ? values[low]! : values[low]! + rest * (values[low + 1]! - values[low]!);
}
