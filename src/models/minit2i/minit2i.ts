/**
 * MiniT2I (2026; github.com/PeppaKing8/minit2i-jax): a transformer on patches of pixels and tokens of a text, which predicts
 * the clean picture. As in MMDiT, both streams have weights of their own and one attention; unlike it, nothing tells the network
 * the time, which it sees in the noise, so that its blocks have no modulation.
 *
 * The text goes through a few blocks alone before it meets the picture. That part, `miniT2IText`, is the same in every step.
 * Weights have the names of github.com/Hope7Happiness/minit2i-torch.
 */
import { ShapeError } from "../../engine/errors.ts";
import { concat, where } from "../../engine/graph/functional.ts";
import type { Tensor } from "../../engine/graph/tensor.ts";
import { mixTokens, type ProjectionOptions, queriesKeysValues } from "../../nn/attention.ts";
import { blockScopes, runBlocks } from "../../nn/blocks.ts";
import { givenCondition } from "../../nn/conditioning.ts";
import { linear } from "../../nn/linear.ts";
import { gatedMlp } from "../../nn/mlp.ts";
import { norm } from "../../nn/norm.ts";
import { normal, type Params, zero } from "../../nn/params.ts";
import { patchEmbedding, patchGrid, patchPixels, unpatchify } from "../../nn/patches.ts";
import {
  gridPositions,
  type RotaryTable,
  rotaryTable,
  rotaryTableOf,
  sinCosTable,
} from "../../nn/positions.ts";
import { embedTime } from "../../nn/timestep-embedding.ts";
import type { BlockOptions, MeanFlowStep, NetworkInputs } from "../family.ts";
import { feedForwardWidth, type MiniT2IConfig } from "./config.ts";

const rms = { kind: "rms", affine: true, epsilon: 1e-6 } as const;

/** Initial deviation of the tokens that are trained as they are. */
const tokenInit = normal(0.02);

/**
 * Predicts the clean picture: `x` [B, channels, H, W] → [B, channels, H, W]. The text is `y` [B, L, width] with its `mask`, or
 * `text`, which `miniT2IText` has made of it.
 *
 * @throws ShapeError if the patch does not divide the image, or an input is missing
 */
export function miniT2I(
  p: Params,
  inputs: NetworkInputs,
  config: MiniT2IConfig,
  options: BlockOptions = {},
): Tensor {
  const { x } = inputs;
  const { recompute } = options;
  const { patch, hidden, channels, depth, unreadWidth } = config;
  const grid = patchGrid(x, patch);
  const text = inputs.text ?? miniT2IText(p, inputs, config, options); // [B, P + L, C]
  const embedding = { kind: "bottleneck", width: config.bottleneck } as const;
  const patches = patchEmbedding(p.at("img_embedder"), x, patch, hidden, embedding); // [B, N, C]
  const table = sinCosTable(gridPositions(grid), hidden);
  const positions = p.buffer("pos_embed", { ...table, shape: [1, ...table.shape] });
  const rotary = {
    text: textPositions(text.size(1), config),
    image: rotaryTable(grid, headSizeOf(config), halves),
  };
  if (unreadWidth !== undefined) declareUnread(p, config, unreadWidth);
  const first: TextAndImage = [text, patches.add(positions)];
  const [, h] = runBlocks(
    first,
    blockScopes(p, "double_blocks", depth),
    (block, tokens, i) => doubleBlock(block, tokens, { rotary, config, last: i === depth - 1 }),
    { recompute, outputNames: ["txt_output", "img_output"] },
  );
  const final = p.at("final_layer");
  const values = patchPixels(patch, grid.length) * channels;
  const tokens = linear(final.at("linear"), norm(final.at("norm_final"), h, rms), values, {
    init: zero,
  });
  return unpatchify(tokens, grid, patch, "channels-last"); // [B, channels, H, W]
}

/** The tokens of the text [B, P + L, C] and of the image [B, N, C]; after the last block only the image's are used. */
type TextAndImage = readonly [text: Tensor, image: Tensor];

/** Number of tokens in front of the text, P. */
function prefixTokens({ meanFlow }: Pick<MiniT2IConfig, "meanFlow">): number {
  if (!meanFlow) return 0;
  return meanFlow.context + meanFlow.guidance + 2 * meanFlow.interval + meanFlow.time;
}

/**
 * The part of the network that reads the text alone: `y` [B, L, width] → [B, P + L, C], with the P tokens of a mean-flow
 * network in front. Where the mask is false, or the text dropped, a trained token takes the place of the text's.
 */
export function miniT2IText(
  p: Params,
  { y, mask, drop, step }: Omit<NetworkInputs, "x" | "t">,
  config: MiniT2IConfig,
  { recompute }: BlockOptions = {},
): Tensor {
  const given = givenCondition(y, config.condition, "MiniT2I"); // [B, L, width]
  const none = p.param("mask_token", [1, 1, config.condition.width], tokenInit);
  const perToken = [given.dim(0), given.dim(1), 1];
  const masked = mask ? where(mask.reshape(perToken), given, none) : given;
  const kept = drop ? where(drop.reshape([drop.dim(0), 1, 1]), none, masked) : masked;
  const tokens = linear(p.at("txt_embedder"), kept, config.hidden, { bias: false }); // [B, L, C]
  const { meanFlow } = config;
  const first = meanFlow ? concat([...stepTokens(p, kept, step, config), tokens], 1) : tokens;
  const rotary = rotaryTable([first.size(1)], headSizeOf(config), halves);
  const [text] = runBlocks(
    [first],
    blockScopes(p, "txt_preamble_blocks", config.preamble),
    (block, [h]) => [textBlock(block, h, rotary, config)],
    { recompute },
  );
  return text;
}

