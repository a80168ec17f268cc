/** Noise as an argument: every image of a batch has a generator of its own, so that a seed means an image, not a batch. */
import { ShapeError } from "../engine/errors.ts";
import { type NdArray, ndarray, sizeOf } from "../engine/arrays/ndarray.ts";
import { fork, normal, type RandomKey } from "../engine/random/random.ts";
import { randn, type TorchGenerator } from "../engine/random/torch-random.ts";

/** Standard normal noise of a shape [B, …] for a step of sampling, which counts from 0; "start" is what sampling begins with. */
export type NoiseSource = (step: number | "start", shape: readonly number[]) => NdArray;

/**
 * One key for each image: the noise of an image depends on its key and the step, and on nothing else.
 *
 * @example const noise = keyedNoise([7, 8, 9].map((seed) => randomKey(seed)));
 */
export function keyedNoise(keys: readonly RandomKey[]): NoiseSource {
  return (step, shape) => stacked(shape, keys, (key, image) => normal(fork(key, step), image));
}

/**
 * One PyTorch generator for each image, which its noise moves on: as diffusers draws it from a list of generators, and so to
 * be asked for the start and then for each step once, in order.
 */
export function torchNoise(generators: readonly TorchGenerator[]): NoiseSource {
  return (_, shape) => stacked(shape, generators, (generator, image) => randn(generator, image));
}

/** What each of the sources draws for one image, as a batch. */
function stacked<T>(
  shape: readonly number[],
  sources: readonly T[],
  draw: (source: T, image: readonly number[]) => NdArray<"float32">,
): NdArray<"float32"> {
  const [count, ...image] = shape;
  if (count !== sources.length) {
    throw new ShapeError(
      `Noise of shape [${shape.join(", ")}] was asked for, but there are generators for ${sources.length} images; give one for each image of the batch.`,
    );
  }
  const data = new Float32Array(sizeOf(shape));
  const size = sizeOf(image);
  // As a batch of one, which is how a single image is drawn.
  for (const [i, source] of sources.entries()) data.set(draw(source, [1, ...image]).data, i * size);
  return ndarray("float32", shape, data);
}
