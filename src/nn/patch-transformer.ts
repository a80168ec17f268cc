/**
 * The transformer of DiT, "Scalable Diffusion Models with Transformers" (Peebles & Xie, 2022), over two axes or three: an image, a
 * clip, or their latents are cut into patches, which are the tokens of a transformer that is conditioned on time and on a class or a
 * text. Each output token is a patch of the predicted noise, and of its variance.
 *
 * It offers the four block designs that the paper compares, and options of later models: RMSNorm, SwiGLU, rotary positions, norms
 * of queries and keys, and a bottleneck for patches of raw pixels (JiT, Li & He, 2025). Weights have the names of the original
 * code; `diffusersDiTKeys` maps them to those of diffusers.
 */
import * as z from "zod";
import { ShapeError } from "../engine/errors.ts";
import { concat, full } from "../engine/graph/functional.ts";
import { perAxis } from "../engine/graph/ops.ts";
import type { Tensor } from "../engine/graph/tensor.ts";
import { crossAttention, maskBias, selfAttention } from "./attention.ts";
import { blockScopes, runBlocks } from "./blocks.ts";
import {
  type ConditionedInputs,
  embedLabels,
  embedText,
  givenCondition,
  poolText,
  type TextTokens,
} from "./conditioning.ts";
import { linear } from "./linear.ts";
import { feedForward } from "./mlp.ts";
import { adaptiveBranches, type Branch, plainBranch } from "./modulation.ts";
import { normal, type Params, zero } from "./params.ts";
import {
  type Axes,
  patchCount,
  patchEmbedding,
  patchGrid,
  patchPixels,
  unpatchify,
} from "./patches.ts";
import { gridPositions, type RotaryTable, rotaryTable, sinCosTable } from "./positions.ts";
import { type MixedTokens, mixedTokens } from "./token-mixing.ts";
import { type OpenRoute, openRoute, type TokenRoute } from "./token-route.ts";
import { checkTimes, embedTime } from "./timestep-embedding.ts";
import { patchTransformerFields } from "./transformer-schema.ts";

/** A config of the fields in `patchTransformerFields`. */
export type PatchTransformerConfig = z.output<typeof schema>;
const schema = z.object(patchTransformerFields);

export interface PatchTransformerOptions {
  /** Computes each block again in the backward pass instead of keeping its activations. */
  readonly recompute?: boolean | undefined;
  /** Patches that some of the blocks do not see, in a training. */
  readonly route?: TokenRoute | undefined;
  /** Name of the network in messages. */
  readonly title: string;
  /** Patches of time and space; those of the config, of as many pixels along every axis, unless given. */
  readonly patch?: Axes;
  /** Draws the canvas [B, N, width] from the condition [B, width] for a grid of patches; by one linear layer unless given. */
  readonly canvas?: (p: Params, condition: Tensor, grid: Axes) => Tensor;
}

/**
 * Predicts the noise and, if it is learned, the variance: [B, channels, ...axes] → [B, channels or twice as many, ...axes].
 *
 * @param inputs.t times [B]; with adaLN blocks also one a token, [B, N], or for clips one for each place on the axis of time
 * @throws ShapeError if the patch does not divide the image, or the condition does not match the config
 */
export function patchTransformer(
  p: Params,
  { x, t, ...given }: ConditionedInputs,
  config: PatchTransformerConfig,
  {
    title,
    recompute = false,
    route: tokenRoute,
    patch = perAxis(config.patch, x.rank - 2),
    canvas,
  }: PatchTransformerOptions,
): Tensor {
  const { hidden, channels, learnedVariance } = config;
  const grid = patchGrid(x, patch);
  const count = patchCount(grid); // N
  const byFrame = grid.length === 3 && t.rank === 2 && t.shape[1] === grid[0];
  if (!byFrame) {
    checkTimes(t, config.block.kind.startsWith("adaLN") ? count : undefined, title);
  }
  const scopes = blockScopes(p, "blocks", config.depth);
  // With embeddings in each block, the output layer takes those of the first, as in diffusers.
  const perBlock = config.embeddings === "per-block";
  const first = perBlock ? scopes[0]! : p;
  const embed = (times: Tensor, scope = first) =>
    embedTime(scope.at("t_embedder"), times, hidden, 256, perBlock ? 1 : 0);
  const embedGiven = (scope: Params) =>
    embedCondition(scope.at("y_embedder"), given, config, title);
  const time = embed(t); // [B, C] or [B, N, C]
  const condition = embedGiven(first);
  const { vector, joined, attended } = route(time, condition, config);
  const extra = joined?.tokens.size(1) ?? 0;
  const spread = byFrame ? (values: Tensor) => overFrames(values, grid, extra) : undefined;
  const context: Context = {
    spread,
    vector:
      joined && vector?.rank === 3
        ? concat([vector, textVectors(embed(t.mean(1)), condition, byFrame ? 1 : extra)], 1) // [B, N + M, C]
        : vector,
    attended,
    bias: joined?.mask && maskBias(allowing(count, joined.mask)),
    // Tokens of the condition among the patches have no position in the image, so they are not rotated.
    rotary: config.rotary && rotaryTable(grid, hidden / config.heads, { ...config.rotary, extra }),
  };

  const patches = patchEmbedding(p.at("x_embedder"), x, patch, hidden, config.patches); // [B, N, C]
  const positioned = addPositions(p, patches, grid, config); // [B, N, C]
  const vectors = perBlock && scopes.map((scope) => sumOf(embed(t, scope), embedGiven(scope)));
  const placed = addCanvas(p.at("canvas"), positioned, condition, config, (scope, own) =>
    canvas?.(scope, own, grid),
  ); // [B, N, C]
  const routed = tokenRoute && openRoute(tokenRoute, count);
  const inside = routed ? contextInside(context, routed) : context;
  let [h] = runBlocks(
    [joined ? concat([placed, joined.tokens], 1) : placed],
    scopes,
    (block, [tokens], i) => {
      const own = {
        ...(routed?.within(i) ? inside : context),
        ...(vectors && { vector: vectors[i] }),
        tokens: mixedTokens(config.attention, { grid, before: 0, block: i }),
      };
      return [adaptiveBlock(block, tokens, own, config)];
    },
    { recompute, routed },
  ); // [B, N + M, C]
  if (joined) h = h.slice(1, 0, count); // [B, N, C]
  const outputs = learnedVariance ? 2 * channels : channels;
  const values = patchPixels(patch, grid.length) * outputs;
  const tokens = finalLayer(p.at("final_layer"), h, { ...context, vector }, values, config); // [B, N, values]
  return unpatchify(tokens, grid, patch, "channels-last"); // [B, outputs, H, W]
}

