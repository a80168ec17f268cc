/**
 * The VQGAN of Paella (Rampas et al., 2022), which converts pictures to codes of a codebook and back (van den Oord et al.,
 * 2017; Esser et al., 2021). Weights have the names of dome272/Paella.
 */
import * as z from "zod";
import { detach, input } from "../../engine/graph/functional.ts";
import { batch } from "../../engine/graph/shape.ts";
import type { Tensor } from "../../engine/graph/tensor.ts";
import { pixelShuffle, pixelUnshuffle } from "../../engine/graph/pool.ts";
import {
  channelNorm,
  channelsFirst,
  channelsLast,
  checkDivides,
  conv2d,
  doublingConv,
  padEdges,
} from "../../nn/convolutions.ts";
import { linear } from "../../nn/linear.ts";
import {
  createParams,
  type Init,
  normal,
  one,
  type Params,
  type ParamsRoot,
  stored,
  zero,
} from "../../nn/params.ts";
import { checkedWeights, type KeyMap } from "../../weights/check-keys.ts";
import { requirePlausible } from "../../weights/plausible.ts";
import type { FieldReader } from "../../weights/config-fields.ts";
import { closingOnFailure } from "../../weights/sources/closing.ts";
import { openDiffusersWeights } from "../../weights/diffusers-weights.ts";
import { fieldsIn, type ModelFolder } from "../../weights/sources/folder.ts";
import type { Weights } from "../../weights/safetensors/safetensors.ts";
import type { CodecFile } from "./autoencoder-kl-checkpoint.ts";

const natural = z.int().min(1);

export const vqganSchema = z.strictObject({
  /** Channels of the pictures; 3 in the published model. */
  channels: natural,
  /** The number of times that height and width are halved: with 2 levels a code stands for 4×4 pixels. */
  levels: natural,
  /** Blocks of the decoder at the lowest resolution. */
  bottleneckBlocks: natural,
  /** Channels at the lowest resolution; each level above has half of them. */
  hidden: natural,
  /** Channels of a code's vector; 4 in the published model. */
  latentChannels: natural,
  /** Number of codes. */
  codebook: natural,
  /** Latents are divided by it. */
  scale: z.number().positive(),
});

export type VQGANConfig = z.output<typeof vqganSchema>;

export const vqganPresets = {
  "Paella-VQGAN": {
    channels: 3,
    levels: 2,
    bottleneckBlocks: 12,
    hidden: 384,
    latentChannels: 4,
    codebook: 8192,
    scale: 0.3764,
  },
} satisfies Record<string, VQGANConfig>;

/** The latents of pictures and the nearest codes. */
export interface Quantized {
  /** The scaled output of the encoder, [B, latentChannels, h, w]. */
  readonly latents: Tensor;
  /** The nearest codes, in the same shape, scaled. */
  readonly quantized: Tensor;
  /** The numbers of these codes, [B, h, w] int64. */
  readonly indices: Tensor;
  /** The codebook loss plus a quarter of the commitment loss. */
  readonly loss: Tensor;
  /** One value for each channel of the latents before normalization, [1, latentChannels, 1, 1]. */
  readonly statistics: { readonly mean: Tensor; readonly variance: Tensor };
}

/** The statistics by which latents are normalized: those of the batch, as in training, or the running ones. */
export type BatchNormStatistics = "batch" | "stored";

/**
 * Encodes pictures [B, channels, H, W] as their nearest codes.
 *
 * @throws ShapeError unless H and W are multiples of 2^levels
 */
