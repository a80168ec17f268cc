/** The one question that samplers ask: which clean image does this noisy one come from? */
import type { NdArray } from "../engine/ndarray.ts";
import { combine, type Real, splitChannels } from "./arrays.ts";
import type { NoiseLevel } from "./levels.ts";
import { estimatesOf, type Parameterization } from "./parameterization.ts";

export interface Denoised {
  /** The estimate of the clean images, of x's shape. */
  readonly x0: NdArray;
  /** The estimate of the noise, where it is known apart from x0; else it is what x0 implies. */
  readonly noise?: NdArray | undefined;
  /**
   * Where the model learns a variance: its place between the smallest (−1) and the largest (1) one that a DDPM step may
   * have, on a logarithmic scale (Nichol & Dhariwal, 2021, eq. 15).
   */
  readonly variance?: NdArray | undefined;
}

/** Estimates x0 of images [B, …], float32, all at one noise level. */
export type Denoiser = (x: NdArray, level: NoiseLevel) => Promise<Denoised>;

/** A network: images [B, C, …] at a level → its prediction [B, C, …], with a learned variance [B, 2·C, …]. */
export type Network = (x: NdArray, level: NoiseLevel) => Promise<NdArray>;

/**
 * The denoiser of a network.
 *
 * @param options.learnedVariance whether the second half of the output channels is a variance
 * @example const denoise = denoiserOf(async (x, { time }) => (await program.run({ x, t: full(time) })).output, "epsilon");
 */
export function denoiserOf(
  network: Network,
  parameterization: Parameterization,
  { learnedVariance = false }: { readonly learnedVariance?: boolean } = {},
): Denoiser {
  return async (x, level) => {
    const output = await network(x, level);
    const [prediction, variance] = learnedVariance
      ? splitChannels(output, x.shape[1]!)
      : [output, undefined];
    return { ...estimatesOf(parameterization, level, x, prediction), variance };
  };
}

/** The noise in x that goes with an estimate of x0. */
export function noiseOf(
  { x0, noise }: Denoised,
  x: NdArray,
  { alpha, sigma }: NoiseLevel,
): NdArray<Real> {
  return noise ? combine([1, noise]) : combine([1 / sigma, x], [-alpha / sigma, x0]);
}
