/**
 * The autoencoder in front of latent diffusion (Rombach et al., 2022), as Stable Diffusion 1 to 3, SDXL and
 * Flux use it: images in [−1, 1] become a Gaussian over latents of an eighth of their size, and back.
 *
 * Weights have the names of diffusers; `autoencoderKLKeys` also finds them under older names and those of CompVis.
 * Decoding takes most of the memory of drawing a picture, so `tiledDecode` decodes tile by tile.
 */
import { input } from "../../engine/graph/functional.ts";
import { castArray, type NdArray, sizeOf, zeros } from "../../engine/arrays/ndarray.ts";
import { ShapeError } from "../../engine/errors.ts";
import { batch } from "../../engine/graph/shape.ts";
import type { Tensor } from "../../engine/graph/tensor.ts";
import { conv2d } from "../../nn/convolutions.ts";
import { groupNorm } from "../../nn/norm.ts";
import { createParams, type Params, type ParamsRoot, stored } from "../../nn/params.ts";
import { crossAttention } from "../../nn/attention.ts";
import { type KeyMap, renamed, type Renaming } from "../../weights/check-keys.ts";
import { type AutoencoderKLConfig, latentFactor } from "./autoencoder-kl-config.ts";

const activations: Readonly<Record<AutoencoderKLConfig["activation"], (x: Tensor) => Tensor>> = {
  silu: (x) => x.silu(),
  swish: (x) => x.silu(),
  gelu: (x) => x.gelu(),
  relu: (x) => x.relu(),
  /** The Mish activation x·tanh(ln(1 + eˣ)) (Misra, 2019), written so that the exponent is never positive. */
  mish: (x) => x.mul(x.maximum(0).add(x.abs().neg().exp().add(1).log()).tanh()),
};

/** A Gaussian over latents, each [B, latentChannels, H/f, W/f]; its mean is also its mode. */
export interface Posterior {
  readonly mean: Tensor;
  /** In [−30, 20]. */
  readonly logVariance: Tensor;
  /** Mean and log variance, joined, [B, 2·latentChannels, H/f, W/f]. */
  readonly moments: Tensor;
}

/** Images [B, C, H, W] in [−1, 1] → latents, with f = 2^(levels − 1). */
export function encodeImages(p: Params, images: Tensor, config: AutoencoderKLConfig): Posterior {
  const { widths, layers, latentChannels } = config;
  const encoder = p.at("encoder");
  let x = conv2d(encoder.at("conv_in"), images, config.stem ?? widths[0]!, 3); // [B, stem, H, W]
  for (const [level, width] of widths.entries()) {
    const block = encoder.at(`down_blocks.${level}`);
    for (let i = 0; i < layers; i++) {
      x = residualBlock(block.at(`resnets.${i}`), x, width, config);
      if (config.encoderAttention[level]) x = attend(block.at(`attentions.${i}`), x, config);
    }
    if (level < widths.length - 1) {
      // Padded only below and on the right.
      const halving = { stride: 2, padding: [[0, 1] as const, [0, 1] as const] };
      x = conv2d(block.at("downsamplers.0.conv"), x, width, 3, halving); // [B, width, H/2, W/2]
    }
  }
  x = middle(encoder.at("mid_block"), x, config);
  x = normalized(encoder.at("conv_norm_out"), x, config).silu();
  x = conv2d(encoder.at("conv_out"), x, 2 * latentChannels, 3); // [B, 2·latent, H/f, W/f]
  const moments = config.quantConv ? conv2d(p.at("quant_conv"), x, 2 * latentChannels, 1) : x;
  const [mean, logVariance] = moments.split(2, 1) as [Tensor, Tensor];
  return { mean, logVariance: logVariance.clamp(-30, 20), moments };
}

/** mean + exp(logVariance / 2)·noise, with noise from a standard normal distribution. */
export function samplePosterior({ mean, logVariance }: Posterior, noise: Tensor): Tensor {
  return mean.add(logVariance.mul(0.5).exp().mul(noise));
}

