/** Reads the config of a Sana from the arguments of diffusers' SanaTransformer2DModel, or from the shapes of a checkpoint. */
import { FormatError } from "../../engine/errors.ts";
import { blocksUnder, requiredShapes } from "../../weights/checkpoint-shapes.ts";
import type { FieldReader } from "../../weights/config-fields.ts";
import type { Weights } from "../../weights/safetensors/safetensors.ts";
import { type SanaConfig, sanaPresets } from "./config.ts";

const published: SanaConfig = sanaPresets["Sana-1.6B"];

/**
 * The arguments of the constructor; what they leave out has diffusers' defaults.
 *
 * @param positions the divisor of positions where no argument names it: none in the published models, and one in the first version
 *   of diffusers' code
 * @throws FormatError that names the field at fault
 */
export function sanaConfig(
  read: FieldReader,
  positions: (size: number) => number | null = () => null,
): SanaConfig {
  read.ignore("dropout");
  // What Sana-Sprint has.
  read.only("guidance_embeds", false);
  read.only("qk_norm");
  const [channels, size] = [read.count("in_channels", 32), read.count("sample_size", 32)];
  const outputs = read.isNull("out_channels") ? channels : read.count("out_channels", 32);
  const [heads, headSize] = [
    read.count("num_attention_heads", 70),
    read.count("attention_head_dim", 32),
  ];
  const hidden = heads * headSize;
  const config: SanaConfig = {
    size: [size, size],
    channels,
    patch: read.count("patch_size", 1),
    hidden,
    depth: read.count("num_layers", 20),
    heads,
    textHeads: read.count("num_cross_attention_heads", 20),
    textHeadSize: read.count("cross_attention_head_dim", 112),
    mlpRatio: read.number("mlp_ratio", 2.5),
    learnedVariance: outputs === 2 * channels,
    condition: { ...published.condition, width: read.count("caption_channels", 2304) },
    attentionBias: read.flag("attention_bias", false),
    affineNorms: read.flag("norm_elementwise_affine", false),
    epsilon: read.number("norm_eps", 1e-6),
    positions: read.has("interpolation_scale")
      ? read.number("interpolation_scale")
      : positions(size),
  };
  const attended = read.count("cross_attention_dim", 2240);
  if (attended !== hidden) {
    throw new FormatError(
      `${read.file} has "cross_attention_dim" = ${attended}, but the text is projected to the width of the blocks, ${hidden}; give that.`,
    );
  }
  if (outputs !== channels && !config.learnedVariance) {
    throw new FormatError(
      `${read.file} has "out_channels" = ${outputs}, but a network of ${channels} channels gives as many, or twice as many with a variance.`,
    );
  }
  read.finish("SanaTransformer2DModel");
  return config;
}

/** Returns true if the keys are those of a Sana. */
export function isSana({ entries }: Pick<Weights, "entries">): boolean {
  return entries.has("time_embed.linear.weight") && entries.has("caption_norm.weight");
}

/**
 * The config of a checkpoint; checking its keys in full is left to who loads it. Heads, which no shape shows, are as wide as in the
 * published model unless given, and pictures have its size.
 *
 * @throws FormatError when a weight is missing
 */
export function sanaCheckpointConfig(
  weights: Pick<Weights, "name" | "entries">,
  heads?: number,
): SanaConfig {
  const { shapeOf, sizeOf } = requiredShapes(weights, "Sana");
  const [hidden = 0, channels = 0, patch = 0] = shapeOf("patch_embed.proj.weight");
  const block = "transformer_blocks.0";
  const inner = sizeOf(`${block}.ff.conv_inverted.weight`, 0);
  const attended = sizeOf(`${block}.attn2.to_q.weight`, 0);
  const textHeads = Math.max(1, Math.round(attended / published.textHeadSize));
  return {
    ...published,
    channels,
    patch,
    hidden,
    depth: blocksUnder(weights, "transformer_blocks"),
    heads: heads ?? Math.max(1, Math.round((hidden * published.heads) / published.hidden)),
    textHeads,
    textHeadSize: attended / textHeads,
    mlpRatio: inner / 2 / hidden,
    learnedVariance: sizeOf("proj_out.weight", 0) === 2 * channels * patch ** 2,
    condition: { ...published.condition, width: sizeOf("caption_projection.linear_1.weight", 1) },
    attentionBias: weights.entries.has(`${block}.attn1.to_q.bias`),
    affineNorms: weights.entries.has(`${block}.norm2.weight`),
  };
}
