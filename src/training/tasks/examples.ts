/** From pictures and captions to the inputs of a training step. */
import { type NdArray, ndarray } from "../../engine/arrays/ndarray.ts";
import { fork, type RandomKey, uniform } from "../../engine/random/random.ts";
import { drawExamples } from "../../diffusion/recipe.ts";
import { type AnyRecipe, drawTokenExamples } from "../../diffusion/discrete/token-recipe.ts";
import { canDrop, type NetworkConfig } from "../../models/network.ts";
import { type LatentDraw, latentValues, tokenValues } from "../../data/latents/latents.ts";
import { valuesOf } from "../../pictures/picture.ts";
import type { Tokenizer } from "../../text/tokenizer.ts";

/** Pictures with what they show. */
export interface LabelledPictures {
  /** [B, H, W, C], or the bytes of their latents as a cache holds them. */
  readonly pixels: Uint8Array;
  /** Negative where a picture's class is not known. */
  readonly labels: Int32Array | undefined;
  readonly captions: readonly string[] | undefined;
}

export interface ExampleOptions {
  readonly network: NetworkConfig;
  readonly recipe: AnyRecipe;
  /** Of a network that is told a text. */
  readonly tokenizer: Tokenizer | undefined;
  /** Where the pictures are given as latents. */
  readonly latents?: LatentDraw | undefined;
  /** Share of the examples whose condition is left out. */
  readonly dropCondition: number;
  /** The network's class of each class of the data; the same unless given. */
  readonly classes?: readonly number[] | undefined;
}

/** The inputs of `objective` for a batch; latents, noise, times and drops depend on the key alone. */
export function examplesOf(
  batch: LabelledPictures,
  key: RandomKey,
  { network, recipe, tokenizer, latents, dropCondition, classes }: ExampleOptions,
): Record<string, NdArray> {
  const [height, width] = network.size;
  const shape = { height, width, channels: network.channels as 1 | 3 };
  const x0 = values(); // [B, C, H, W], or tokens [B, h, w]
  const [count] = x0.shape as readonly [number];
  const told = network.condition.kind;
  return {
    x0,
    ...(recipe.process === "tokens"
      ? drawTokenExamples(key, x0.shape, network.tokens!.codebook)
      : drawExamples(recipe, key, x0.shape)),
    ...conditions(batch, count, network, tokenizer, classes),
    ...(canDrop(network) && {
      drop: dropped(
        fork(key, "drop"),
        told === "class" ? batch.labels : undefined,
        count,
        dropCondition,
      ),
    }),
  };

  function values(): NdArray {
    if (!latents) return valuesOf(batch.pixels, shape);
    return latents.form.parts === "tokens"
      ? tokenValues(batch.pixels, latents.form)
      : latentValues(batch.pixels, latents, fork(key, "latents"));
  }
}

function conditions(
  { labels, captions }: LabelledPictures,
  count: number,
  { condition }: NetworkConfig,
  tokenizer: Tokenizer | undefined,
  classes: readonly number[] | undefined,
): Record<string, NdArray> {
  switch (condition.kind) {
    case "none":
      return {};
    case "class":
      return {
        y: ndarray(
          "int64",
          [count],
          BigInt64Array.from(labels!, (label) => BigInt(classes?.[label] ?? Math.max(0, label))),
        ),
      };
    case "text":
      return encodedPrompts(captions!, tokenizer!, condition.length);
  }
}

/** Prompts as inputs `ids` and `mask`, [B, length]. */
function encodedPrompts(
  prompts: readonly string[],
  tokenizer: Tokenizer,
  length: number,
): { readonly ids: NdArray; readonly mask: NdArray } {
  const ids = new BigInt64Array(prompts.length * length);
  const mask = new Uint8Array(prompts.length * length);
  for (const [i, prompt] of prompts.entries()) {
    const encoded = tokenizer.encode(prompt, length);
    ids.set(BigInt64Array.from(encoded.ids, BigInt), i * length);
    mask.set(encoded.mask, i * length);
  }
  const shape = [prompts.length, length];
  return { ids: ndarray("int64", shape, ids), mask: ndarray("bool", shape, mask) };
}

/** Whose condition is left out: some by chance, and of networks that are told classes all whose class is not known. */
function dropped(
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