/** The inputs that all blocks share. */
interface Context {
  /** Modulates the norms: [B, C], or [B, tokens, C] where each token has a time of its own. */
  readonly vector: Tensor | undefined;
  /** Repeats what is computed from `vector` for all tokens of a frame, where each frame has a time of its own. */
  readonly spread: ((values: Tensor) => Tensor) | undefined;
  /** The tokens that cross-attention attends to. */
  readonly attended: TextTokens | undefined;
  /** Masks padding among the condition's tokens. */
  readonly bias: Tensor | undefined;
  /** The tokens of a block whose attention is not full. */
  readonly tokens?: MixedTokens | undefined;
  readonly rotary: RotaryTable | null;
}

/** What the blocks share that see only the tokens of a route. */
function contextInside(context: Context, routed: OpenRoute): Context {
  const { vector, bias, rotary } = context;
  return {
    ...context,
    vector: vector?.rank === 3 ? routed.enter(vector) : vector,
    // Patches are never masked, so the first that are kept have the bias of any.
    bias: bias && routed.enter(bias.swapAxes(1, 3).squeeze(3)).unsqueeze(3).swapAxes(1, 3),
    rotary: rotary && routed.angles(rotary),
  };
}

/** One block: [B, N, C] → [B, N, C]. */
function adaptiveBlock(
  p: Params,
  x: Tensor,
  context: Context,
  config: PatchTransformerConfig,
): Tensor {
  const { heads, hidden, mlpRatio, qkNorm } = config;
  const { attended } = context;
  const [attention, mlp] = branches(p, ["norm1", "norm2"], context, config) as [Branch, Branch];
  const options = { ...context, qkNorm };
  let h = x.add(attention.gate(selfAttention(p.at("attn"), attention.norm(x), heads, options)));
  if (attended) {
    const cross = plainBranch(p.at("norm_cross"), config.norm);
    const heard = { heads, ...(attended.mask && { bias: maskBias(attended.mask) }) };
    h = h.add(crossAttention(p.at("cross_attn"), cross.norm(h), attended.tokens, heard));
  }
  const inner = Math.trunc(hidden * mlpRatio);
  return h.add(mlp.gate(feedForward(p.at("mlp"), mlp.norm(h), inner, config.feedForward)));
}

/** The output layer, which is zero initially: [B, N, C] → [B, N, outputs]. */
function finalLayer(
  p: Params,
  x: Tensor,
  context: Context,
  outputs: number,
  config: PatchTransformerConfig,
): Tensor {
  const [{ norm }] = branches(p, ["norm_final"], context, config, false) as [Branch];
  return linear(p.at("linear"), norm(x), outputs, { init: zero });
}

/** Branches with norms of the given names. One linear layer, which is zero initially for "adaLN-zero", gives all modulations. */
function branches(
  p: Params,
  names: readonly string[],
  { vector, spread }: Context,
  { norm, feedForwardNorm = norm, block, modulationRank }: PatchTransformerConfig,
  gates = block.kind === "adaLN-zero",
): readonly Branch[] {
  const scopes = names.map((name) => p.at(name));
  const norms = names.map((name) => (name === "norm2" ? feedForwardNorm : norm));
  if (!vector) return scopes.map((scope, i) => plainBranch(scope, norms[i]!));
  const init = block.kind === "adaLN-zero" ? zero : undefined;
  return adaptiveBranches(p, scopes, vector, norms, { gates, rank: modulationRank, init, spread });
}

