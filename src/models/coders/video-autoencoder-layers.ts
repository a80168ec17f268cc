/**
 * Layers of causal video autoencoders, on clips [B, C, frames, H, W] that are computed chunk by chunk. A layer never looks at later
 * frames; those before its chunk it finds in a cache.
 */
import { concat, full } from "../../engine/graph/functional.ts";
import type { Tensor } from "../../engine/graph/tensor.ts";
import { mixTokens } from "../../nn/attention.ts";
import { conv2d } from "../../nn/convolutions.ts";
import { linear, linearParts } from "../../nn/linear.ts";
import { one, type Params, zero } from "../../nn/params.ts";

/** A chunk of a clip, and what its layers keep for the next one. Layers use the cache in the same order in every chunk. */
export interface Chunk {
  /** True if the clip begins here; the first chunk is a single frame. */
  readonly first: boolean;
  /**
   * Puts the last `count` frames of the chunks before in front of x, and zeros in front of the clip:
   * [B, C, frames, H, W] → [B, C, count + frames, H, W]. The last `count` frames of the result are kept.
   */
  lookBack(x: Tensor, count: number): Tensor;
  /** Keeps frames for the next chunk, in place of `lookBack`. */
  keep(frames: Tensor): void;
  /** What was kept, in order. */
  readonly kept: readonly Tensor[];
}

/** @param cache what the chunk before kept; undefined for the first */
export function chunkOf(cache: readonly Tensor[] | undefined): Chunk {
  const kept: Tensor[] = [];
  return {
    first: cache === undefined,
    kept,
    keep(frames) {
      kept.push(frames);
    },
    lookBack(x, count) {
      const before = cache?.[kept.length] ?? zeroFrames(x, count);
      const joined = concat([before, x], 2);
      kept.push(joined.slice(2, joined.size(2) - count));
      return joined;
    },
  };
}

/** `count` frames of zeros like those of x. */
function zeroFrames(x: Tensor, count: number): Tensor {
  return full([x.dim(0), x.dim(1), count, x.dim(3), x.dim(4)], 0);
}

/** A causal convolution over frames, rows and columns that keeps their number. */
export function causalConv(
  p: Params,
  x: Tensor,
  outputs: number,
  kernel: number,
  chunk: Chunk,
): Tensor {
  const seen = kernel > 1 ? chunk.lookBack(x, kernel - 1) : x;
  const side = (kernel - 1) / 2;
  return conv3d(p, seen, outputs, [kernel, kernel, kernel], { padding: [0, side, side] });
}

/** A convolution with PyTorch's names `weight` [outputs, C, ...kernel] and `bias`. */
function conv3d(
  p: Params,
  x: Tensor,
  outputs: number,
  kernel: readonly [frames: number, rows: number, columns: number],
  options: { readonly padding?: readonly number[]; readonly stride?: readonly number[] } = {},
): Tensor {
  const inputs = x.size(1);
  const bound = 1 / Math.sqrt(inputs * kernel.reduce((product, side) => product * side, 1));
  const weight = p.param("weight", [outputs, inputs, ...kernel], { kind: "uniform", bound });
  return x.conv(weight, p.param("bias", [outputs], zero), options);
}

/** Divides the channels of each place by their root mean square, and scales them by `gamma` (Zhang & Sennrich, 2019). */
export function channelRmsNorm(p: Params, x: Tensor): Tensor {
  const channels = x.size(1);
  const gamma = p.param("gamma", [channels, ...x.shape.slice(2).map(() => 1)], one);
  // As in the original, only a place where all channels are 0 needs the bound.
  const length = x.square().sum(1, true).sqrt().maximum(1e-12);
  return x.div(length).mul(Math.sqrt(channels)).mul(gamma);
}

/** [B, C, frames, h, w] → [B, width, frames, h, w] */
export function residualBlock(p: Params, x: Tensor, width: number, chunk: Chunk): Tensor {
  const layers = p.at("residual");
  const inner = channelRmsNorm(layers.at("0"), x).silu();
  const middle = causalConv(layers.at("2"), inner, width, 3, chunk);
  const normed = channelRmsNorm(layers.at("3"), middle).silu();
  const branch = causalConv(layers.at("6"), normed, width, 3, chunk);
  return branch.add(x.size(1) === width ? x : conv3d(p.at("shortcut"), x, width, [1, 1, 1]));
}

