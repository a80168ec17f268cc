/**
 * MMDiT, "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis" (Esser et al., 2024), the network of Stable
 * Diffusion 3: the tokens of the text and those of the image have separate weights, and one attention over both. Time and the
 * pooled text modulate every block.
 *
 * Stable Diffusion 3.5 normalizes queries and keys. In its medium model (MMDiT-X) some blocks have a second attention over the
 * image alone. Weights have the names of Stability's code.
 */
import { ShapeError, UsageError } from "../../engine/errors.ts";
import { concat, full, where } from "../../engine/graph/functional.ts";
import type { Tensor } from "../../engine/graph/tensor.ts";
import {
  maskBias,
  mixTokens,
  type ProjectionOptions,
  queriesKeysValues,
  selfAttention,
} from "../../nn/attention.ts";
import { blockScopes, runBlocks } from "../../nn/blocks.ts";
import { embedLabels, givenCondition, keptText, poolText } from "../../nn/conditioning.ts";
import { linear } from "../../nn/linear.ts";
import { gatedMlp, mlp } from "../../nn/mlp.ts";
import { adaptiveBranches, type Branch } from "../../nn/modulation.ts";
import type { Norm } from "../../nn/norm.ts";
import { type Params, stored, zero } from "../../nn/params.ts";
import {
  type Axes,
  formatAxes,
  patchCount,
  patchEmbedding,
  patchGrid,
  patchPixels,
  unpatchify,
} from "../../nn/patches.ts";
import { sinCosTable } from "../../nn/positions.ts";
import { mixedTokens } from "../../nn/token-mixing.ts";
import { checkTimes, embedTime, embedVector } from "../../nn/timestep-embedding.ts";
import type { NetworkInputs } from "../family.ts";
import type { MMDiTConfig } from "./config.ts";

export interface MMDiTInputs {
  /** [B, channels, height, width] */
  readonly x: Tensor;
  /** Times [B] in [0, 1000], float32. */
  readonly t: Tensor;
  /** Tokens of the text, [B, length, width]. */
  readonly context: Tensor;
  /** The pooled text, [B, pooled]. */
  readonly pooled: Tensor;
  /** Mask of the text's tokens, [B, length] bool. By default all are attended to, even padding, as in Stable Diffusion 3. */
  readonly mask?: Tensor | undefined;
  /** Rows that skip the blocks in `skippable`, [B] bool. */
  readonly skip?: Tensor | undefined;
}

export interface MMDiTOptions {
  /** Computes each block again in the backward pass instead of keeping its activations. */
  readonly recompute?: boolean | undefined;
  /** Indices, from 0, of the blocks that `skip` applies to. */
  readonly skippable?: readonly number[] | undefined;
}

/**
 * Predicts the target of the diffusion process: [B, channels, H, W] → [B, channels or twice as many, H, W].
 *
 * @throws ShapeError if the patch does not divide the image; UsageError if the positions do not cover it
 */
export function mmdit(
  p: Params,
  { x, t, context, pooled, mask, skip }: MMDiTInputs,
  config: MMDiTConfig,
  { recompute, skippable = [] }: MMDiTOptions = {},
): Tensor {
  const { patch, hidden, channels, depth } = config;
  const grid = patchGrid(x, patch);
  const count = patchCount(grid); // N
  checkBlocks("skippable", skippable, depth);
  checkTimes(t, count, "MMDiT");
  const embed = (times: Tensor) => embedTime(p.at("t_embedder"), times, hidden);
  const time = embed(t); // [B, C] or [B, N, C]
  const text = embedVector(p.at("y_embedder.mlp"), ["0", "2"], pooled, hidden); // [B, C]
  const shared: Shared = {
    vector: time.add(t.rank === 2 ? text.unsqueeze(1) : text).silu(), // [B, C] or [B, N, C]
    // Text tokens are not noisy, so they use the mean of the times.
    ...(t.rank === 2 && { textVector: embed(t.mean(1)).add(text).silu() }),
    bias: mask && maskBias(concat([mask, full([mask.dim(0), count], 1, "bool")], 1)),
    grid,
    config,
  };
  const patches = patchEmbedding(p.at("x_embedder"), x, patch, hidden, config.patches); // [B, N, C]
  const first: TextAndImage = [
    linear(p.at("context_embedder"), context, hidden), // [B, L, C]
    patches.add(positions(p, grid, config)), // [B, N, C]
  ];
  const [, h] = runBlocks(
    first,
    blockScopes(p, "joint_blocks", depth),
    (block, tokens, i) => jointBlock(block, tokens, shared, i),
    {
      recompute,
      skip: skip && { rows: skip, blocks: skippable },
      outputNames: ["context_block.output", "x_block.output"],
    },
  );
  const outputs = config.learnedVariance ? 2 * channels : channels;
  const values = patchPixels(patch, grid.length) * outputs;
  const tokens = finalLayer(p.at("final_layer"), h, values, shared);
  return unpatchify(tokens, grid, patch, "channels-last"); // [B, outputs, H, W]
}

