/**
 * PixArt-α and PixArt-Σ (Chen et al., 2023 and 2024): a DiT for text-to-image generation. Its blocks attend to the tokens of the text.
 * Time modulates them by one projection that all blocks share, to which each block adds a table of its own ("adaLN-single"). The
 * α model for 1024 pixels is also conditioned on the size and the aspect ratio of the image.
 *
 * Weights have the names of diffusers. The text comes from a T5 encoder.
 */
import { FormatError, ShapeError } from "../../engine/errors.ts";
import { concat } from "../../engine/graph/functional.ts";
import type { Tensor } from "../../engine/graph/tensor.ts";
import { crossAttention, maskBias } from "../../nn/attention.ts";
import { blockScopes, type BlockOptions, runBlocks } from "../../nn/blocks.ts";
import { linear } from "../../nn/linear.ts";
import { adaptiveBranch } from "../../nn/modulation.ts";
import { type Params, zero } from "../../nn/params.ts";
import { patchEmbedding, patchGrid } from "../../nn/patches.ts";
import {
  embedNumber,
  modulatedOutput,
  projectCaption,
  scaledPositions,
  tableModulation,
} from "../../nn/shared-modulation.ts";
import type { FieldReader } from "../../weights/config-fields.ts";

export interface PixArtConfig {
  /** Height and width of the latents that the positions are scaled to; other sizes work too. */
  readonly size: number;
  readonly channels: number;
  /** Number of output channels, twice `channels` if the variance is predicted too. */
  readonly outputs: number;
  readonly patch: number;
  readonly heads: number;
  readonly headSize: number;
  readonly depth: number;
  /** Width of the text embeddings. */
  readonly textWidth: number;
  /** True if two layers project the text to the width of the model; if not, it must have that width. */
  readonly textProjection: boolean;
  /** True if q, k and v have a bias. */
  readonly attentionBias: boolean;
  readonly gelu: "none" | "tanh";
  readonly affineNorms: boolean;
  readonly epsilon: number;
  /** The divisor of positions, such as 2 for a model for 512 pixels that was fine-tuned to 1024. */
  readonly interpolation: number;
  /** True if size and aspect ratio of the image are inputs. */
  readonly sizeConditions: boolean;
}

export interface PixArtInputs {
  /** Noisy latents [B, channels, h, w]. */
  readonly x: Tensor;
  /** Time steps [B] in [0, 1000), float32. */
  readonly t: Tensor;
  /** Embeddings of the text's tokens [B, L, textWidth]. */
  readonly text: Tensor;
  /** Mask of the text's tokens, [B, L] bool, false for padding; none is padding by default. */
  readonly mask?: Tensor | undefined;
  /** Height and width of the image in pixels, [B, 2]. */
  readonly resolution?: Tensor | undefined;
  /** Height of the image divided by its width, [B, 1]. */
  readonly aspectRatio?: Tensor | undefined;
}

/**
 * Reads the config.json of diffusers' PixArtTransformer2DModel; missing fields have the defaults of diffusers.
 *
 * @throws FormatError that names the field at fault
 */
export function pixArtConfig(read: FieldReader): PixArtConfig {
  read.only("norm_type", "ada_norm_single");
  read.only("attention_type", "default");
  read.ignore("dropout", "norm_num_groups", "num_embeds_ada_norm", "upcast_attention");
  const size = read.count("sample_size", 128);
  const channels = read.count("in_channels", 4);
  const activation = read.choice("activation_fn", ["gelu", "gelu-approximate"], "gelu-approximate");
  const captionChannels = read.optionalCount("caption_channels");
  const heads = read.count("num_attention_heads", 16);
  const headSize = read.count("attention_head_dim", 72);
  const attended = read.count("cross_attention_dim", 1152);
  if (captionChannels !== undefined && attended !== heads * headSize) {
    throw new FormatError(
      `${read.file} has "cross_attention_dim" = ${attended}, but the caption projection gives the width of the blocks, ${heads * headSize}; give that.`,
    );
  }
  const config: PixArtConfig = {
    size,
    channels,
    outputs: read.isNull("out_channels") ? channels : read.count("out_channels", 8),
    patch: read.count("patch_size", 2),
    heads,
    headSize,
    depth: read.count("num_layers", 28),
    textWidth: captionChannels ?? attended,
    textProjection: captionChannels !== undefined,
    attentionBias: read.flag("attention_bias", true),
    gelu: activation === "gelu" ? "none" : "tanh",
    affineNorms: read.flag("norm_elementwise_affine", false),
    epsilon: read.number("norm_eps", 1e-6),
    interpolation: read.number("interpolation_scale", Math.max(1, Math.floor(size / 64))),
    sizeConditions: read.flag("use_additional_conditions", size === 128),
  };
  read.finish("PixArtTransformer2DModel");
  return config;
}

