/**
 * Wan, "Open and Advanced Large-Scale Video Generative Models" (Wan Team, 2025): a clip of latents is cut into patches of space and
 * time, each of which attends to all others and to a text. Versions 2.1 and 2.2 (TI2V) have the same network. In 2.2 every token may
 * have a time of its own, so that a frame with time 0 is a given picture, from which the rest of the clip is drawn.
 *
 * Clips of several sizes can be packed into one sequence, in which each attends only to itself and to its own text. Weights have the
 * names of the original code.
 */
import { ShapeError } from "../../engine/errors.ts";
import { concat } from "../../engine/graph/functional.ts";
import { formatShape } from "../../engine/graph/shape.ts";
import type { Tensor } from "../../engine/graph/tensor.ts";
import { mixTokens } from "../../nn/attention.ts";
import { type BlockOptions, blockScopes, runBlocks } from "../../nn/blocks.ts";
import { givenCondition } from "../../nn/conditioning.ts";
import { linear } from "../../nn/linear.ts";
import { adaptiveBranch, type Branch } from "../../nn/modulation.ts";
import { norm } from "../../nn/norm.ts";
import { normal, type Params, zero } from "../../nn/params.ts";
import {
  type Axes,
  patchCount,
  patchGrid,
  patchPixels,
  patchProjection,
  unpatchify,
} from "../../nn/patches.ts";
import {
  gridPlaces,
  rotate,
  type RotaryTable,
  rotaryTableOf,
  sharedPairs,
} from "../../nn/positions.ts";
import { checkTimes, embedVector, preciseTimestepEmbedding } from "../../nn/timestep-embedding.ts";
import type { NetworkInputs } from "../family.ts";
import { mostPositions, type WanConfig } from "./config.ts";

/** A clip with its noise levels and its text. */
export interface WanClip {
  /** [B, channels, frames, H, W] */
  readonly x: Tensor;
  /** Times in [0, 1000], one a clip, [B], or one a token, [B, N]; tokens are in the order of frames, rows and columns. */
  readonly t: Tensor;
  /** Embedded tokens of the text, [B, length, width], with zeros for padding. */
  readonly text: Tensor;
}

/**
 * Predicts the flow from picture to noise: [B, channels, frames, H, W] → [B, outputs, frames, H, W].
 *
 * Tokens of the text that are padding by `mask` are zeros to the network.
 *
 * @throws ShapeError if the patch does not divide the clip, or the text is not of the config's length
 */
export function wan(
  p: Params,
  { x, t, y, mask, drop }: NetworkInputs,
  config: WanConfig,
  options: Pick<BlockOptions, "recompute"> = {},
): Tensor {
  const given = givenCondition(y, config.condition, "Wan");
  if (drop) {
    throw new ShapeError(
      "A Wan has no token that stands for no text, so no text can be dropped; give the embedding of the empty text.",
    );
  }
  const text = mask ? given.mul(mask.cast("float32").unsqueeze(-1)) : given;
  return packedWan(p, [{ x, t, text }], config, options)[0]!;
}

/**
 * The network on several clips at once, whose sizes and lengths may differ. Their tokens are one sequence, in which a clip attends
 * to itself alone, so that each gives what it gives alone and the cost follows the number of tokens.
 *
 * @returns the flow of each clip, in order
 */
