/** One run of a scheduler of diffusers, with the attributes that diffusers exposes. */
import { castArray, type NdArray, ndarray } from "../engine/arrays/ndarray.ts";
import { combine } from "../diffusion/arrays.ts";
import { type Denoiser, denoiserOf, type Network } from "../diffusion/denoiser.ts";
import type { DiffusersScheduler } from "../diffusion/diffusers/schedulers.ts";
import { type NoiseLevel, noiseRatio } from "../diffusion/levels.ts";
import type { NoiseSource } from "../diffusion/noise.ts";
import { finalImages } from "../diffusion/samplers/sampler.ts";
import { thresholded } from "../diffusion/thresholding.ts";

/** Samples from standard normal x; returns the inputs of the network, in diffusers' scale, and the result: [N + 1, …]. */
export async function trajectory(
  scheduler: DiffusersScheduler,
  network: Network,
  x: NdArray,
  levels: readonly NoiseLevel[],
  noise: NoiseSource,
): Promise<NdArray> {
  const states: NdArray[] = [];
  const scaled = (state: NdArray, { alpha }: NoiseLevel) =>
    combine([scheduler.exploding ? 1 / alpha : 1, state]);
  const watched: Network = (seen, level) => {
    states.push(scaled(seen, level));
    return network(seen, level);
  };
  const plain = denoiserOf(watched, scheduler.parameterization);
  const denoise = scheduler.threshold ? thresholded(plain, scheduler.threshold) : plain;
  const start = combine([scheduler.start(levels[0]!), castArray(x, "float32")]);
  const end = await finished(scheduler, denoise, start, levels, noise);
  const leftover = scheduler.leftover?.(levels.at(-2)!) ?? 0;
  const last =
    leftover === 0 ? end : combine([1, end], [leftover, noise(levels.length - 2, x.shape)]);
  states.push(scaled(last, levels.at(-1)!));
  return stacked(states);
}

async function finished(
  { sampler, targets }: DiffusersScheduler,
  denoise: Denoiser,
  x: NdArray,
  levels: readonly NoiseLevel[],
  noise: NoiseSource,
): Promise<NdArray> {
  if (!targets) return finalImages(sampler(denoise, x, levels, { noise }));
  let state = x;
  for (const [i, target] of targets(levels.length - 1).entries()) {
    const own: NoiseSource = (_, shape) => noise(i, shape);
    state = await finalImages(sampler(denoise, state, [levels[i]!, target], { noise: own }));
  }
  return state;
}

/** Noise-to-signal ratios as diffusers lists them; the sigmas for levels of a rectified flow. */
export function listedSigmas(levels: readonly NoiseLevel[], flow: boolean): NdArray<"float32"> {
  const sigmas = levels.map((level) => (flow ? level.sigma : noiseRatio(level)));
  return ndarray("float32", [levels.length], sigmas);
}

/** Numbers as an array of the dtype of the recorded one. */
export function listed(numbers: ArrayLike<number>, { dtype }: NdArray): NdArray {
  return castArray(ndarray("float64", [numbers.length], Array.from(numbers)), dtype);
}

/** Stacks arrays of one shape along a new first axis. */
export function stacked(arrays: readonly NdArray[]): NdArray<"float32"> {
  const [first] = arrays;
  const size = first?.data.length ?? 0;
  const data = new Float32Array(arrays.length * size);
  for (const [i, array] of arrays.entries()) data.set(castArray(array, "float32").data, i * size);
  return ndarray("float32", [arrays.length, ...(first?.shape ?? [])], data);
}

/** Entry i of the first axis of a recorded array. */
export function entry(array: NdArray, i: number): NdArray<"float32"> {
  const [, ...shape] = array.shape;
  const { data } = castArray(array, "float32");
  const size = data.length / array.shape[0]!;
  return ndarray("float32", shape, data.slice(i * size, (i + 1) * size));
}
