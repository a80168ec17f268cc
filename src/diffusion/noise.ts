/** Sources of noise. Every image of a batch has a generator of its own, so that a seed gives an image and not a batch. */
import { ShapeError } from "../engine/errors.ts";
import { type NdArray, ndarray, sizeOf } from "../engine/arrays/ndarray.ts";
import { fork, normal, type RandomKey } from "../engine/random/random.ts";
import { randn, type TorchGenerator } from "../engine/random/torch-random.ts";

/** Standard normal noise of a shape [B, …] for a step of sampling, from 0; "start" is the noise that sampling begins with. */
export type NoiseSource = (step: number | "start", shape: readonly number[]) => NdArray;

/**
 * Noise by one key for each image: it depends on the image's key and the step only.
 *
 * @example const noise = keyedNoise([7, 8, 9].map((seed) => randomKey(seed)));
 */
export function keyedNoise(keys: readonly RandomKey[]): NoiseSource {
  return (step, shape) => stacked(shape, keys, (key, image) => normal(fork(key, step), image));
}

/**
 * Noise by one PyTorch generator for each image, as diffusers draws it from a list of generators. Each call advances the
 * generators, so the start and then each step must be asked for once, in order.
 */
export function torchNoise(generators: readonly TorchGenerator[]): NoiseSource {
  return (_, shape) => stacked(shape, generators, (generator, image) => randn(generator, image));
}

/**
 * Noise of clips [B, C, frames, H, W] that frames have partly in common (Ge et al., 2023, "Preserve Your Own Correlation"). The noise of each
 * frame is standard normal, as without. Pictures have their own noise.
 *
 * @param share of the variance that is common, in [0, 1]
 */
export function sharedByFrames(own: NoiseSource, common: NoiseSource, share: number): NoiseSource {
  return (step, shape) => {
    const noise = own(step, shape);
    if (shape.length !== 5) return noise;
    const [rows, channels, frames, height, width] = shape as [
      number,
      number,
      number,
      number,
      number,
    ];
    const [area, planes] = [height * width, rows * channels];
    const still = common(step, [rows, channels, 1, height, width]).data;
    const [ofStill, ofOwn] = [Math.sqrt(share), Math.sqrt(1 - share)];
    const data = Float32Array.from(noise.data, Number);
    for (let plane = 0; plane < planes; plane++) {
      for (let i = 0; i < frames * area; i++) {
        const at = plane * frames * area + i;
        data[at] = ofStill * Number(still[plane * area + (i % area)]) + ofOwn * data[at]!;
      }
    }
    return ndarray("float32", shape, data);
  };
}

/** A batch of what each source draws for one image. */
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
  // Each image is drawn as a batch of one, as when it is drawn alone.
  for (const [i, source] of sources.entries()) data.set(draw(source, [1, ...image]).data, i * size);
  return ndarray("float32", shape, data);
}
