/** Opens Stable Diffusion's autoencoder in a checkpoint; without a config, it is inferred from keys and shapes. */
import { FormatError } from "../../engine/errors.ts";
import type { WeightSource } from "../../engine/runtime/backend.ts";
import { checkedWeights } from "../../weights/check-keys.ts";
import { requirePlausible } from "../../weights/plausible.ts";
import { openDiffusersWeights } from "../../weights/diffusers-weights.ts";
import type { Weights } from "../../weights/safetensors/safetensors.ts";
import { closingOnFailure } from "../../weights/sources/closing.ts";
import { fieldsIn, type ModelFolder } from "../../weights/sources/folder.ts";
import {
  autoencoderKLConfig,
  type AutoencoderKLConfig,
  type AutoencoderKLName,
  autoencoderKLPresets,
} from "./autoencoder-kl-config.ts";
import { autoencoderKLKeys, autoencoderKLParams } from "./autoencoder-kl.ts";

/** A codec in a file. */
export interface CodecFile<K, C> {
  readonly kind: K;
  readonly config: C;
  /** Checked weights under the names that the codec has here, whatever the names in the file. */
  readonly weights: WeightSource;
  readonly file: Weights;
  /** Returns the key of a weight in the file. */
  readonly keyOf: (name: string) => string;
}

export type OpenAutoencoder = CodecFile<"kl", AutoencoderKLConfig>;

/** Opens an autoencoder in diffusers' folder layout. @throws FormatError if its files are invalid */
export async function openAutoencoderFolder(folder: ModelFolder): Promise<OpenAutoencoder> {
  const config = autoencoderKLConfig(await fieldsIn(folder, "config.json"));
  const file = await openDiffusersWeights(folder);
  return closingOnFailure([file], async () => autoencoderIn(file, config));
}

/**
 * Opens the autoencoder in a file, which may contain other models too.
 *
 * @param config inferred from keys and shapes by default
 * @throws FormatError if the file has no such autoencoder
 */
export function autoencoderIn(
  file: Weights,
  config: AutoencoderKLConfig = autoencoderCheckpointConfig(file),
): OpenAutoencoder {
  requireEncoder(file);
  requirePlausible(`The config of ${file.name}`, config, file);
  const keys = autoencoderKLKeys(file.entries.keys(), config);
  const weights = checkedWeights(autoencoderKLParams(config), file, keys);
  return { kind: "kl", config, weights, file, keyOf: keys.keyOf };
}

/** @throws FormatError for a file of a decoder alone */
function requireEncoder({ name, entries }: Weights): void {
  const has = (part: string) =>
    [...entries.keys()].some((key) => `.${key}`.endsWith(`.${part}.conv_in.weight`));
  if (!has("decoder") || has("encoder")) return;
  throw new FormatError(
    `${name} holds the decoder of an autoencoder without its encoder; give a file of the whole autoencoder.`,
  );
}

/**
 * Infers widths and depths from a checkpoint. The scale of its latents is in no file: it is that of a published autoencoder with
 * as many channels. A checkpoint without an autoencoder gives a config whose weights it lacks.
 *
 * @param wanted the published autoencoder that the model was trained with, where several have as many channels
 */
export function autoencoderCheckpointConfig(
  { entries }: Pick<Weights, "entries">,
  wanted?: AutoencoderKLName,
): AutoencoderKLConfig {
  // All naming schemes number the blocks of a level in the same way.
  const shapeOf = (pattern: RegExp) => {
    for (const [key, { shape }] of entries) if (pattern.test(key)) return shape;
    return undefined;
  };
  const level = (index: number, block = 0) => {
    const path = `encoder\\.down(_blocks)?\\.${index}\\.(block|resnets)\\.${block}\\.conv1`;
    return shapeOf(new RegExp(`(^|\\.)${path}\\.weight$`));
  };
  const firstOf = (shapes: (index: number) => readonly number[] | undefined) => {
    const found: number[] = [];
    for (let shape = shapes(0); shape; shape = shapes(found.length)) found.push(shape[0] ?? 0);
    return found;
  };
  const latentChannels = shapeOf(/(^|\.)decoder\.conv_in\.weight$/)?.[1];
  const packed = shapeOf(/(^|\.)bn\.running_mean$/) !== undefined;
  const all = Object.entries<AutoencoderKLConfig>(autoencoderKLPresets);
  const fitting = all.filter(
    ([, each]) => each.latentChannels === latentChannels && packed === (each.packing !== undefined),
  );
  const [, preset] = fitting.find(([name]) => name === wanted) ??
    fitting[0] ?? ["", autoencoderKLPresets[packed ? "FLUX.2-ae" : "SD-VAE"]];
  const widths = firstOf((index) => level(index));
  if (widths.length === 0 || latentChannels === undefined) return preset;
  const attention = new Array<boolean>(widths.length).fill(false);
  return {
    ...preset,
    latentChannels,
    widths,
    layers: firstOf((block) => level(0, block)).length,
    encoderAttention: attention,
    decoderAttention: attention,
    quantConv: shapeOf(/(^|\.)(?<!post_)quant_conv\.weight$/) !== undefined,
    postQuantConv: shapeOf(/(^|\.)post_quant_conv\.weight$/) !== undefined,
  };
}