/** The tokens of a step, which a mean-flow network takes beside the others, in the order in which they stand: 5 × [B, count, C]. */
function stepTokens(
  p: Params,
  text: Tensor,
  step: MeanFlowStep | undefined,
  { hidden, meanFlow }: MiniT2IConfig,
): readonly Tensor[] {
  if (!step) {
    throw new ShapeError("This MiniT2I takes the steps of a mean flow; give the span as `step`.");
  }
  const { context, guidance, interval, time } = meanFlow!;
  const pooled = linear(p.at("aux_pooled_embedder"), text.mean(1), hidden, { bias: false }); // [B, C]
  const embed = (name: string, value: Tensor) => embedTime(p.at(name), value, hidden); // [B, C]
  const parts: readonly (readonly [name: string, count: number, embedding: Tensor])[] = [
    ["context_tokens", context, pooled],
    ["omega_tokens", guidance, embed("omega_embedder", step.guidance.reciprocal().neg().add(1))],
    ["t_min_tokens", interval, embed("t_min_embedder", step.from)],
    ["t_max_tokens", interval, embed("t_max_embedder", step.to)],
    ["time_tokens", time, embed("h_embedder", step.span)],
  ];
  return parts.map(([name, count, embedding]) =>
    p.param(name, [1, count, hidden], tokenInit).add(embedding.unsqueeze(1)),
  );
}

const halves = { pairing: "halves" } as const;

function headSizeOf({ hidden, heads, headSize = hidden / heads }: MiniT2IConfig): number {
  return headSize;
}

/** The angles of the text in the blocks that it shares with the image: the tokens in front of it are not turned there. */
function textPositions(length: number, config: MiniT2IConfig): RotaryTable {
  const prefix = prefixTokens(config);
  const places = Array.from({ length }, (_, i) => [i < prefix ? 0 : i]);
  return rotaryTableOf(places, [headSizeOf(config) / 2], halves);
}

/** A block of the text alone: [B, P + L, C] → [B, P + L, C]. */
function textBlock(p: Params, x: Tensor, rotary: RotaryTable, config: MiniT2IConfig): Tensor {
  const heads = queriesKeysValues(
    p,
    norm(p.at("norm1"), x, rms),
    config.heads,
    projection(config, "qkv", rotary),
  );
  const mixed = mixTokens(p, heads, config);
  const h = x.add(linear(p.at("attn_proj"), mixed, config.hidden));
  return h.add(feedForward(p, "", h, config));
}

interface DoubleBlock {
  readonly rotary: { readonly text: RotaryTable; readonly image: RotaryTable };
  readonly config: MiniT2IConfig;
  readonly last: boolean;
}

/** A block of both streams, whose queries and keys share their norms. The last one need not change the text. */
function doubleBlock(
  p: Params,
  [text, image]: TextAndImage,
  { rotary, config, last }: DoubleBlock,
): TextAndImage {
  const read = (name: "txt" | "img", x: Tensor, angles: RotaryTable) =>
    queriesKeysValues(
      p,
      norm(p.at(`${name}_norm1`), x, rms),
      config.heads,
      projection(config, `${name}_qkv`, angles),
    );
  const ofText = read("txt", text, rotary.text);
  const ofImage = read("img", image, rotary.image);
  const joined = ofText.map((part, i) => concat([part, ofImage[i]!], 1)); // 3 × [B, P + L + N, C]
  const mixed = mixTokens(p, joined as [Tensor, Tensor, Tensor], config);
  const length = text.size(1);
  const after = (name: "txt" | "img", x: Tensor, attended: Tensor) => {
    const h = x.add(linear(p.at(`${name}_attn_proj`), attended, config.hidden));
    return h.add(feedForward(p, `${name}_`, h, config));
  };
  const drawn = after("img", image, mixed.slice(1, length));
  if (last && config.unreadWidth === undefined) return [text, drawn];
  return [after("txt", text, mixed.slice(1, 0, length)), drawn];
}

function projection(
  config: MiniT2IConfig,
  qkvName: string,
  rotary: RotaryTable,
): ProjectionOptions {
  return { qkvName, qkNorm: rms, rotary, headSize: headSizeOf(config) };
}

/** SwiGLU of the normed tokens: [B, N, C] → [B, N, C]. */
function feedForward(p: Params, prefix: string, x: Tensor, config: MiniT2IConfig): Tensor {
  const width = feedForwardWidth(config);
  return gatedMlp(p.at(`${prefix}mlp`), norm(p.at(`${prefix}norm2`), x, rms), width);
}

/** Declares the embedders of published files whose output nothing reads. */
function declareUnread(p: Params, { condition }: MiniT2IConfig, width: number): void {
  const embedder = p.at("t_embedder.mlp");
  embedder.param("0.weight", [width, 256], normal(0.02));
  embedder.param("0.bias", [width], zero);
  embedder.param("2.weight", [width, width], normal(0.02));
  embedder.param("2.bias", [width], zero);
  p.param("pooled_embedder.weight", [width, condition.width], normal(0.02));
}
