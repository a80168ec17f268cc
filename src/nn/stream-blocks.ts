/**
 * The blocks of FLUX (Black Forest Labs, 2024 and 2025): first text and image have weights of their own around one attention
 * over both, then all tokens go through blocks whose attention and feed-forward part read the same input at the same time.
 *
 * Parameters have the names of the original code.
 */
import { ShapeError } from "../engine/errors.ts";
import { concat } from "../engine/graph/functional.ts";
import type { Tensor } from "../engine/graph/tensor.ts";
import { mixTokens } from "./attention.ts";
import { type BlockOptions, blockScopes, runBlocks, type Streams } from "./blocks.ts";
import { linear, linearSlices } from "./linear.ts";
import { adaptiveBranch, type Branch } from "./modulation.ts";
import type { Norm } from "./norm.ts";
import { one, type Params } from "./params.ts";
import { rotate, type RotaryTable, rotaryTableOf } from "./positions.ts";
import { embedVector, timestepEmbedding } from "./timestep-embedding.ts";

/** What all blocks of a network have in common. */
export interface StreamStyle {
  readonly heads: number;
  /** Positions of all tokens, those of the text first. */
  readonly rotary: RotaryTable;
  /** Channels inside the feed-forward parts. */
  readonly inner: number;
  /** A GELU (tanh), or SwiGLU with the gate before the value in one matrix. */
  readonly feedForward: "gelu" | "swiglu";
  /** True if linear layers have a bias. */
  readonly bias: boolean;
  /** The same for the queries, keys and values of the blocks of two streams. */
  readonly qkvBias: boolean;
}

/** @throws ShapeError if a network that was distilled with guidance is given no scale, or another one */
export function checkGuidance(given: Tensor | undefined, takes: boolean, network: string): void {
  if (takes === (given !== undefined)) return;
  throw new ShapeError(
    takes
      ? `This ${network} was distilled with guidance; give its scale as \`guidance\`.`
      : `This ${network} takes no guidance scale; leave \`guidance\` out.`,
  );
}

/** The positions of tokens at places along axes, each of which turns some of the `channels` of a head, and inner channels. */
export function streamSizesOf(
  places: readonly (readonly number[])[],
  { axes, theta, heads, hidden, mlpRatio }: StreamSizes,
): Pick<StreamStyle, "heads" | "rotary" | "inner"> {
  const pairs = axes.map((channels) => channels / 2);
  const inner = Math.trunc(hidden * mlpRatio);
  return { heads, rotary: rotaryTableOf(places, pairs, { theta }), inner };
}

/** Sizes in the config of a network of streams. */
export interface StreamSizes {
  readonly hidden: number;
  readonly heads: number;
  readonly mlpRatio: number;
  /** Channels of a head that the positions of each axis rotate. */
  readonly axes: readonly number[];
  readonly theta: number;
  /** Blocks of two streams, and of one behind them. */
  readonly depth: number;
  readonly singleDepth: number;
}

/** Tokens of the text [B, L, C] and of the image [B, N, C]. */
export type TextAndImageStreams = readonly [text: Tensor, image: Tensor];

const epsilon = 1e-6;
const plainNorm: Norm = { kind: "layer", affine: false, epsilon };

/** Names of the two layers that embed a vector. */
export const streamLayers = ["in_layer", "out_layer"] as const;

/** Embeds times [B] in [0, 1000] and, where there are any, guidance scales [B]: [B, hidden]. */
export function embedScales(
  p: Params,
  { t, guidance }: { readonly t: Tensor; readonly guidance?: Tensor | undefined },
  hidden: number,
  { bias }: Pick<StreamStyle, "bias">,
): Tensor {
  const embed = (name: string, value: Tensor) =>
    embedVector(p.at(name), streamLayers, timestepEmbedding(value, 256), hidden, { bias });
  const time = embed("time_in", t);
  // A scale is embedded like a time in [0, 1]: 1000 times as large.
  return guidance ? time.add(embed("guidance_in", guidance.mul(1000))) : time;
}

/** Branches from the shift, scale and gate of each, one after another; each [B, C]. */
export function streamBranches(p: Params, values: readonly Tensor[]): readonly Branch[] {
  return Array.from({ length: values.length / 3 }, (_, i) => {
    const [shift, scale, gate] = values.slice(3 * i) as [Tensor, Tensor, Tensor];
    return adaptiveBranch(p, plainNorm, [shift, scale, gate]);
  });
}

/** A block of two streams, with a branch for the attention and one for the feed-forward part of each. */
function doubleStreamBlock(
  p: Params,
  [text, image]: TextAndImageStreams,
  branches: { readonly text: readonly Branch[]; readonly image: readonly Branch[] },
  style: StreamStyle,
): TextAndImageStreams {
  const [ofText, toText] = branches.text as [Branch, Branch];
  const [ofImage, toImage] = branches.image as [Branch, Branch];
  const textParts = projectedHeads(p.at("txt_attn"), ofText.norm(text), style);
  const imageParts = projectedHeads(p.at("img_attn"), ofImage.norm(image), style);
  const joined = textParts.map((part, i) => concat([part, imageParts[i]!], 1)) as Heads;
  const mixed = attended(p, joined, style); // [B, L + N, C]
  const length = text.size(1);

  const stream = (name: string, x: Tensor, part: Tensor, [first, second]: [Branch, Branch]) => {
    const projected = linear(p.at(`${name}_attn.proj`), part, x.size(-1), style);
    const h = x.add(first.gate(projected));
    return h.add(second.gate(feedForward(p.at(`${name}_mlp`), second.norm(h), style)));
  };
  return [
    stream("txt", text, mixed.slice(1, 0, length), [ofText, toText]),
    stream("img", image, mixed.slice(1, length), [ofImage, toImage]),
  ];
}