export function encodeToCodes(
  p: Params,
  images: Tensor,
  config: VQGANConfig,
  statistics: BatchNormStatistics = "stored",
): Quantized {
  const { levels, latentChannels, scale } = config;
  checkDivides(images, 2 ** levels, 1, "A picture");
  const down = p.at("down_blocks");
  let x = conv2d(p.at("in_block.1"), pixelUnshuffle(images, 2), widthOf(config, 0), 1);
  let block = 0;
  const next = () => down.at(String(block++));
  for (let level = 0; level < levels; level++) {
    const width = widthOf(config, level);
    if (level > 0) x = conv2d(next(), x, width, 4, { stride: 2, padding: 1 });
    x = residualBlock(next(), x);
  }
  const last = next();
  x = conv2d(last.at("0"), x, latentChannels, 1, { bias: false });
  const own = channelStatistics(x);
  const latents = batchNorm(last.at("1"), x, statistics === "batch" ? own : undefined);
  const { quantized, indices } = nearestCodes(p, latents, config);
  const moved = quantized.sub(detach(latents)).square().mean();
  const committed = detach(quantized).sub(latents).square().mean();
  return {
    latents: latents.div(scale),
    quantized: quantized.div(scale),
    indices,
    loss: moved.add(committed.mul(0.25)),
    statistics: own,
  };
}

/** The straight-through estimator: the codes, with the gradient passed on to the latents (van den Oord et al., 2017, §3.2). */
export function straightThrough({ latents, quantized }: Quantized): Tensor {
  return latents.add(detach(quantized.sub(latents)));
}

/** Scaled latents [B, latentChannels, h, w] → pictures [B, channels, H, W]. */
export function decodeQuantized(p: Params, latents: Tensor, config: VQGANConfig): Tensor {
  return decode(p, latents.mul(config.scale), config);
}

/** Decodes codes [B, h, w] to pictures [B, channels, H, W]. */
export function decodeCodes(p: Params, indices: Tensor, config: VQGANConfig): Tensor {
  return decode(p, channelsFirst(codebook(p, config).gather(indices)), config);
}

function decode(p: Params, codes: Tensor, config: VQGANConfig): Tensor {
  const { levels, bottleneckBlocks } = config;
  const up = p.at("up_blocks");
  let x = conv2d(up.at("0.0"), codes, widthOf(config, levels - 1), 1);
  let block = 1;
  const next = () => up.at(String(block++));
  for (let level = levels - 1; level >= 0; level--) {
    const count = level === levels - 1 ? bottleneckBlocks : 1;
    for (let i = 0; i < count; i++) x = residualBlock(next(), x);
    if (level > 0) x = doublingConv(next(), x, widthOf(config, level - 1), 4);
  }
  return pixelShuffle(conv2d(p.at("out_block.0"), x, config.channels * 4, 1), 2);
}

/** Width of a level, from the highest resolution. */
function widthOf({ hidden, levels }: VQGANConfig, level: number): number {
  return Math.floor(hidden / 2 ** (levels - 1 - level));
}

function codebook(p: Params, { codebook: count, latentChannels }: VQGANConfig): Tensor {
  return p.at("vquantizer.codebook").param("weight", [count, latentChannels], normal(1));
}

/** The codes that are nearest to latents [B, C, h, w], in the same shape, and their numbers [B, h, w]. */
function nearestCodes(p: Params, latents: Tensor, config: VQGANConfig) {
  const codes = codebook(p, config); // [K, C]
  const places = channelsLast(latents); // [B, h, w, C]
  const flat = places.reshape([places.dim(0), places.size(1) * places.size(2), places.size(3)]);
  // The norm of a latent is left out, since it is the same for every code.
  const distances = codes
    .square()
    .sum(1)
    .sub(flat.matmul(codes, { transposeB: true }).mul(2)); // [B, h·w, K]
  const indices = distances.argmin(-1).reshape(places.shape.slice(0, 3));
  return { indices, quantized: channelsFirst(codes.gather(indices)) };
}

/** A residual block, [B, C, h, w] → [B, C, h, w]. Six numbers scale, shift and gate its two branches. */
function residualBlock(p: Params, x: Tensor): Tensor {
  const width = x.size(1);
  const gammas = p.param("gammas", [6], zero).split(6, 0);
  const [scale1, shift1, gate1, scale2, shift2, gate2] = gammas;
  const first = channelNorm(x).mul(scale1!.add(1)).add(shift1!);
  const spread = conv2d(p.at("depthwise.1"), padEdges(first, "replicate"), width, 3, {
    groups: width,
    padding: 0,
  });
  const h = x.add(spread.mul(gate1!));
  const second = channelsLast(channelNorm(h).mul(scale2!.add(1)).add(shift2!));
  const inner = linear(p.at("channelwise.0"), second, 4 * width).gelu();
  return h.add(channelsFirst(linear(p.at("channelwise.2"), inner, width)).mul(gate2!));
}