/** Latents [B, latentChannels, h, w] → images [B, C, f·h, f·w], about in [−1, 1]. */
export function decodeLatents(p: Params, latents: Tensor, config: AutoencoderKLConfig): Tensor {
  const { widths, layers, latentChannels } = config;
  const decoder = p.at("decoder");
  const z = config.postQuantConv
    ? conv2d(p.at("post_quant_conv"), latents, latentChannels, 1)
    : latents;
  let x = conv2d(decoder.at("conv_in"), z, widths.at(-1)!, 3); // [B, width, h, w]
  x = middle(decoder.at("mid_block"), x, config);
  for (let i = 0; i < widths.length; i++) {
    const level = widths.length - 1 - i;
    const width = widths[level]!;
    const block = decoder.at(`up_blocks.${i}`);
    for (let j = 0; j <= layers; j++) {
      x = residualBlock(block.at(`resnets.${j}`), x, width, config);
      if (config.decoderAttention[level]) x = attend(block.at(`attentions.${j}`), x, config);
    }
    if (level > 0) x = conv2d(block.at("upsamplers.0.conv"), x.upsampleNearest(2), width, 3); // [B, width, 2h, 2w]
  }
  x = normalized(decoder.at("conv_norm_out"), x, config).silu();
  return conv2d(decoder.at("conv_out"), x, config.outputs, 3); // [B, C, f·h, f·w]
}

/** Latents of the autoencoder [B, latentChannels, h, w] → latents of diffusion models, packed where the config says so. */
export function scaleLatents(p: Params, z: Tensor, config: AutoencoderKLConfig): Tensor {
  const { scale, shift, packing } = config;
  if (!packing) return z.sub(shift).mul(scale);
  const { patch } = packing;
  const packed = z.rearrange("b c (h p) (w q) -> b (c p q) h w", { p: patch, q: patch });
  const { mean, deviation } = statistics(p, packed.size(1), packing.epsilon);
  return packed.sub(mean).div(deviation).sub(shift).mul(scale);
}

/** Latents of diffusion models → latents of the autoencoder. */
export function unscaleLatents(p: Params, latents: Tensor, config: AutoencoderKLConfig): Tensor {
  const { scale, shift, packing } = config;
  const unscaled = latents.div(scale).add(shift);
  if (!packing) return unscaled;
  const { patch } = packing;
  const { mean, deviation } = statistics(p, unscaled.size(1), packing.epsilon);
  const packed = unscaled.mul(deviation).add(mean);
  return packed.rearrange("b (c p q) h w -> b c (h p) (w q)", { p: patch, q: patch });
}

/** The stored mean and deviation of each channel, [C, 1, 1], under the names of a BatchNorm. */
function statistics(p: Params, channels: number, epsilon: number) {
  const of = (name: string) => p.at("bn").param(name, [channels], stored).reshape([channels, 1, 1]);
  return { mean: of("running_mean"), deviation: of("running_var").add(epsilon).sqrt() };
}

/** [B, C, h, w] → [B, width, h, w] */
function residualBlock(p: Params, x: Tensor, width: number, config: AutoencoderKLConfig): Tensor {
  const activate = activations[config.activation];
  let h = activate(normalized(p.at("norm1"), x, config));
  h = conv2d(p.at("conv1"), h, width, 3);
  h = activate(normalized(p.at("norm2"), h, config));
  h = conv2d(p.at("conv2"), h, width, 3);
  return h.add(x.size(1) === width ? x : conv2d(p.at("conv_shortcut"), x, width, 1));
}

/** Single-head self-attention over all positions, [B, C, h, w] → [B, C, h, w]. */
function attend(p: Params, x: Tensor, config: AutoencoderKLConfig): Tensor {
  const [h, w] = [x.size(2), x.size(3)];
  const tokens = normalized(p.at("group_norm"), x, config).rearrange("b c h w -> b (h w) c");
  const mixed = crossAttention(p, tokens, tokens, { heads: 1 }); // [B, h·w, C]
  return x.add(mixed.rearrange("b (h w) c -> b c h w", { h, w }));
}

function middle(p: Params, x: Tensor, config: AutoencoderKLConfig): Tensor {
  const width = x.size(1);
  let h = residualBlock(p.at("resnets.0"), x, width, config);
  if (config.middleAttention) h = attend(p.at("attentions.0"), h, config);
  return residualBlock(p.at("resnets.1"), h, width, config);
}

function normalized(p: Params, x: Tensor, { groups }: AutoencoderKLConfig): Tensor {
  return groupNorm(p, x, groups, 1e-6);
}