export function packedWan(
  p: Params,
  clips: readonly WanClip[],
  config: WanConfig,
  options: Pick<BlockOptions, "recompute"> = {},
): readonly Tensor[] {
  const { hidden, heads, patch, frequencies, depth, outputs } = config;
  const grids = clips.map(({ x }) => gridOf(x, config));
  const lengths = grids.map(patchCount); // N of each clip
  const patches = clips.map(({ x }) => patchProjection(p.at("patch_embedding"), x, patch, hidden));
  const times = clips.map(({ t }, i) => {
    checkTimes(t, lengths[i], "Wan");
    const sinusoids = preciseTimestepEmbedding(t, frequencies);
    return embedVector(p.at("time_embedding"), ["0", "2"], sinusoids, hidden); // [B, C] or [B, N, C]
  });
  const time = joinTimes(times, lengths); // [B, 1 or all N, C]
  const context: Context = {
    lengths,
    texts: clips.map(({ text }) => embedText(p.at("text_embedding"), text, config)),
    modulation: linear(p.at("time_projection.1"), time.silu(), 6 * hidden), // [B, 1 or all N, 6·C]
    rotary: rotaryTableOf(grids.flatMap(gridPlaces), sharedPairs(hidden / heads, 3)),
  };
  const [h] = runBlocks(
    [joined(patches)],
    blockScopes(p, "blocks", depth),
    (scope, [tokens]) => [wanBlock(scope, tokens, context, config)],
    options,
  ); // [B, all N, C]
  const head = p.at("head");
  const [last] = modulated(head, ["norm"], concat([time, time], -1), config) as [Branch];
  const values = patchPixels(patch, 3) * outputs;
  const tokens = linear(head.at("head"), last.norm(h), values, { init: zero }); // [B, all N, values]
  return divided(tokens, lengths).map((part, i) =>
    unpatchify(part, grids[i]!, patch, "channels-last"),
  );
}

/** What all blocks share. */
interface Context {
  /** Tokens of each clip. */
  readonly lengths: readonly number[];
  /** The embedded text of each clip, [B, length, C]. */
  readonly texts: readonly Tensor[];
  /** Shifts, scales and gates of both branches by the time: [B, 1, 6·C], or [B, all N, 6·C]. */
  readonly modulation: Tensor;
  readonly rotary: RotaryTable;
}

/** One block: [B, all N, C] → [B, all N, C]. */
function wanBlock(p: Params, x: Tensor, context: Context, config: WanConfig): Tensor {
  const { modulation, texts } = context;
  const [attention, forward] = modulated(p, ["norm1", "norm2"], modulation, config) as [
    Branch,
    Branch,
  ];
  let h = x.add(
    attention.gate(attendToClip(p.at("self_attn"), attention.norm(x), context, config)),
  );
  const asked = config.crossNorm ? norm(p.at("norm3"), h, layerNorm(config, true)) : h;
  h = h.add(attendToText(p.at("cross_attn"), asked, texts, context, config));
  const inner = linear(p.at("ffn.0"), forward.norm(h), config.inner).gelu("tanh"); // [B, all N, inner]
  return h.add(forward.gate(linear(p.at("ffn.2"), inner, config.hidden)));
}

/** Each clip's tokens attend to each other: [B, all N, C] → [B, all N, C]. */
function attendToClip(p: Params, x: Tensor, context: Context, config: WanConfig): Tensor {
  const { lengths, rotary } = context;
  const turned = (name: "q" | "k") => {
    const y = projected(p, name, x, config);
    const split = y.reshape([y.dim(0), y.dim(1), config.heads, config.hidden / config.heads]);
    return rotate(split, rotary).reshape(y.shape);
  };
  const [q, k, v] = [turned("q"), turned("k"), linear(p.at("v"), x, config.hidden)];
  const parts = [q, k, v].map((each) => divided(each, lengths));
  return mixedByClip(p, parts, config);
}

/** Each clip's tokens attend to its text: [B, all N, C] → [B, all N, C]. */
function attendToText(
  p: Params,
  x: Tensor,
  texts: readonly Tensor[],
  { lengths }: Context,
  config: WanConfig,
): Tensor {
  const q = divided(projected(p, "q", x, config), lengths);
  const k = texts.map((text) => projected(p, "k", text, config));
  const v = texts.map((text) => linear(p.at("v"), text, config.hidden));
  return mixedByClip(p, [q, k, v], config);
}