/**
 * Predicts the noise, followed by the parameters of the variance: [B, channels, h, w] → [B, outputs, h, w].
 *
 * @throws ShapeError if the patch does not divide the latents, or a condition is missing or unexpected
 */
export function pixArt(
  p: Params,
  inputs: PixArtInputs,
  config: PixArtConfig,
  options: Pick<BlockOptions, "recompute"> = {},
): Tensor {
  const { patch, outputs, depth } = config;
  const width = config.heads * config.headSize;
  const grid = patchGrid(inputs.x, patch);
  const time = embedConditions(p.at("adaln_single.emb"), inputs, config); // [B, C]
  const shared = linear(p.at("adaln_single.linear"), time.silu(), 6 * width); // [B, 6·C]
  const text = config.textProjection
    ? projectCaption(p.at("caption_projection"), inputs.text, width)
    : inputs.text; // [B, L, C]
  const bias = inputs.mask && maskBias(inputs.mask); // [B, 1, 1, L]

  const patches = patchEmbedding(p.at("pos_embed"), inputs.x, patch, width, { kind: "linear" });
  const [h] = runBlocks(
    [patches.add(scaledPositions(grid, config.size / patch, config.interpolation, width))],
    blockScopes(p, "transformer_blocks", depth),
    (block, [x]) => [transformerBlock(block, x, { shared, text, bias }, config)],
    options,
  ); // [B, N, C]
  return modulatedOutput(p, h, time, { grid, patch, outputs }); // [B, outputs, h, w]
}

/** The inputs that all blocks share. */
interface Context {
  /** The modulation from the time, [B, 6·C]. */
  readonly shared: Tensor;
  /** [B, L, C] */
  readonly text: Tensor;
  readonly bias: Tensor | undefined;
}

/** One block: [B, N, C] → [B, N, C]. Self-attention and feed-forward are modulated, and cross-attention is not. */
function transformerBlock(
  p: Params,
  x: Tensor,
  { shared, text, bias }: Context,
  config: PixArtConfig,
): Tensor {
  const { heads, attentionBias: qkvBias, affineNorms: affine, epsilon } = config;
  const style = { kind: "layer", affine, epsilon } as const;
  const [shift1, scale1, gate1, shift2, scale2, gate2] = tableModulation(p, shared, 6) as Six;
  const toPatches = adaptiveBranch(p.at("norm1"), style, [shift1, scale1, gate1]);
  const onward = adaptiveBranch(p.at("norm2"), style, [shift2, scale2, gate2]);
  const normed = toPatches.norm(x);
  let h = x.add(toPatches.gate(crossAttention(p.at("attn1"), normed, normed, { heads, qkvBias })));
  // The text has no influence initially.
  const toText = { heads, qkvBias, outputInit: zero, ...(bias && { bias }) };
  h = h.add(crossAttention(p.at("attn2"), h, text, toText));
  const inner = linear(p.at("ff.net.0.proj"), onward.norm(h), 4 * x.size(-1)).gelu(config.gelu); // [B, N, 4·C]
  return h.add(onward.gate(linear(p.at("ff.net.2"), inner, x.size(-1))));
}

type Six = [Tensor, Tensor, Tensor, Tensor, Tensor, Tensor];

/** Embeds the time and, if the model has them, size and aspect ratio: [B, C]. */
function embedConditions(
  p: Params,
  { t, resolution, aspectRatio }: PixArtInputs,
  { heads, headSize, sizeConditions }: PixArtConfig,
): Tensor {
  const width = heads * headSize;
  const time = embedNumber(p.at("timestep_embedder"), t, width); // [B, C]
  if (!sizeConditions) {
    if (!resolution && !aspectRatio) return time;
    throw new ShapeError(
      "This PixArt is not conditioned on a resolution or an aspect ratio; leave them out.",
    );
  }
  if (!resolution || !aspectRatio || width % 3 !== 0) {
    throw new ShapeError(
      width % 3 === 0
        ? "This PixArt is conditioned on the resolution [B, 2] and the aspect ratio [B, 1]; give both."
        : `A PixArt with size conditions splits its width in three, which ${width} cannot be; change its heads.`,
    );
  }
  const rows = (name: string, numbers: Tensor) =>
    embedNumber(p.at(name), numbers, width / 3).reshape([numbers.dim(0), -1]);
  const sizes = rows("resolution_embedder", resolution); // [B, 2·C/3]
  return time.add(concat([sizes, rows("aspect_ratio_embedder", aspectRatio)], -1));
}