/**
 * Declares every weight of encoder and decoder, for `checkKeys` and `initialize`.
 *
 * @param decoder the config of the decoder, if it differs
 */
export function autoencoderKLParams(
  encoder: AutoencoderKLConfig,
  decoder: AutoencoderKLConfig = encoder,
): ParamsRoot {
  const p = createParams();
  const factor = latentFactor(encoder);
  const { mean } = encodeImages(
    p,
    input("images", [batch, encoder.inputs, factor, factor]),
    encoder,
  );
  scaleLatents(p, mean, encoder);
  decodeLatents(p, input("latents", [batch, decoder.latentChannels, 1, 1]), decoder);
  return p;
}

/** Names of the attention layers in older releases of diffusers. */
const oldDiffusersNames: Renaming = [
  [/\.to_q\./, ".query."],
  [/\.to_k\./, ".key."],
  [/\.to_v\./, ".value."],
  [/\.to_out\.0\./, ".proj_attn."],
];

const compvisNames: Renaming = [
  [/\.resnets\./, ".block."],
  [/\.attentions\./, ".attn."],
  [/\.mid_block\.block\.0\./, ".mid.block_1."],
  [/\.mid_block\.block\.1\./, ".mid.block_2."],
  [/\.mid_block\.attn\.0\./, ".mid.attn_1."],
  [/\.down_blocks\./, ".down."],
  [/\.up_blocks\./, ".up."],
  [/\.downsamplers\.0\./, ".downsample."],
  [/\.upsamplers\.0\./, ".upsample."],
  [/\.conv_shortcut\./, ".nin_shortcut."],
  [/\.conv_norm_out\./, ".norm_out."],
  [/\.group_norm\./, ".norm."],
  [/\.to_([qkv])\./, ".$1."],
  [/\.to_out\.0\./, ".proj_out."],
];

/**
 * Finds the names of the weights in a checkpoint: those of diffusers, new or old, or of CompVis, alone or inside
 * a file of a whole Stable Diffusion.
 *
 * @param keys all keys of the checkpoint
 * @param decoder config whose number of levels the names depend on
 */
export function autoencoderKLKeys(keys: Iterable<string>, decoder: AutoencoderKLConfig): KeyMap {
  const all = [...keys];
  const inside = "first_stage_model.";
  const prefix = all.some((key) => key.startsWith(inside)) ? inside : "";
  const own = all.filter((key) => key.startsWith(prefix)).map((key) => key.slice(prefix.length));
  const compvis = own.some((key) => /^(en|de)coder\.(mid|down|up)\./.test(key));
  const old = own.some((key) => /\.attentions\.\d+\.(query|proj_attn)\./.test(key));
  const names = compvis ? compvisNames : old ? oldDiffusersNames : [];
  const inner = own.some((key) => key.startsWith("encoder.quant_conv."));
  const last = decoder.widths.length - 1;
  // CompVis numbers the levels of the decoder by size, diffusers in the order in which they run.
  const leveled = (name: string) =>
    compvis
      ? name.replace(/\.up_blocks\.(\d+)\./, (_, i) => `.up_blocks.${last - Number(i)}.`)
      : name;
  const placed = (name: string) =>
    inner ? name.replace(/^quant_/, "encoder.quant_").replace(/^post_/, "decoder.post_") : name;
  return {
    keyOf: (name) => prefix + renamed(placed(leveled(name)), names),
    // A BatchNorm also counts the batches of its training.
    owns: (key) => key.startsWith(prefix) && key !== `${prefix}bn.num_batches_tracked`,
  };
}

/** How latents are divided into tiles. */
export const defaultTile = 64;

export interface TileOptions {
  /** Height and width of a tile of latents. */
  readonly tile?: number;
  /** The least number of latents that neighbouring tiles share, over which their images are blended. */
  readonly overlap?: number;
}

/**
 * Decodes latents tile by tile and blends the images where they overlap, so that memory depends on the tile
 * and not on the image. Each tile is normalized by itself, so the result is only approximately that of decoding the whole;
 * therefore all tiles have the full size, also where they do not divide the latents.
 *
 * @param decode latents [B, C, h, w] → images [B, C', f·h, f·w]
 */