/** The condition as one vector [B, C] and as tokens [B, M, C]. */
interface Embedded extends TextTokens {
  readonly pooled: Tensor;
  /** The condition as it was given, or its entry of the table: [B, width]. */
  readonly given: Tensor;
}

function embedCondition(
  p: Params,
  { y, mask, drop }: Pick<ConditionedInputs, "y" | "mask" | "drop">,
  { condition, hidden }: PatchTransformerConfig,
  title: string,
): Embedded | undefined {
  if (condition.kind === "none") {
    if (!y) return undefined;
    throw new ShapeError(`This ${title} has no condition, but a \`y\` was given; leave it out.`);
  }
  const given = givenCondition(y, condition, title);
  if (condition.kind === "text") {
    const text = embedText(p, given, hidden, { mask, drop });
    return { ...text, pooled: poolText(text), given: poolText(text.kept) };
  }
  if (drop && !condition.nullClass) {
    throw new ShapeError(`This ${title} has no null class, so no class can be dropped.`);
  }
  const pooled = embedLabels(p.at("embedding_table"), given, hidden, condition, drop); // [B, C]
  return { pooled, tokens: pooled.unsqueeze(1), mask: undefined, given: pooled };
}

/** Returns the ways in which time and condition reach the blocks. */
function route(
  time: Tensor,
  condition: Embedded | undefined,
  { block }: PatchTransformerConfig,
): { vector?: Tensor; joined?: TextTokens; attended?: TextTokens } {
  if (block.kind === "in-context" || block.kind === "cross-attention") {
    const first = time.unsqueeze(1); // [B, 1, C]
    const tokens = condition ? concat([first, condition.tokens], 1) : first; // [B, 1 + M, C]
    const both = { tokens, mask: condition?.mask && allowing(1, condition.mask) };
    return block.kind === "in-context" ? { joined: both } : { attended: both };
  }
  const vector = sumOf(time, condition);
  if (!condition || !block.text) return { vector };
  const way = block.text === "in-context" ? "joined" : "attended";
  return { vector, [way]: condition };
}

/** Time, [B, C] or [B, N, C], plus the pooled condition, through a SiLU. */
function sumOf(time: Tensor, condition: Embedded | undefined): Tensor {
  if (!condition) return time.silu();
  return time.add(time.rank === 3 ? condition.pooled.unsqueeze(1) : condition.pooled).silu();
}

/** If each patch has its own time, text tokens in the sequence are modulated by the mean time: [B, M, C]. */
function textVectors(meanTime: Tensor, condition: Embedded | undefined, count: number): Tensor {
  const vector = sumOf(meanTime, condition).unsqueeze(1); // [B, 1, C]
  return vector.expand([vector.dim(0), count, vector.size(2)]);
}

/** Repeats rows of frames for their patches, and one behind them for the tokens of a text: [B, frames (+ 1), C] → [B, N + M, C]. */
function overFrames(values: Tensor, [frames, ...places]: Axes, text: number): Tensor {
  const [rows, width] = [values.dim(0), values.size(2)];
  const own = patchCount(places);
  const ofFrames = values.slice(1, 0, frames).unsqueeze(2).expand([rows, frames!, own, width]);
  const patches = ofFrames.reshape([rows, frames! * own, width]);
  if (values.size(1) === frames) return patches;
  return concat([patches, values.slice(1, frames!).expand([rows, text, width])], 1);
}

/** A mask [B, M] preceded by `count` tokens that are not masked: [B, count + M]. */
function allowing(count: number, mask: Tensor): Tensor {
  return concat([full([mask.dim(0), count], 1, "bool"), mask], 1);
}

function addPositions(
  p: Params,
  tokens: Tensor,
  grid: Axes,
  { positions, hidden }: PatchTransformerConfig,
): Tensor {
  const shape = [1, patchCount(grid), hidden];
  switch (positions.kind) {
    case "none":
      return tokens;
    case "learned":
      return tokens.add(p.param("pos_embed", shape, normal(0.02)));
    case "sin-cos": {
      const table = sinCosTable(gridPositions(grid), hidden);
      return tokens.add(p.buffer("pos_embed", { ...table, shape }));
    }
  }
}

/** Adds what the canvas has at each place: [B, N, C]. */
function addCanvas(
  p: Params,
  tokens: Tensor,
  condition: Embedded | undefined,
  { canvas, hidden }: PatchTransformerConfig,
  drawn: (p: Params, condition: Tensor) => Tensor | undefined,
): Tensor {
  if (!canvas || !condition) return tokens;
  const places = tokens.size(1);
  const channels =
    drawn(p, condition.given) ?? canvasMap(p, condition.given, [places, canvas.width]); // [B, N, width]
  return tokens.add(linear(p.at("proj"), channels, hidden));
}

/** The map of a canvas, by a linear layer: [B, width of the condition] → [B, places, channels]. */
export function canvasMap(
  p: Params,
  condition: Tensor,
  [places, channels]: readonly [places: number, channels: number],
): Tensor {
  const map = linear(p.at("map"), condition, places * channels);
  return map.reshape([map.dim(0), places, channels]);
}