/** The tokens of the text [B, L, C] and of the image [B, N, C]; after the last block only the image's are used. */
export type TextAndImage = readonly [context: Tensor, x: Tensor];

/** The inputs that all blocks share. */
interface Shared {
  /** Modulates the norms of the image's tokens: [B, C], or [B, N, C] where each token has a time of its own. */
  readonly vector: Tensor;
  /** Modulates the norms of the text's tokens, [B, C]; `vector` by default. */
  readonly textVector?: Tensor;
  /** Masks padding of the text. */
  readonly bias: Tensor | undefined;
  /** Patches along each axis. */
  readonly grid: Axes;
  readonly config: MMDiTConfig;
}

/** One block. The last block does not change the text, and has no weights for that. */
export function jointBlock(
  p: Params,
  [context, x]: TextAndImage,
  shared: Shared,
  index: number,
): TextAndImage {
  const { vector, textVector = vector, bias, grid, config } = shared;
  const { heads, qkNorm, qkvBias } = config;
  const last = index === config.depth - 1;
  const dual = config.dualAttention.includes(index);
  const options: ProjectionOptions = { qkNorm, qkvBias, normNames: ["ln_q", "ln_k"] };
  const [toText, toImage] = [p.at("context_block"), p.at("x_block")];

  const text = branches(toText, textVector, last ? 1 : 2, config, !last);
  const image = branches(toImage, vector, dual ? 3 : 2, config);
  const ofText = queriesKeysValues(toText.at("attn"), text[0]!.norm(context), heads, options);
  const ofImage = queriesKeysValues(toImage.at("attn"), image[0]!.norm(x), heads, options);
  const [q, k, v] = ofText.map((part, i) => concat([part, ofImage[i]!], 1)) as Three; // 3 × [B, L + N, C]
  const length = context.size(1);
  const place = { grid, block: index };
  const tokens = mixedTokens(config.attention, { ...place, before: length });
  const mixed = mixTokens(p.at("attn"), [q, k, v], { heads, bias, tokens }); // [B, L + N, C]

  let h = x.add(image[0]!.gate(projected(toImage, mixed.slice(1, length))));
  if (dual) {
    const attended = selfAttention(toImage.at("attn2"), image[2]!.norm(x), heads, {
      ...options,
      tokens: mixedTokens(config.attention, { ...place, before: 0 }),
    });
    h = h.add(image[2]!.gate(attended));
  }
  const newX = withFeedForward(toImage, h, image[1]!, config);
  if (last) return [context, newX];
  const attended = projected(toText, mixed.slice(1, 0, length));
  return [withFeedForward(toText, context.add(text[0]!.gate(attended)), text[1]!, config), newX];
}

type Three = [Tensor, Tensor, Tensor];

function projected(p: Params, mixed: Tensor): Tensor {
  return linear(p.at("attn.proj"), mixed, mixed.size(-1));
}

function withFeedForward(p: Params, x: Tensor, branch: Branch, config: MMDiTConfig): Tensor {
  const { mlpRatio, feedForward } = config;
  const [scope, inner] = [p.at("mlp"), Math.trunc(x.size(-1) * mlpRatio)];
  const input = branch.norm(x);
  const y =
    feedForward.kind === "gelu"
      ? mlp(scope, input, inner, feedForward.approximate)
      : gatedMlp(scope, input, llamaWidth(inner));
  return x.add(branch.gate(y));
}

/** LLaMA's rounding of the width of a SwiGLU with two thirds of the channels (Touvron et al., 2023). */
function llamaWidth(hidden: number): number {
  return 256 * Math.ceil(Math.trunc((2 * hidden) / 3) / 256);
}