type Statistics = Quantized["statistics"];

function channelStatistics(x: Tensor): Statistics {
  return { mean: x.mean([0, 2, 3], true), variance: x.variance([0, 2, 3], true) };
}

/** @param own the statistics of the batch; the running ones by default */
function batchNorm(p: Params, x: Tensor, own: Statistics | undefined): Tensor {
  const channels = x.size(1);
  const ofChannels = (name: string, init: Init) =>
    p.param(name, [channels], init).reshape([1, channels, 1, 1]);
  const [weight, bias] = [ofChannels("weight", one), ofChannels("bias", zero)];
  const { mean, variance } = own ?? {
    mean: ofChannels(runningNames.mean, stored),
    variance: ofChannels(runningNames.variance, stored),
  };
  return x.sub(mean).div(variance.add(1e-5).sqrt()).mul(weight).add(bias);
}

const runningNames = { mean: "running_mean", variance: "running_var" } as const;

/** Keys of the running statistics. */
export function statisticsKeys({ levels }: VQGANConfig) {
  // The norm follows one block per level, and a convolution for each level but the first.
  const scope = `down_blocks.${2 * levels - 1}.1`;
  const { mean, variance } = runningNames;
  return { mean: `${scope}.${mean}`, variance: `${scope}.${variance}` };
}

/** Names of the weights in files, as in dome272/Paella or diffusers. PyTorch's BatchNorm also stores a count of batches. */
export function vqganKeys(keys: Iterable<string>): KeyMap {
  const diffusers = [...keys].includes(diffusersCodebook);
  return {
    keyOf: (name) => (diffusers && name === codebookKey ? diffusersCodebook : name),
    owns: (key) => !key.endsWith("num_batches_tracked"),
  };
}

export const codebookKey = "vquantizer.codebook.weight";
export const diffusersCodebook = "vquantizer.embedding.weight";

/** Declares every weight, for `checkKeys`. */
export function vqganParams(config: VQGANConfig): ParamsRoot {
  const p = createParams();
  const side = 2 ** config.levels;
  const images = input("images", [batch, config.channels, side, side]);
  decodeCodes(p, encodeToCodes(p, images, config).indices, config);
  return p;
}

/**
 * The arguments of VQModel in dome272/Paella.
 *
 * @throws FormatError that names the field at fault
 */
export function vqganConfig(read: FieldReader): VQGANConfig {
  const fields = readVQGANFields(read, {
    levels: "levels",
    bottleneckBlocks: "bottleneck_blocks",
    hidden: "c_hidden",
    latentChannels: "c_latent",
    codebook: "codebook_size",
    scale: "scale_factor",
  });
  read.finish("VQModel");
  return { channels: vqganPresets["Paella-VQGAN"].channels, ...fields };
}

/** The names that another repository has for the fields of a config. */
type VQGANFieldNames = Readonly<Record<Exclude<keyof VQGANConfig, "channels">, string>>;

/** Reads fields by their names elsewhere; missing ones are those of the published model. */
function readVQGANFields(
  read: FieldReader,
  { scale, ...counts }: VQGANFieldNames,
): Omit<VQGANConfig, "channels"> {
  const preset: VQGANConfig = vqganPresets["Paella-VQGAN"];
  const count = (field: keyof typeof counts) => read.count(counts[field], preset[field]);
  return {
    levels: count("levels"),
    bottleneckBlocks: count("bottleneckBlocks"),
    hidden: count("hidden"),
    latentChannels: count("latentChannels"),
    codebook: count("codebook"),
    scale: read.number(scale, preset.scale),
  };
}

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
  requirePlausible(`The config of ${file.name}`, config, file);
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
