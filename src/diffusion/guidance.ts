/** Classifier-free guidance (Ho & Salimans, 2022) as a wrapper around two denoisers, and what was added to it since. */
import type { NdArray } from "../engine/arrays/ndarray.ts";
import { combine, images, mapElements, type Real, splitChannels } from "./arrays.ts";
import { type Denoised, type Denoiser, noiseOf } from "./denoiser.ts";
import { isWithin, type NoiseInterval, type NoiseLevel } from "./levels.ts";
import { type Parameterization, estimatesOf, predictionOf } from "./parameterization.ts";

export interface Guidance {
  /** How far to go from the unconditional estimate through the conditional one; 1 is the conditional one itself. */
  readonly scale: number;
  /** Guides only where sigma / alpha is within (Kynkäänniemi et al., 2024). */
  readonly interval?: NoiseInterval | undefined;
  /** Guides the first channels only: DiT's published figures rest on 3 of 4. */
  readonly channels?: number | undefined;
  /** Gives guided predictions back the standard deviation of conditional ones (Lin et al., 2024, eq. 15 and 16). */
  readonly rescale?:
    | {
        /** φ: 0 leaves the guided prediction as it is, 1 rescales it wholly; 0.7 in the paper. */
        readonly amount: number;
        /** Of what the standard deviation is taken: what the network predicts. */
        readonly parameterization: Parameterization;
      }
    | undefined;
  /** Leads away from what the network says without some of its layers, as the code of Stable Diffusion 3.5. */
  readonly skipLayers?:
    | {
        /** How far; 0 is not at all. */
        readonly scale: number;
        /** The conditional denoiser without these layers. */
        readonly weakened: Denoiser;
        readonly interval: NoiseInterval;
      }
    | undefined;
}

/** Asks those denoisers that count at a level, at once. A learned variance is the conditional one's. */
export function guided(
  conditional: Denoiser,
  unconditional: Denoiser,
  guidance: Guidance,
): Denoiser {
  const { scale, interval, channels, rescale, skipLayers } = guidance;
  return async (x, level) => {
    const guides = scale !== 1 && (!interval || isWithin(interval, level));
    const skips = skipLayers && skipLayers.scale !== 0 && isWithin(skipLayers.interval, level);
    const [wanted, free, weak] = await Promise.all([
      conditional(x, level),
      guides ? unconditional(x, level) : undefined,
      skips ? skipLayers.weakened(x, level) : undefined,
    ]);
    if (!free && !weak) return wanted;
    // At one x, x0 and every prediction are linear in each other: guiding one guides all.
    const away = skipLayers && weak ? skipLayers.scale : 0;
    let x0 = combine(
      [(free ? scale : 1) + away, wanted.x0],
      ...(free ? [[1 - scale, free.x0] as const] : []),
      ...(weak ? [[-away, weak.x0] as const] : []),
    );
    if (rescale) x0 = rescaled(x0, wanted, x, level, rescale);
    if (channels !== undefined && channels < x.shape[1]!) {
      x0 = withFirstChannels(wanted.x0, x0, channels);
    }
    return { x0, variance: wanted.variance };
  };
}

/** The guided x0 whose prediction has, image by image, the standard deviation of the conditional prediction. */
function rescaled(
  x0: NdArray,
  conditional: Denoised,
  x: NdArray,
  level: NoiseLevel,
  { amount, parameterization }: NonNullable<Guidance["rescale"]>,
): NdArray<Real> {
  const [wanted, guidedPrediction] = [conditional, { x0 }].map((estimate) => {
    const noise = noiseOf(estimate, x, level);
    return predictionOf(parameterization, level, { x0: estimate.x0, noise });
  }) as [NdArray<Real>, NdArray<Real>];
  const deviations = images(wanted).map(standardDeviation);
  const scaled = mapElements((value) => value, guidedPrediction);
  for (const [i, image] of images(scaled).entries()) {
    const factor = amount * (deviations[i]! / standardDeviation(image)) + 1 - amount;
    for (let j = 0; j < image.length; j++) image[j]! *= factor;
  }
  return estimatesOf(parameterization, level, x, scaled).x0;
}

function standardDeviation(values: Float32Array | Float64Array): number {
  let [sum, squares] = [0, 0];
  for (const value of values) sum += value;
  const mean = sum / values.length;
  for (const value of values) squares += (value - mean) ** 2;
  return Math.sqrt(squares / values.length);
}

/** `rest` with its first channels taken from `first`. */
function withFirstChannels(rest: NdArray, first: NdArray, count: number): NdArray<Real> {
  const [head] = splitChannels(first, count);
  const result = mapElements((value) => value, rest);
  const heads = images(head);
  for (const [i, image] of images(result).entries()) image.set(heads[i]!);
  return result;
}
