/** Classifier-free guidance (Ho & Salimans, 2022) as a wrapper around two denoisers, with later additions to it. */
import type { NdArray } from "../engine/arrays/ndarray.ts";
import { combine, images, mapElements, type Real, splitChannels } from "./arrays.ts";
import { type Denoised, type Denoiser, noiseOf } from "./denoiser.ts";
import { isWithin, type NoiseInterval, type NoiseLevel } from "./levels.ts";
import { type Parameterization, estimatesOf, predictionOf } from "./parameterization.ts";

export interface Guidance {
  /** How far to extrapolate from the unconditional estimate through the conditional one; 1 gives the conditional one. */
  readonly scale: number;
  /** Guides only at levels whose sigma / alpha is in this interval (Kynkäänniemi et al., 2024). */
  readonly interval?: NoiseInterval | undefined;
  /** Guides the first channels only; DiT's published figures were computed with 3 of 4. */
  readonly channels?: number | undefined;
  /** Rescales guided predictions to the standard deviation of conditional ones (Lin et al., 2024, eq. 15 and 16). */
  readonly rescale?:
    | {
        /** φ in [0, 1]: 0 leaves the guided prediction as it is, 1 rescales it fully; 0.7 in the paper. */
        readonly amount: number;
        /** What the network predicts, whose standard deviation is meant. */
        readonly parameterization: Parameterization;
      }
    | undefined;
  /** Skip-layer guidance: leads away from the estimate without some layers, as in the code of Stable Diffusion 3.5. */
  readonly skipLayers?:
    | {
        /** How far to lead away; 0 is not at all. */
        readonly scale: number;
        /** The conditional denoiser without these layers. */
        readonly weakened: Denoiser;
        readonly interval: NoiseInterval;
      }
    | undefined;
}

/**
 * A denoiser with guidance. At each level it runs only the denoisers that have an effect there, at the same time; a learned
 * variance is the conditional one's.
 */
export function guided(
  conditional: Denoiser,
  unconditional: Denoiser,
  guidance: Guidance,
): Denoiser {
  const { scale, interval, channels, rescale, skipLayers } = guidance;
  return async (x, level) => {
    const guides = scale !== 1 && (!interval || isWithin(interval, level));
    const skips = skipLayers && skipLayers.scale !== 0 && isWithin(skipLayers.interval, level);
    const [positive, negative, weak] = await Promise.all([
      conditional(x, level),
      guides ? unconditional(x, level) : undefined,
      skips ? skipLayers.weakened(x, level) : undefined,
    ]);
    if (!negative && !weak) return positive;
    // At the same x, x0 and every prediction are linear in each other, so that guiding x0 guides them all.
    const away = skipLayers && weak ? skipLayers.scale : 0;
    let x0 = combine(
      [(negative ? scale : 1) + away, positive.x0],
      ...(negative ? [[1 - scale, negative.x0] as const] : []),
      ...(weak ? [[-away, weak.x0] as const] : []),
    );
    if (rescale) x0 = rescaled(x0, positive, x, level, rescale);
    if (channels !== undefined && channels < x.shape[1]!) {
      x0 = withFirstChannels(positive.x0, x0, channels);
    }
    return { x0, variance: positive.variance };
  };
}

/** The linear combination of guidance, negative + scale·(positive − negative). */
export function combinedBy(scale: number, positive: NdArray, negative: NdArray): NdArray<Real> {
  return combine([scale, positive], [1 - scale, negative]);
}

/** Guided predictions scaled down, image by image, where their norm exceeds `most` times that of the conditional ones (Z-Image). */
export function limitedTo(most: number, prediction: NdArray, conditional: NdArray): NdArray<Real> {
  const limits = images(combine([1, conditional])).map((image) => most * normOf(image));
  const limited = combine([1, prediction]);
  for (const [i, image] of images(limited).entries()) {
    const factor = limits[i]! / normOf(image);
    if (factor < 1) for (let j = 0; j < image.length; j++) image[j]! *= factor;
  }
  return limited;
}

function normOf(values: Float32Array | Float64Array): number {
  let squares = 0;
  for (const value of values) squares += value ** 2;
  return Math.sqrt(squares);
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
