/**
 * Latte, "Latent Diffusion Transformer for Video Generation" (Ma et al., 2024): each frame of a clip is cut into patches, and the
 * blocks, those of DiT, take turns: one mixes the patches within each frame, the next one each place over all frames. Weights
 * have the names of the original code.
 */
import { ShapeError } from "../../engine/errors.ts";
import { formatShape } from "../../engine/graph/shape.ts";
import type { Tensor } from "../../engine/graph/tensor.ts";
import { selfAttention } from "../../nn/attention.ts";
import { type BlockOptions, blockScopes, runBlocks } from "../../nn/blocks.ts";
import { type ConditionedInputs, embedLabels, givenCondition } from "../../nn/conditioning.ts";
import { guidedHalves } from "../../nn/guided-halves.ts";
import { linear } from "../../nn/linear.ts";
import { mlp } from "../../nn/mlp.ts";
import { adaptiveBranches, type Branch } from "../../nn/modulation.ts";
import { type Params, zero } from "../../nn/params.ts";
import {
  type Axes,
  patchCount,
  patchEmbedding,
  patchGrid,
  patchPixels,
  unpatchify,
} from "../../nn/patches.ts";
import { gridPositions, sinCosTable } from "../../nn/positions.ts";
import { checkTimes, embedTime } from "../../nn/timestep-embedding.ts";
import type { LatteConfig } from "./config.ts";

/** `x` is a clip, [B, channels, frames, H, W]. */
export type LatteInputs = ConditionedInputs;

const normStyle = { kind: "layer", affine: false, epsilon: 1e-6 } as const;

/**
 * Predicts the noise and, if it is learned, the variance: [B, channels, frames, H, W] → [B, channels or twice as many, frames, H, W].
 *
 * @throws ShapeError if the clip is of another size than that of the config, or the condition does not match the config
 */
export function latte(
  p: Params,
  { x, t, ...given }: LatteInputs,
  config: LatteConfig,
  options: Pick<BlockOptions, "recompute"> = {},
): Tensor {
  const { patch, hidden, channels, learnedVariance, frames } = config;
  if (x.rank !== 5 || x.size(2) !== frames) {
    throw new ShapeError(
      `This Latte draws clips of ${frames} frames, [B, ${channels}, ${frames}, H, W], but its input is ${formatShape(x.shape)}; give as many frames.`,
    );
  }
  checkTimes(t, undefined, "Latte");
  const images = x.rearrange("b c f h w -> (b f) c h w");
  const grid = patchGrid(images, patch);
  const places = patchCount(grid); // N
  const time = embedTime(p.at("t_embedder"), t, hidden); // [B, C]
  const vector = addCondition(p, time, given, config); // [B, C]

  const patches = patchEmbedding(p.at("x_embedder"), images, patch, hidden, { kind: "linear" }); // [B·frames, N, C]
  const overPlaces = positionTable(p, "pos_embed", grid, hidden); // [1, N, C]
  const overTime = positionTable(p, "temp_embed", [frames], hidden); // [1, frames, C]
  const [h] = runBlocks(
    [patches.add(overPlaces).rearrange("(b f) n c -> b (f n) c", { f: frames })],
    blockScopes(p, "blocks", config.depth),
    (scope, [tokens], index) => {
      if (index % 2 === 0) return [latteBlock(scope, tokens, vector, config, withinFrames(frames))];
      const timed = index === 1 ? tokens.add(spread(overTime, places)) : tokens;
      return [latteBlock(scope, timed, vector, config, overFrames(frames, places))];
    },
    options,
  ); // [B, frames·N, C]
  const outputs = learnedVariance ? 2 * channels : channels;
  // The original leaves a text out of its last layer.
  const last = (config.condition.kind === "text" ? time : vector).silu();
  const head = p.at("final_layer");
  const zeros = { gates: false, init: zero };
  const [{ norm }] = adaptiveBranches(head, [head], last, normStyle, zeros) as [Branch];
  const values = patchPixels(patch, 2) * outputs;
  const tokens = linear(head.at("linear"), norm(h), values, { init: zero }); // [B, frames·N, values]
  const byFrame = tokens.rearrange("b (f n) v -> (b f) n v", { f: frames });
  const drawn = unpatchify(byFrame, grid, patch, "channels-last"); // [B·frames, outputs, H, W]
  return drawn.rearrange("(b f) c h w -> b c f h w", { f: frames });
}

