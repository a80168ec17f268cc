/** Opens Paella's VQGAN from a folder in diffusers' layout (PaellaVQModel) or a single file. */
import { closingOnFailure } from "../../weights/sources/closing.ts";
import { checkedWeights } from "../../weights/check-keys.ts";
import type { FieldReader } from "../../weights/config-fields.ts";
import { openDiffusersWeights } from "../../weights/diffusers-weights.ts";
import { fieldsIn, type ModelFolder } from "../../weights/sources/folder.ts";
import type { Weights } from "../../weights/safetensors/safetensors.ts";
import type { CodecFile } from "./autoencoder-kl-checkpoint.ts";
import {
  codebookKey,
  diffusersCodebook,
  readVQGANFields,
  type VQGANConfig,
  type VQGANFieldNames,
  vqganKeys,
  vqganParams,
  vqganPresets,
} from "./vqgan.ts";

/** A VQGAN with checked weights under its own names. */
export type OpenVQGAN = CodecFile<"vq", VQGANConfig>;

/** The name of its class in diffusers. */
export const vqganClass = "PaellaVQModel";

const diffusersNames: VQGANFieldNames = {
  levels: "levels",
  bottleneckBlocks: "bottleneck_blocks",
  hidden: "embed_dim",
  latentChannels: "latent_channels",
  codebook: "num_vq_embeddings",
  scale: "scale_factor",
};

/** Reads the config.json of diffusers' PaellaVQModel; missing fields have the defaults of diffusers. */
function diffusersVQGANConfig(read: FieldReader): VQGANConfig {
  const channels = read.count("in_channels", vqganPresets["Paella-VQGAN"].channels);
  read.only("out_channels", channels);
  read.only("up_down_scale_factor", 2);
  const config = { channels, ...readVQGANFields(read, diffusersNames) };
  // What `patchwise train` adds about the training.
  read.ignore("trained");
  read.finish(vqganClass);
  return config;
}

/** The fields that `diffusersVQGANConfig` reads. */
export function diffusersVQGANFields(config: VQGANConfig): Readonly<Record<string, unknown>> {
  const own = Object.entries(diffusersNames) as [keyof VQGANFieldNames, string][];
  return {
    _class_name: vqganClass,
    in_channels: config.channels,
    out_channels: config.channels,
    up_down_scale_factor: 2,
    ...Object.fromEntries(own.map(([field, name]) => [name, config[field]])),
  };
}

/**
 * Opens the VQGAN in a file.
 *
 * @param config by default inferred from keys and shapes, except for the scale, which does not affect codes
 * @throws FormatError if the file is of another model
 */
export function vqganIn(file: Weights, config: VQGANConfig = checkpointConfig(file)): OpenVQGAN {
  const keys = vqganKeys(file.entries.keys());
  const weights = checkedWeights(vqganParams(config), file, keys);
  return { kind: "vq", config, weights, file, keyOf: keys.keyOf };
}

/** Infers the config from keys and shapes. A file of another model gives the published config, whose weights it lacks. */
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

/** @throws FormatError if its files are invalid */
export async function openVQGANFolder(folder: ModelFolder): Promise<OpenVQGAN> {
  const config = diffusersVQGANConfig(await fieldsIn(folder, "config.json"));
  const file = await openDiffusersWeights(folder);
  return closingOnFailure([file], async () => vqganIn(file, config));
}