/** A block of one stream [B, L + N, C]: `linear1` gives queries, keys, values and what goes into the feed-forward part. */
function singleStreamBlock(
  p: Params,
  [x]: Streams,
  [branch]: readonly Branch[],
  style: StreamStyle,
): [Tensor] {
  const { heads, bias } = style;
  const width = x.size(-1);
  const widths = [width, width, width, ...innerWidths(style)];
  const [q, k, v, ...mlp] = linearSlices(p.at("linear1"), branch!.norm(x), widths, { bias });
  const parts = [q!, k!, v!].map((part) => byHead(part, heads)) as Heads;
  const mixed = attended(p, normalizedHeads(p.at("norm"), parts), style);
  const both = concat([mixed, activated(mlp, style)], -1); // [B, L + N, C + inner]
  const output = linear(p.at("linear2"), both, width, { bias });
  return [x.add(branch!.gate(output))];
}

/** Branches of the blocks of two streams and of one, by their scopes. */
export interface StreamModulation {
  double(scope: Params): { readonly text: readonly Branch[]; readonly image: readonly Branch[] };
  single(scope: Params): readonly Branch[];
}

/** Runs text and image through the blocks of two streams and then those of one: the image's tokens, [B, N, C]. */
export function runStreams(
  p: Params,
  streams: TextAndImageStreams,
  { depth, singleDepth }: Pick<StreamSizes, "depth" | "singleDepth">,
  modulation: StreamModulation,
  style: StreamStyle,
  { recompute }: StreamOptions,
): Tensor {
  const both = runBlocks(
    streams,
    blockScopes(p, "double_blocks", depth),
    (scope, two) => doubleStreamBlock(scope, two, modulation.double(scope), style),
    { recompute, outputNames: ["text.output", "image.output"] },
  );
  const [all] = runBlocks(
    [concat(both, 1)] as [Tensor],
    blockScopes(p, "single_blocks", singleDepth),
    (scope, joined) => singleStreamBlock(scope, joined, modulation.single(scope), style),
    { recompute },
  );
  return all.slice(1, streams[0].size(1));
}

export type StreamOptions = Pick<BlockOptions, "recompute">;

/** Queries, keys and values by head, 3 × [B, N, heads, D]. */
type Heads = [q: Tensor, k: Tensor, v: Tensor];

/** Normalized queries, keys and values of a stream. */
function projectedHeads(p: Params, x: Tensor, { heads, qkvBias }: StreamStyle): Heads {
  const width = x.size(-1);
  const parts = linearSlices(p.at("qkv"), x, [width, width, width], { bias: qkvBias });
  return normalizedHeads(p.at("norm"), parts.map((part) => byHead(part, heads)) as Heads);
}

function byHead(x: Tensor, heads: number): Tensor {
  return x.reshape([x.dim(0), x.dim(1), heads, x.size(-1) / heads]);
}

/** RMSNorm of the queries and keys of each head, with weights named `scale`. */
function normalizedHeads(p: Params, [q, k, v]: Heads): Heads {
  const normed = (name: string, x: Tensor) =>
    x.rmsNorm({ weight: p.at(name).param("scale", [x.size(-1)], one), epsilon });
  return [normed("query_norm", q), normed("key_norm", k), v];
}

/** Attention with rotated queries and keys: 3 × [B, N, heads, D] → [B, N, C]. */
function attended(p: Params, [q, k, v]: Heads, { heads, rotary }: StreamStyle): Tensor {
  const flat = (x: Tensor) => x.reshape([x.dim(0), x.dim(1), heads * x.size(-1)]);
  const parts = [rotate(q, rotary), rotate(k, rotary), v].map(flat) as Heads;
  return mixTokens(p.at("attn"), parts, { heads });
}

function innerWidths({ inner, feedForward: kind }: StreamStyle): readonly number[] {
  return kind === "swiglu" ? [inner, inner] : [inner];
}

function activated([gate, value]: readonly Tensor[], { feedForward: kind }: StreamStyle): Tensor {
  return kind === "swiglu" ? gate!.silu().mul(value!) : gate!.gelu("tanh");
}

/** The feed-forward part of a stream, with the names `0` and `2`: [B, N, C] → [B, N, C]. */
function feedForward(p: Params, x: Tensor, style: StreamStyle): Tensor {
  const { bias } = style;
  const inner = activated(linearSlices(p.at("0"), x, innerWidths(style), { bias }), style);
  return linear(p.at("2"), inner, x.size(-1), { bias });
}

/** The output layer, shift before scale: [B, N, C] → [B, N, outputs]. */
export function streamOutput(
  p: Params,
  x: Tensor,
  vector: Tensor,
  outputs: number,
  { bias }: Pick<StreamStyle, "bias">,
): Tensor {
  const width = x.size(-1);
  const modulation = linear(p.at("adaLN_modulation.1"), vector.silu(), 2 * width, { bias });
  const [shift, scale] = modulation.split(2, -1) as [Tensor, Tensor];
  const { norm } = adaptiveBranch(p, plainNorm, [shift, scale]);
  return linear(p.at("linear"), norm(x), outputs, { bias });
}
