/**
 * FLUX.1 (Black Forest Labs, 2024), a rectified flow transformer: 19 blocks with separate weights for the tokens of T5 and those of
 * the image, then 38 parallel blocks over both. Time, the pooled text of CLIP and, in the "dev" model, the guidance scale
 * modulate every block.
 *
 * Weights have the names of https://github.com/black-forest-labs/flux.
 */
import { ShapeError } from "../../engine/errors.ts";
import { concat } from "../../engine/graph/functional.ts";
import type { Tensor } from "../../engine/graph/tensor.ts";
import { blockScopes, runBlocks } from "../../nn/blocks.ts";
import { linear } from "../../nn/linear.ts";
import type { Params } from "../../nn/params.ts";
import { type Axes, patchCount, patchGrid, patchify, unpatchify } from "../../nn/patches.ts";
import { gridPlaces, rotaryTableOf } from "../../nn/positions.ts";
import {
  doubleStreamBlock,
  embedScales,
  singleStreamBlock,
  streamBranches,
  streamLayers as layers,
  streamOutput,
  type StreamStyle,
  type TextAndImageStreams,
} from "../../nn/stream-blocks.ts";
import { checkTimes, embedVector } from "../../nn/timestep-embedding.ts";
import type { FluxConfig } from "./config.ts";

export interface FluxInputs {
  /** Latents, [B, channels, height, width]. */
  readonly x: Tensor;
  /** Times [B] in [0, 1000], float32. */
  readonly t: Tensor;
  /** Tokens of the text, [B, length, width]; all are attended to, even padding. */
  readonly context: Tensor;
  /** The pooled text, [B, pooled]. */
  readonly pooled: Tensor;
  /** Guidance scales [B], for the model that was distilled with guidance. */
  readonly guidance?: Tensor | undefined;
  /** Latents of reference pictures, [B, channels, h, w] each, as FLUX.1 Kontext reads them. */
  readonly references?: readonly Tensor[] | undefined;
}

export interface FluxOptions {
  /** Computes each block again in the backward pass instead of keeping its activations. */
  readonly recompute?: boolean | undefined;
}

/**
 * Predicts the velocity, noise − image: [B, channels, H, W] → the same shape.
 *
 * @throws ShapeError if the patch does not divide an image, or the guidance is missing or superfluous
 */
export function flux(
  p: Params,
  inputs: FluxInputs,
  config: FluxConfig,
  options: FluxOptions = {},
): Tensor {
  const grid = patchGrid(inputs.x, config.patch);
  const tokens = fluxTokens(p, inputs, config, options).slice(1, 0, patchCount(grid));
  return unpatchify(tokens, grid, config.patch, "channels-first");
}

/** The prediction of every token of the image and behind it of the references, [B, N + …, channels · patch²]. */
export function fluxTokens(
  p: Params,
  { x, t, context, pooled, guidance, references = [] }: FluxInputs,
  config: FluxConfig,
  { recompute }: FluxOptions = {},
): Tensor {
  const { hidden, patch, depth, singleDepth } = config;
  checkTimes(t, undefined, "FLUX.1");
  checkGuidance(guidance, config);
  const pictures = [x, ...references];
  const tokens = pictures.map((each) => patchify(each, patch, "channels-first"));
  const style = styleOf(
    context.size(1),
    pictures.map((each) => patchGrid(each, patch)),
    config,
  );
  const scales = embedScales(p, { t, guidance }, hidden, style);
  const vector = scales.add(embedVector(p.at("vector_in"), layers, pooled, hidden)); // [B, C]
  const active = vector.silu();
  const modulated = (scope: Params, parts: number) =>
    streamBranches(scope, linear(scope.at("lin"), active, parts * hidden).split(parts, -1));

  const first: TextAndImageStreams = [
    linear(p.at("txt_in"), context, hidden), // [B, L, C]
    linear(p.at("img_in"), concat(tokens, 1), hidden), // [B, N, C]
  ];
  const both = runBlocks(
    first,
    blockScopes(p, "double_blocks", depth),
    (scope, streams) => {
      const branches = {
        image: modulated(scope.at("img_mod"), 6),
        text: modulated(scope.at("txt_mod"), 6),
      };
      return doubleStreamBlock(scope, streams, branches, style);
    },
    { recompute, outputNames: ["text.output", "image.output"] },
  );
  const [all] = runBlocks(
    [concat(both, 1)] as [Tensor],
    blockScopes(p, "single_blocks", singleDepth),
    (scope, stream) =>
      singleStreamBlock(scope, stream, modulated(scope.at("modulation"), 3), style),
    { recompute },
  );
  const image = all.slice(1, context.size(1)); // [B, N, C]
  return streamOutput(p.at("final_layer"), image, vector, tokens[0]!.size(-1), style);
}

function styleOf(text: number, grids: readonly Axes[], config: FluxConfig): StreamStyle {
  const { heads, hidden, mlpRatio, qkvBias, axes, theta } = config;
  return {
    heads,
    rotary: rotaryTableOf(
      [...textPlaces(text), ...imagePlaces(grids)],
      axes.map((channels) => channels / 2),
      { theta },
    ),
    inner: Math.trunc(hidden * mlpRatio),
    feedForward: "gelu",
    bias: true,
    qkvBias,
  };
}

/** The places of a text, which is not rotated. */
export function textPlaces(length: number): readonly (readonly number[])[] {
  return Array.from({ length }, () => [0, 0, 0]);
}

/** The places of a picture, (0, row, column), and of the references behind it, (i, row, column) for the i-th from 1. */
export function imagePlaces(grids: readonly Axes[]): readonly (readonly number[])[] {
  return grids.flatMap((grid, i) => gridPlaces(grid).map((place) => [i, ...place]));
}

function checkGuidance(guidance: Tensor | undefined, config: FluxConfig): void {
  if (config.guidance === (guidance !== undefined)) return;
  throw new ShapeError(
    config.guidance
      ? "This FLUX.1 was distilled with guidance; give its scale as `guidance`."
      : "This FLUX.1 takes no guidance scale; leave `guidance` out.",
  );
}
