/**
 * The causal autoencoders of Wan2.1 and Wan2.2 (Wan Team, 2025): clips in [−1, 1] become latents of an eighth or a sixteenth of their
 * size, one for the first frame and one for every four frames after it. A picture is a clip of one frame.
 *
 * Clips are coded chunk by chunk, the first frame and then four frames or one latent at a time, and the layers keep the last frames of
 * a chunk for the next one, so that memory does not grow with the length. Weights have the names of the original code.
 */
import { constant, input } from "../../engine/graph/functional.ts";
import { type Graph, graphOf } from "../../engine/graph/graph.ts";
import { batch, type Shape } from "../../engine/graph/shape.ts";
import { ndarray } from "../../engine/arrays/ndarray.ts";
import type { Tensor } from "../../engine/graph/tensor.ts";
import { createParams, type Params, type ParamsRoot } from "../../nn/params.ts";
import {
  chunkFrames,
  spatialFactor,
  type VideoAutoencoderConfig,
} from "./video-autoencoder-config.ts";
import {
  averageDown,
  causalConv,
  channelRmsNorm,
  type Chunk,
  chunkOf,
  downsample,
  frameAttention,
  repeatUp,
  residualBlock,
  upsample,
} from "./video-autoencoder-layers.ts";

/** Frames [B, 3, F, H, W] in [−1, 1] → normalized latents [B, latentChannels, f, h, w], the mean of the posterior. */
function encodeChunk(
  p: Params,
  frames: Tensor,
  config: VideoAutoencoderConfig,
  chunk: Chunk,
): Tensor {
  const { encoderWidth, multipliers, layers, halvesFrames, bridged, latentChannels } = config;
  const encoder = p.at("encoder");
  // The offset of the column is the slower one.
  const pixels = bridged
    ? frames.rearrange("b c f (h q) (w r) -> b (c r q) f h w", { q: 2, r: 2 })
    : frames;
  let x = causalConv(encoder.at("conv1"), pixels, encoderWidth, 3, chunk);
  const scopes = levelScopes(encoder, "downsamples", config);
  for (const [level, factor] of multipliers.entries()) {
    const before = x;
    const width = factor * encoderWidth;
    const last = level === multipliers.length - 1;
    const time = halvesFrames[level] ?? false;
    for (let i = 0; i < layers; i++) x = residualBlock(scopes(level), x, width, chunk);
    if (!last) x = downsample(scopes(level), x, time, chunk);
    if (bridged) x = x.add(averageDown(before, width, time ? 2 : 1, last ? 1 : 2));
  }
  x = middle(encoder.at("middle"), x, chunk);
  const moments = head(encoder.at("head"), x, 2 * latentChannels, chunk);
  const [mean] = pointwise(p.at("conv1"), moments).split(2, 1) as [Tensor];
  const { center, deviation } = statistics(config);
  return mean.sub(center).div(deviation);
}

/** Normalized latents [B, latentChannels, f, h, w] → frames [B, 3, F, H, W], about in [−1, 1]. */
function decodeChunk(
  p: Params,
  latents: Tensor,
  config: VideoAutoencoderConfig,
  chunk: Chunk,
): Tensor {
  const { decoderWidth, multipliers, layers, bridged } = config;
  const upward = multipliers.toReversed();
  const doublesFrames = config.halvesFrames.toReversed();
  const decoder = p.at("decoder");
  const { center, deviation } = statistics(config);
  const z = pointwise(p.at("conv2"), latents.mul(deviation).add(center));
  let x = causalConv(decoder.at("conv1"), z, upward[0]! * decoderWidth, 3, chunk);
  x = middle(decoder.at("middle"), x, chunk);
  const scopes = levelScopes(decoder, "upsamples", config);
  for (const [level, factor] of upward.entries()) {
    const before = x;
    const width = factor * decoderWidth;
    const last = level === multipliers.length - 1;
    const time = doublesFrames[level] ?? false;
    for (let i = 0; i <= layers; i++) x = residualBlock(scopes(level), x, width, chunk);
    if (last) break;
    // Wan2.1 halves the channels here, Wan2.2 does not.
    x = upsample(scopes(level), x, bridged ? width : Math.floor(width / 2), time, chunk);
    if (bridged) x = x.add(repeatUp(before, width, time ? 2 : 1, 2, chunk));
  }
  const frames = head(decoder.at("head"), x, bridged ? 12 : 3, chunk);
  return bridged
    ? frames.rearrange("b (c r q) f h w -> b c f (h q) (w r)", { q: 2, r: 2 })
    : frames;
}