/** Modulated branches, which are zero initially and whose norms have no weights. The last is that of the second attention. */
function branches(
  p: Params,
  vector: Tensor,
  count: number,
  { norm, modulationRank: rank }: Pick<MMDiTConfig, "norm" | "modulationRank">,
  gates = true,
): readonly Branch[] {
  const scopes = new Array<Params>(count).fill(p);
  return adaptiveBranches(p, scopes, vector, norm, { gates, rank, init: zero });
}

const plain: Norm = { kind: "layer", affine: false, epsilon: 1e-6 };

/** The output layer, which is zero initially: [B, N, C] → [B, N, outputs]. Its norm is a LayerNorm, whatever the blocks have. */
function finalLayer(p: Params, x: Tensor, outputs: number, { vector }: Shared): Tensor {
  const [{ norm }] = branches(p, vector, 1, { norm: plain }, false) as [Branch];
  return linear(p.at("linear"), norm(x), outputs, { init: zero });
}

/** The positions of a grid, from the middle of a table with `max` places along each axis: [1, N, C]. */
function positions(
  p: Params,
  grid: Axes,
  { positions: { kind, max }, patch, hidden }: MMDiTConfig,
): Tensor {
  if (grid.some((size) => size > max)) {
    throw new UsageError(
      `An image of ${formatAxes(grid.map((size) => size * patch))} is larger than the position table covers; give at most ${formatAxes(grid.map(() => max * patch))}.`,
    );
  }
  const first: Axes = grid.map((size) => Math.floor((max - size) / 2));
  const shape = [1, patchCount(grid), hidden];
  if (kind === "sin-cos") {
    const along = grid.map((size, axis) =>
      Array.from({ length: size }, (_, i) => first[axis]! + i),
    );
    return p.buffer("pos_embed", { ...sinCosTable(along, hidden), shape });
  }
  const [rows, columns] = grid as Pair;
  const [top, left] = first as Pair;
  const table = p.param("pos_embed", [1, max * max, hidden], stored);
  // Rows are sliced first, so that only they are read from the file: the table is far larger than an image needs.
  const band = table.slice(1, top * max, (top + rows) * max).reshape([1, rows, max, hidden]);
  return band.slice(2, left, left + columns).reshape(shape);
}

type Pair = readonly [number, number];

function checkBlocks(what: string, blocks: readonly number[], depth: number): void {
  const wrong = blocks.find((block) => !Number.isInteger(block) || block < 0 || block >= depth);
  if (wrong === undefined) return;
  throw new UsageError(
    `An MMDiT of ${depth} blocks has no block ${wrong} to be ${what}; give numbers from 0 to ${depth - 1}.`,
  );
}

/**
 * Returns the context and the pooled vector of a condition; that of a text `y` is the mean of its tokens. A class is a context of one token (`label_embedder`). A dropped text is a
 * trained token (`context_embedder.null`), or zeros for the output of encoders, as in the training of Stable Diffusion 3.
 *
 * @throws ShapeError if the condition does not match the config
 */
export function embedCondition(
  p: Params,
  { y, context, pooled, mask, drop }: Omit<NetworkInputs, "x" | "t">,
  { condition, hidden }: MMDiTConfig,
): Pick<MMDiTInputs, "context" | "pooled" | "mask"> {
  if (condition.kind === "text" && condition.pooled !== undefined) {
    if (!context || !pooled) {
      throw new ShapeError("This MMDiT takes texts from encoders; give `context` and `pooled`.");
    }
    if (!drop) return { context, pooled, mask };
    const left = (x: Tensor) =>
      where(drop.reshape([drop.dim(0), ...x.shape.slice(1).map(() => 1)]), full([], 0), x);
    return { context: left(context), pooled: left(pooled), mask };
  }
  const given = givenCondition(y, condition, "MMDiT");
  if (condition.kind === "text") {
    const text = keptText(p.at("context_embedder"), given, { mask, drop });
    return { context: text.tokens, pooled: poolText(text), mask: text.mask };
  }
  if (drop && !condition.nullClass) {
    throw new ShapeError("This MMDiT has no null class, so no class can be dropped.");
  }
  const label = embedLabels(p.at("label_embedder.embedding_table"), given, hidden, condition, drop); // [B, C]
  return { context: label.unsqueeze(1), pooled: label };
}