/** A fixed table of the places of a grid, [1, places, C]. */
function positionTable(p: Params, name: string, grid: Axes, hidden: number): Tensor {
  const table = sinCosTable(gridPositions(grid), hidden);
  return p.buffer(name, { ...table, shape: [1, ...table.shape] });
}

/** Repeats the row of each frame for all its places: [1, frames, C] → [1, frames·places, C]. */
function spread(rows: Tensor, places: number): Tensor {
  const [frames, width] = [rows.size(1), rows.size(2)];
  const repeated = rows.unsqueeze(2).expand([1, frames, places, width]);
  return repeated.reshape([1, frames * places, width]);
}

/** How the tokens [B, frames·N, C] of a clip are divided into the sequences in which a block mixes them, and back. */
interface Sequences {
  readonly divide: (tokens: Tensor) => Tensor;
  readonly join: (sequences: Tensor) => Tensor;
}

/** One sequence a frame: [B·frames, N, C]. */
const withinFrames = (frames: number): Sequences => ({
  divide: (tokens) => tokens.rearrange("b (f n) c -> (b f) n c", { f: frames }),
  join: (sequences) => sequences.rearrange("(b f) n c -> b (f n) c", { f: frames }),
});

/** One sequence a place: [B·N, frames, C]. */
const overFrames = (frames: number, places: number): Sequences => ({
  divide: (tokens) => tokens.rearrange("b (f n) c -> (b n) f c", { f: frames }),
  join: (sequences) => sequences.rearrange("(b n) f c -> b (f n) c", { n: places }),
});

/** One block of DiT: [B, frames·N, C] → [B, frames·N, C]. */
function latteBlock(
  p: Params,
  x: Tensor,
  vector: Tensor,
  { hidden, heads, mlpRatio }: LatteConfig,
  { divide, join }: Sequences,
): Tensor {
  const scopes = [p.at("norm1"), p.at("norm2")];
  const gates = { gates: true, init: zero };
  const branches = adaptiveBranches(p, scopes, vector.silu(), normStyle, gates);
  const [attention, forward] = branches as [Branch, Branch];
  const mixed = join(selfAttention(p.at("attn"), divide(attention.norm(x)), heads));
  const h = x.add(attention.gate(mixed));
  const inner = Math.trunc(hidden * mlpRatio);
  return h.add(forward.gate(mlp(p.at("mlp"), forward.norm(h), inner)));
}

/** Time plus the condition as a vector: [B, C]. */
function addCondition(
  p: Params,
  time: Tensor,
  { y, mask, drop }: Pick<LatteInputs, "y" | "mask" | "drop">,
  { condition, hidden }: LatteConfig,
): Tensor {
  if (condition.kind === "none") {
    if (!y) return time;
    throw new ShapeError("This Latte has no condition, but a `y` was given; leave it out.");
  }
  const given = givenCondition(y, condition, "Latte");
  if (condition.kind === "class") {
    if (drop && !condition.nullClass) {
      throw new ShapeError("This Latte has no null class, so no class can be dropped.");
    }
    const table = p.at("y_embedder").at("embedding_table");
    return time.add(embedLabels(table, given, hidden, condition, drop));
  }
  if (drop) {
    throw new ShapeError(
      "This Latte reads every token of its text, and has none that stands for no text; give the embedding of the empty text.",
    );
  }
  const kept = mask ? given.mul(mask.cast("float32").unsqueeze(-1)) : given;
  const flat = kept.reshape([kept.dim(0), condition.length * condition.width]);
  return time.add(linear(p.at("text_embedding_projection.1"), flat.silu(), hidden));
}

/**
 * Classifier-free guidance as in the original code; see `guidedHalves`. Only the first four channels are guided.
 */
export function latteWithGuidance(
  p: Params,
  { x, ...rest }: LatteInputs,
  config: LatteConfig,
  scale: Tensor,
): Tensor {
  return guidedHalves((twice) => latte(p, { ...rest, x: twice }, config), x, scale, 4);
}
