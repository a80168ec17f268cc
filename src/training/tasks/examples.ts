/** The inputs of a denoiser's loss for a batch: clean examples, noise, times and conditions. */
import type { Batch } from "../../data/loading/batch-reader.ts";
import { type LatentDraw, latentValues, tokenValues } from "../../data/latents/latents.ts";
import { type AnyRecipe, drawTokenExamples } from "../../diffusion/discrete/discrete.ts";
import { drawExamples } from "../../diffusion/recipe.ts";
import { type NdArray, ndarray } from "../../engine/arrays/ndarray.ts";
import { fork, type RandomKey, uniform } from "../../engine/random/random.ts";
import { canDrop, type NetworkConfig, separateTimes } from "../../models/network.ts";
import { valuesOf } from "../../pictures/picture.ts";
import type { Tokenizer } from "../../text/tokenizer.ts";
import { clipRows } from "./clips.ts";

/** The times of a clip that a network takes; undefined for one time a picture. */
export function timesOf(network: NetworkConfig): number | undefined {
  return network.frames === undefined ? undefined : separateTimes(network);
}

export interface ExampleOptions {
  /** The config of the network that learns. */
  readonly network: NetworkConfig;
  /** The process by which examples are noised. */
  readonly recipe: AnyRecipe;
  /** Encodes the captions for a network that reads prompts. */
  readonly tokenizer: Tokenizer | undefined;
  /** Given for batches that hold latents or codes. */
  readonly latents?: LatentDraw | undefined;
  /** The share of examples that are learned without their condition, in [0, 1]. */
  readonly dropCondition: number;
  /** The network's class for each class of the data; the same by default. */
  readonly classes?: readonly number[] | undefined;
}

/** The inputs of `objective` for a batch. Latents, noise, times and drops depend on the key alone. */
export function examplesOf(
  batch: Pick<Batch, "pixels" | "lengths" | "labels" | "captions">,
  key: RandomKey,
  options: ExampleOptions,
): Record<string, NdArray> {
  const { network, recipe, dropCondition } = options;
  const x0 = cleanExamples(batch.pixels, key, options);
  const [count] = x0.shape as readonly [number];
  const times = timesOf(network);
  const frames = times === undefined ? undefined : clipRows(batch, network, times);
  const labels = network.condition.kind === "class" ? batch.labels : undefined;
  return {
    x0,
    ...(recipe.process === "tokens"
      ? drawTokenExamples(key, x0.shape, network.tokens!.codebook)
      : drawExamples(recipe, key, x0.shape, frames)),
    ...conditionInputs(batch, count, options),
    ...(canDrop(network) && {
      drop: droppedRows(fork(key, "drop"), labels, count, dropCondition),
    }),
  };
}

/** The clean examples of a batch: [B, C, H, W], or codes [B, h, w]. */
function cleanExamples(
  pixels: Uint8Array,
  key: RandomKey,
  { network, latents }: ExampleOptions,
): NdArray {
  if (!latents) {
    const { size, channels, frames } = network;
    const [height, width] = size;
    return valuesOf(pixels, { height, width, channels: channels as 1 | 3, frames });
  }
  return latents.form.parts === "tokens"
    ? tokenValues(pixels, latents.form)
    : latentValues(pixels, latents, fork(key, "latents"));
}

/** `y` [B] for classes; `ids` and `mask` [B, length] for prompts. */
function conditionInputs(
  { labels, captions }: Pick<Batch, "labels" | "captions">,
  count: number,
  { network: { condition, prompt }, tokenizer, classes }: ExampleOptions,
): Record<string, NdArray> {
  if (condition.kind === "none") return {};
  if (condition.kind === "class") {
    const indices = Array.from(labels!, (label) => classes?.[label] ?? Math.max(0, label));
    return { y: ndarray("int64", [count], indices) };
  }
  const length = prompt?.length ?? condition.length;
  const shape = [count, length];
  const ids = new BigInt64Array(count * length);
  const mask = new Uint8Array(count * length);
  for (const [i, caption] of captions!.entries()) {
    const encoded = tokenizer!.encode(caption, length);
    ids.set(BigInt64Array.from(encoded.ids, BigInt), i * length);
    mask.set(encoded.mask, i * length);
  }
  return { ids: ndarray("int64", shape, ids), mask: ndarray("bool", shape, mask) };
}

/** Marks the examples whose condition is dropped: a random share, and all whose class is not known. */
function droppedRows(
  key: RandomKey,
  labels: Int32Array | undefined,
  count: number,
  share: number,
): NdArray {
  const drawn = uniform(key, [count]).data;
  const drop = Uint8Array.from(drawn, (value, i) =>
    value < share || (labels?.[i] ?? 0) < 0 ? 1 : 0,
  );
  return ndarray("bool", [count], drop);
}