/** Single-head self-attention over the places of each frame, [B, C, frames, h, w] → the same. */
export function frameAttention(p: Params, x: Tensor): Tensor {
  const [frames, height, channels] = [x.size(2), x.size(3), x.size(1)];
  const images = x.rearrange("b c f h w -> (b f) c h w");
  const tokens = channelRmsNorm(p.at("norm"), images).rearrange("b c h w -> b (h w) c");
  const [q, k, v] = linearParts(p.at("to_qkv"), tokens, 3, channels) as [Tensor, Tensor, Tensor];
  const mixed = linear(p.at("proj"), mixTokens(p, [q, k, v], { heads: 1 }), channels);
  return x.add(mixed.rearrange("(b f) (h w) c -> b c f h w", { f: frames, h: height }));
}

/** Halves height and width and, if `time`, the frames of every chunk but the first. */
export function downsample(p: Params, x: Tensor, time: boolean, chunk: Chunk): Tensor {
  const width = x.size(1);
  // Padded only below and on the right.
  const halving = { stride: 2, padding: [[0, 1] as const, [0, 1] as const] };
  const smaller = byImage(x, (images) => conv2d(p.at("resample.1"), images, width, 3, halving));
  if (!time) return smaller;
  // The first chunk only declares the weights: its frame is kept as it is.
  if (chunk.first) {
    conv3d(p.at("time_conv"), zeroFrames(smaller, 3), width, [3, 1, 1]);
    chunk.keep(smaller);
    return smaller;
  }
  const seen = chunk.lookBack(smaller, 1);
  return conv3d(p.at("time_conv"), seen, width, [3, 1, 1], { stride: [2, 1, 1] });
}

/** Doubles height and width and, if `time`, the frames of every chunk but the first. */
export function upsample(
  p: Params,
  x: Tensor,
  outputs: number,
  time: boolean,
  chunk: Chunk,
): Tensor {
  const longer = time ? doubledFrames(p.at("time_conv"), x, chunk) : x;
  return byImage(longer, (images) =>
    conv2d(p.at("resample.1"), images.upsampleNearest(2), outputs, 3),
  );
}

/** The frames of a chunk, twice as many: half of the channels of a convolution are the even ones, and half the odd ones. */
function doubledFrames(p: Params, x: Tensor, chunk: Chunk): Tensor {
  const width = x.size(1);
  if (chunk.first) {
    // The second chunk sees zeros before it, as if the first frame had not been.
    const zeros = zeroFrames(x, 2);
    conv3d(p, concat([zeros, x], 2), 2 * width, [3, 1, 1]);
    chunk.keep(zeros);
    return x;
  }
  const both = conv3d(p, chunk.lookBack(x, 2), 2 * width, [3, 1, 1]);
  return both.rearrange("b (two c) f h w -> b c (f two) h w", { two: 2 });
}

/** Applies a layer of images to each frame. */
function byImage(x: Tensor, layer: (images: Tensor) => Tensor): Tensor {
  const frames = x.size(2);
  const images = layer(x.rearrange("b c f h w -> (b f) c h w"));
  return images.rearrange("(b f) c h w -> b c f h w", { f: frames });
}

/** A bridge of a level: neighbours in time and space become channels, of which groups are averaged. There are zeros in front where frames do not divide. */
export function averageDown(x: Tensor, outputs: number, time: number, space: number): Tensor {
  const missing = (time - (x.size(2) % time)) % time;
  const whole = missing === 0 ? x : concat([zeroFrames(x, missing), x], 2);
  const gathered = whole.rearrange("b c (f p) (h q) (w r) -> b (c p q r) f h w", {
    p: time,
    q: space,
    r: space,
  });
  const group = gathered.size(1) / outputs;
  return gathered.rearrange("b (o g) f h w -> b o g f h w", { g: group }).mean(2);
}

/** The bridge back: channels are repeated and become neighbours in time and space. The first chunk keeps its last frame. */
export function repeatUp(
  x: Tensor,
  outputs: number,
  time: number,
  space: number,
  { first }: Chunk,
): Tensor {
  const [channels, ...axes] = [1, 2, 3, 4].map((axis) => x.size(axis));
  const repeats = (outputs * time * space * space) / channels!;
  const repeated = x.unsqueeze(2).expand([x.dim(0), channels!, repeats, ...axes]);
  const joined = repeated.reshape([x.dim(0), channels! * repeats, ...axes]);
  const spread = joined.rearrange("b (c p q r) f h w -> b c (f p) (h q) (w r)", {
    p: time,
    q: space,
    r: space,
  });
  return first ? spread.slice(2, time - 1) : spread;
}
