/** Opens Wan's causal video autoencoder: a file of the original repository, or diffusers' folder. */
import { FormatError, quote } from "../../engine/errors.ts";
import type { WeightSource } from "../../engine/runtime/backend.ts";
import { checkedWeights, type KeyMap, sameKeys } from "../../weights/check-keys.ts";
import { requirePlausible } from "../../weights/plausible.ts";
import { openDiffusersWeights } from "../../weights/diffusers-weights.ts";
import type { Weights } from "../../weights/safetensors/safetensors.ts";
import { closingOnFailure } from "../../weights/sources/closing.ts";
import { fieldsIn, type ModelFolder } from "../../weights/sources/folder.ts";
import { videoAutoencoderParams } from "./video-autoencoder.ts";
import {
  diffusersVideoAutoencoderConfig,
  type VideoAutoencoderConfig,
  videoAutoencoderPresets,
} from "./video-autoencoder-config.ts";

/** A video autoencoder with checked weights under its own names. */
export interface OpenVideoAutoencoder {
  readonly config: VideoAutoencoderConfig;
  readonly weights: WeightSource;
  readonly file: Weights;
}

/** Opens an autoencoder in diffusers' folder layout. @throws FormatError if its files are invalid */
export async function openVideoAutoencoderFolder(
  folder: ModelFolder,
): Promise<OpenVideoAutoencoder> {
  const config = diffusersVideoAutoencoderConfig(await fieldsIn(folder, "config.json"));
  const file = await openDiffusersWeights(folder);
  return closingOnFailure([file], async () => videoAutoencoderIn(file, config));
}

/**
 * Opens the autoencoder in a file.
 *
 * @param config that of the published model with as many latent channels by default
 * @throws FormatError if the file has no such autoencoder
 */
export function videoAutoencoderIn(
  file: Weights,
  config: VideoAutoencoderConfig = publishedConfig(file),
): OpenVideoAutoencoder {
  requirePlausible(`The config of ${file.name}`, config, file);
  const keys = videoAutoencoderKeys(file.entries.keys(), config);
  return { config, weights: checkedWeights(videoAutoencoderParams(config), file, keys), file };
}

function publishedConfig({ name, entries }: Weights): VideoAutoencoderConfig {
  const all = Object.entries(videoAutoencoderPresets);
  const channels = (entries.get("conv2.weight") ?? entries.get("post_quant_conv.weight"))?.shape[0];
  const found = all.find(([, { latentChannels }]) => latentChannels === channels);
  if (found) return found[1];
  throw new FormatError(
    `${name} is no published video autoencoder: ${channels === undefined ? `it has no ${quote("conv2.weight")}` : `it has ${channels} latent channels`}; give a file of ${all.map(([preset]) => preset).join(" or ")}, or diffusers' folder with its config.json.`,
  );
}

/** Ours → diffusers', but for the layers of the levels. */
const diffusersNames: readonly (readonly [RegExp, string])[] = [
  [/^conv1\./, "quant_conv."],
  [/^conv2\./, "post_quant_conv."],
  [/^(en|de)coder\.conv1\./, "$1coder.conv_in."],
  [/\.middle\.0\./, ".mid_block.resnets.0."],
  [/\.middle\.1\./, ".mid_block.attentions.0."],
  [/\.middle\.2\./, ".mid_block.resnets.1."],
  [/\.head\.0\./, ".norm_out."],
  [/\.head\.2\./, ".conv_out."],
  [/\.residual\.0\./, ".norm1."],
  [/\.residual\.2\./, ".conv1."],
  [/\.residual\.3\./, ".norm2."],
  [/\.residual\.6\./, ".conv2."],
  [/\.shortcut\./, ".conv_shortcut."],
];

/**
 * Finds the names of the weights in a checkpoint: those of the original or of diffusers.
 *
 * @param keys all keys of the checkpoint
 */
export function videoAutoencoderKeys(
  keys: Iterable<string>,
  config: VideoAutoencoderConfig,
): KeyMap {
  if (![...keys].includes("encoder.conv_in.weight")) return sameKeys;
  return {
    keyOf: (name) =>
      diffusersNames.reduce(
        (key, [ours, theirs]) => key.replace(ours, theirs),
        inLevels(name, config),
      ),
    owns: () => true,
  };
}

/** The layers of the levels: diffusers numbers residual blocks within a level, except those of Wan2.1's encoder. */
function inLevels(name: string, { layers, bridged }: VideoAutoencoderConfig): string {
  if (bridged) {
    return name
      .replace(/\.downsamples\.(\d+)\.downsamples\.(\d+)\./, (_, level: string, layer: string) =>
        Number(layer) < layers
          ? `.down_blocks.${level}.resnets.${layer}.`
          : `.down_blocks.${level}.downsampler.`,
      )
      .replace(/\.upsamples\.(\d+)\.upsamples\.(\d+)\./, (_, level: string, layer: string) =>
        Number(layer) <= layers
          ? `.up_blocks.${level}.resnets.${layer}.`
          : `.up_blocks.${level}.upsampler.`,
      );
  }
  return name
    .replace(/\.downsamples\.(\d+)\./, ".down_blocks.$1.")
    .replace(/\.upsamples\.(\d+)\./, (_, number: string) => {
      const [level, layer] = [
        Math.floor(Number(number) / (layers + 2)),
        Number(number) % (layers + 2),
      ];
      return layer <= layers
        ? `.up_blocks.${level}.resnets.${layer}.`
        : `.up_blocks.${level}.upsamplers.0.`;
    });
}