export async function tiledDecode(
  decode: (latents: NdArray<"float32">) => Promise<NdArray>,
  latents: NdArray<"float32">,
  { tile = defaultTile, overlap = 16 }: TileOptions = {},
): Promise<NdArray<"float32">> {
  if (!Number.isInteger(tile) || !Number.isInteger(overlap) || overlap < 0 || overlap >= tile) {
    throw new ShapeError(
      `Tiles of ${tile} latents cannot overlap by ${overlap}; give whole numbers, the overlap smaller than the tile.`,
    );
  }
  const [, , height, width] = latents.shape as Shape4;
  if (height <= tile && width <= tile) return castArray(await decode(latents), "float32");

  const [tops, lefts] = [tileStarts(height, tile, overlap), tileStarts(width, tile, overlap)];
  let image: NdArray<"float32"> | undefined;
  let above: NdArray<"float32">[] = [];
  for (const [i, top] of tops.entries()) {
    const row: NdArray<"float32">[] = [];
    for (const [j, left] of lefts.entries()) {
      const piece = crop(latents, top, left, tile);
      const decoded = castArray(await decode(piece), "float32");
      const factor = decoded.shape[2]! / piece.shape[2]!;
      image ??= zeros("float32", [...decoded.shape.slice(0, 2), height * factor, width * factor]);
      // Blending overwrites the array, so it must not belong to `decode`.
      const current = { ...decoded, data: decoded.data.slice() };
      const [up, before] = [above[row.length], row.at(-1)];
      if (up) blend(up, current, 2, (tops[i - 1]! + tile - top) * factor);
      if (before) blend(before, current, 3, (lefts[j - 1]! + tile - left) * factor);
      paste(current, image, top * factor, left * factor);
      row.push(current);
    }
    above = row;
  }
  return image!;
}

/** Where the fewest tiles begin that cover a side and overlap by at least so much, evenly spaced. */
function tileStarts(side: number, tile: number, overlap: number): readonly number[] {
  const gaps = Math.ceil(Math.max(0, side - tile) / (tile - overlap));
  return Array.from({ length: gaps + 1 }, (_, i) =>
    gaps === 0 ? 0 : Math.round((i * (side - tile)) / gaps),
  );
}

/** Rows and columns from (top, left) on, at most `size` of each. */
function crop(x: NdArray<"float32">, top: number, left: number, size: number): NdArray<"float32"> {
  const [n, c, height, width] = x.shape as Shape4;
  const part = zeros("float32", [n, c, Math.min(size, height - top), Math.min(size, width - left)]);
  eachRow(part, x, top, left, (row, place) => part.data.set(x.data.subarray(...place), row[0]));
  return part;
}

/** Overwrites values of earlier tiles: the later tile holds the blend. */
function paste(part: NdArray<"float32">, x: NdArray<"float32">, top: number, left: number): void {
  eachRow(part, x, top, left, (row, place) => x.data.set(part.data.subarray(...row), place[0]));
}

type Shape4 = [number, number, number, number];
type Span = [start: number, end: number];

/** Each row of `part`, and its place in `whole`, where `part` begins at (top, left). */
function eachRow(
  part: NdArray,
  whole: NdArray,
  top: number,
  left: number,
  visit: (row: Span, place: Span) => void,
): void {
  const [n, c, h, w] = part.shape as Shape4;
  const [, , height, width] = whole.shape as Shape4;
  for (let row = 0; row < n * c * h; row++) {
    const place = (Math.floor(row / h) * height + top + (row % h)) * width + left;
    visit([row * w, (row + 1) * w], [place, place + w]);
  }
}

/** Fades from the end of one tile to the beginning of the next one along an axis. */
function blend(
  from: NdArray<"float32">,
  to: NdArray<"float32">,
  axis: number,
  overlap: number,
): void {
  const [before, after] = [from.shape[axis]!, to.shape[axis]!];
  const extent = Math.min(overlap, before, after);
  const inner = sizeOf(to.shape.slice(axis + 1));
  const outer = sizeOf(to.shape.slice(0, axis));
  for (let i = 0; i < outer; i++) {
    for (let j = 0; j < extent * inner; j++) {
      const share = Math.floor(j / inner) / extent;
      const source = from.data[((i + 1) * before - extent) * inner + j]!;
      const target = i * after * inner + j;
      to.data[target] = source * (1 - share) + to.data[target]! * share;
    }
  }
}