/** Attention clip by clip, each to its own keys, and the projection behind it. */
function mixedByClip(
  p: Params,
  [q, k, v]: readonly (readonly Tensor[])[],
  { heads, hidden }: WanConfig,
): Tensor {
  const mixed = q!.map((queries, i) => {
    const scope = q!.length === 1 ? p : p.at(`clips.${i}`);
    return mixTokens(scope, [queries, k![i]!, v![i]!], { heads });
  });
  return linear(p.at("o"), joined(mixed), hidden);
}

/** Queries or keys of all heads, normalized over all of them together where the config says so. */
function projected(p: Params, name: "q" | "k", x: Tensor, config: WanConfig): Tensor {
  const y = linear(p.at(name), x, config.hidden);
  if (!config.qkNorm) return y;
  return norm(p.at(`norm_${name}`), y, { kind: "rms", affine: true, epsilon: config.epsilon });
}

/** Branches with norms of the given names, whose shifts, scales and gates are trained numbers plus those of the time. */
function modulated(
  p: Params,
  names: readonly string[],
  byTime: Tensor,
  config: WanConfig,
): readonly Branch[] {
  const { hidden } = config;
  const parts = byTime.size(-1) / hidden;
  const trained = p.param("modulation", [1, parts, hidden], normal(1 / Math.sqrt(hidden)));
  const values = byTime.add(trained.reshape([1, 1, parts * hidden])).split(parts, -1);
  const each = parts / names.length;
  return names.map((name, i) => {
    const [shift, scale, gate] = values.slice(i * each, (i + 1) * each);
    return adaptiveBranch(p.at(name), layerNorm(config, false), [shift!, scale!, gate]);
  });
}

function layerNorm({ epsilon }: WanConfig, affine: boolean) {
  return { kind: "layer", affine, epsilon } as const;
}

/** [B, length, width] → [B, length, C] */
function embedText(p: Params, text: Tensor, { condition, hidden }: WanConfig): Tensor {
  if (text.shape[1] !== condition.length || text.shape[2] !== condition.width) {
    throw new ShapeError(
      `The text of this Wan is ${condition.length} tokens of ${condition.width} channels, but ${formatShape(text.shape)} was given; fill it up with zeros.`,
    );
  }
  return embedVector(p, ["0", "2"], text, hidden, { activate: (inner) => inner.gelu("tanh") });
}

/** The patches of a clip along frames, rows and columns. */
function gridOf(x: Tensor, { patch, channels }: WanConfig): Axes {
  if (x.rank !== 5) {
    throw new ShapeError(
      `A Wan draws clips, [B, ${channels}, frames, H, W], but its input is ${formatShape(x.shape)}; give a picture as a clip of one frame.`,
    );
  }
  const grid = patchGrid(x, patch);
  if (grid.every((length) => length <= mostPositions)) return grid;
  throw new ShapeError(
    `A clip of ${grid.join("×")} patches is longer than the positions of a Wan, which end at ${mostPositions}; give a smaller one.`,
  );
}

/** Embedded times in a form that broadcasts to the tokens of all clips. */
function joinTimes(times: readonly Tensor[], lengths: readonly number[]): Tensor {
  const perToken = times.map((time) => (time.rank === 2 ? time.unsqueeze(1) : time));
  if (perToken.length === 1) return perToken[0]!;
  return concat(
    perToken.map((time, i) => time.expand([time.dim(0), lengths[i]!, time.size(2)])),
    1,
  );
}

/** Joins the tokens of all clips. */
function joined(parts: readonly Tensor[]): Tensor {
  return parts.length === 1 ? parts[0]! : concat(parts, 1);
}

/** The inverse of `joined`. */
function divided(tokens: Tensor, lengths: readonly number[]): readonly Tensor[] {
  if (lengths.length === 1) return [tokens];
  let start = 0;
  return lengths.map((length) => {
    start += length;
    return tokens.slice(1, start - length, start);
  });
}
