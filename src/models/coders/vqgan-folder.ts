/** Paella's VQGAN in files: its config as JSON, a folder in diffusers' layout (PaellaVQModel), or a single file. */
import { closingOnFailure } from "../../weights/sources/closing.ts";
import { checkedWeights } from "../../weights/check-keys.ts";
import type { WeightSource } from "../../engine/runtime/backend.ts";
import type { FieldReader } from "../../weights/config-fields.ts";
import { openDiffusersWeights } from "../../weights/diffusers-weights.ts";
import { fieldsIn, type ModelFolder } from "../../weights/sources/folder.ts";
import type { Weights } from "../../weights/safetensors/safetensors.ts";
import {
  codebookKey,
  diffusersCodebook,
  type VQGANConfig,
  vqganKeys,
  vqganParams,
  vqganPresets,
} from "./vqgan.ts";

/** A VQGAN with checked weights under its own names. */
export interface OpenVQGAN {
  readonly kind: "vq";
  readonly config: VQGANConfig;
  readonly weights: WeightSource;
  readonly file: Weights;
  /** The file's key of a weight. */
  readonly keyOf: (name: string) => string;
}

/** Its class in diffusers. */
export const vqganClass = "PaellaVQModel";

/** The config.json of diffusers' PaellaVQModel; what it leaves out has diffusers' default. */
function diffusersVQGANConfig(read: FieldReader): VQGANConfig {
  const preset = vqganPresets["Paella-VQGAN"];
  const channels = read.count("in_channels", preset.channels);
  read.only("out_channels", channels);
  read.only("up_down_scale_factor", 2);
  const config: VQGANConfig = {
    channels,
    levels: read.count("levels", preset.levels),
    bottleneckBlocks: read.count("bottleneck_blocks", preset.bottleneckBlocks),
    hidden: read.count("embed_dim", preset.hidden),
    latentChannels: read.count("latent_channels", preset.latentChannels),
    codebook: read.count("num_vq_embeddings", preset.codebook),
    scale: read.number("scale_factor", preset.scale),
  };
  read.finish(vqganClass);
  return config;
}

/** The fields that `diffusersVQGANConfig` reads. */
export function diffusersVQGANFields(config: VQGANConfig): Readonly<Record<string, unknown>> {
  return {
    _class_name: vqganClass,
    in_channels: config.channels,
    out_channels: config.channels,
    up_down_scale_factor: 2,
    levels: config.levels,
    bottleneck_blocks: config.bottleneckBlocks,
    embed_dim: config.hidden,
    latent_channels: config.latentChannels,
    num_vq_embeddings: config.codebook,
    scale_factor: config.scale,
  };
}

/**
 * The tokenizer in a file.
 *
 * @param config read from keys and shapes unless given, except for the scale, on which no code depends
 * @throws FormatError when the weights are of another
 */
export function vqganIn(file: Weights, config: VQGANConfig = checkpointConfig(file)): OpenVQGAN {
  const keys = vqganKeys(file.entries.keys());
  const weights = checkedWeights(vqganParams(config), file, keys);
  return { kind: "vq", config, weights, file, keyOf: keys.keyOf };
}

/** The config that keys and shapes show; if the file is not a VQGAN, the published one, which it does not fit. */
function checkpointConfig({ entries }: Weights): VQGANConfig {
  const preset = vqganPresets["Paella-VQGAN"];
  const shapeOf = (key: string) => entries.get(key)?.shape;
  const first = shapeOf("in_block.1.weight");
  const codes = shapeOf(diffusersCodebook) ?? shapeOf(codebookKey);
  const hidden = shapeOf("up_blocks.0.0.weight")?.[0];
  if (!first || !codes || hidden === undefined) return preset;
  // Each level has half of the channels of the one below.
  const levels = 1 + Math.round(Math.log2(hidden / first[0]!));
  let blocks = 1;
  while (entries.has(`up_blocks.${blocks}.gammas`)) blocks++;
  return {
    ...preset,
    channels: first[1]! / 4,
    levels,
    bottleneckBlocks: blocks - 1,
    hidden,
    latentChannels: codes[1]!,
    codebook: codes[0]!,
  };
}

/** @throws FormatError when its files are not sound */
export async function openVQGANFolder(folder: ModelFolder): Promise<OpenVQGAN> {
  const config = diffusersVQGANConfig(await fieldsIn(folder, "config.json"));
  const file = await openDiffusersWeights(folder);
  return closingOnFailure([file], async () => vqganIn(file, config));
}