/** The scope of each layer of a level, in order: Wan2.1 numbers the layers of all levels, Wan2.2 those of each. */
function levelScopes(p: Params, name: string, { bridged }: VideoAutoencoderConfig) {
  let count = 0;
  let current = 0;
  return (level: number): Params => {
    if (bridged && level !== current) count = 0;
    current = level;
    return p.at(bridged ? `${name}.${level}.${name}.${count++}` : `${name}.${count++}`);
  };
}

function middle(p: Params, x: Tensor, chunk: Chunk): Tensor {
  const width = x.size(1);
  const attended = frameAttention(p.at("1"), residualBlock(p.at("0"), x, width, chunk));
  return residualBlock(p.at("2"), attended, width, chunk);
}

function head(p: Params, x: Tensor, outputs: number, chunk: Chunk): Tensor {
  return causalConv(p.at("2"), channelRmsNorm(p.at("0"), x).silu(), outputs, 3, chunk);
}

/** A convolution over single places, which keeps the number of channels. */
function pointwise(p: Params, x: Tensor): Tensor {
  const channels = x.size(1);
  const weight = p.param("weight", [channels, channels, 1, 1, 1], {
    kind: "uniform",
    bound: 1 / Math.sqrt(channels),
  });
  return x.conv(weight, p.param("bias", [channels], { kind: "constant", value: 0 }));
}

function statistics({ mean, deviation, latentChannels }: VideoAutoencoderConfig) {
  const perChannel = (values: readonly number[]) =>
    constant(ndarray("float32", [latentChannels, 1, 1, 1], values));
  return { center: perChannel(mean), deviation: perChannel(deviation) };
}

/** Which half of the autoencoder. */
export type Direction = "encode" | "decode";

/**
 * One chunk as a graph: `chunk` [B, C, frames, H, W] and, unless it is the first, `cache.0`, `cache.1`, … → `coded` and the `cache.…`
 * for the next chunk.
 *
 * @param frames of the chunk, or latents to decode
 * @param size height and width of them
 */
export function chunkGraph(
  config: VideoAutoencoderConfig,
  direction: Direction,
  size: readonly [height: number, width: number],
  frames: number,
  first: boolean,
): Graph {
  const begin = traceChunk(config, direction, [...size], 1);
  if (first) return graphOf(outputsOf(begin));
  const cache = begin.kept.map(({ shape }, i) => input(`cache.${i}`, shape));
  return graphOf(outputsOf(traceChunk(config, direction, [...size], frames, cache)));
}

interface TracedChunk {
  readonly params: ParamsRoot;
  readonly coded: Tensor;
  readonly kept: readonly Tensor[];
}

function traceChunk(
  config: VideoAutoencoderConfig,
  direction: Direction,
  size: Shape,
  frames: number,
  cache?: readonly Tensor[],
  params: ParamsRoot = createParams(),
): TracedChunk {
  const channels = direction === "encode" ? 3 : config.latentChannels;
  const x = input("chunk", [batch, channels, frames, ...size]);
  const chunk = chunkOf(cache);
  const code = direction === "encode" ? encodeChunk : decodeChunk;
  return { params, coded: code(params, x, config, chunk), kept: chunk.kept };
}

function outputsOf({ coded, kept }: TracedChunk): Record<string, Tensor> {
  return { coded, ...Object.fromEntries(kept.map((frames, i) => [`kept.${i}`, frames])) };
}

/**
 * Encoder and decoder on a chunk behind the first, as all but one of a clip are: `frames` [B, 3, 4, H, W] → `decoded` of the same shape.
 *
 * @param size height and width of the frames
 */
export function roundTripGraph(
  config: VideoAutoencoderConfig,
  size: readonly [height: number, width: number],
): Graph {
  const params = createParams();
  const latentSize = size.map((side) => side / spatialFactor(config));
  const cacheOf = (direction: Direction, of: Shape) =>
    traceChunk(config, direction, of, 1).kept.map(({ shape }, i) =>
      input(`${direction}.cache.${i}`, shape),
    );
  const frames = input("frames", [batch, 3, chunkFrames, ...size]);
  const encoding = chunkOf(cacheOf("encode", [...size]));
  const latents = encodeChunk(params, frames, config, encoding);
  const decoding = chunkOf(cacheOf("decode", latentSize));
  return graphOf({ decoded: decodeChunk(params, latents, config, decoding) });
}

/** Declares every weight of encoder and decoder, for `checkKeys` and `initialize`. */
export function videoAutoencoderParams(config: VideoAutoencoderConfig): ParamsRoot {
  const params = createParams();
  const side = spatialFactor(config);
  traceChunk(config, "encode", [side, side], 1, undefined, params);
  traceChunk(config, "decode", [1, 1], 1, undefined, params);
  return params;
}
