/**
 * FLUX.1 (Black Forest Labs, 2024), a rectified flow transformer: 19 blocks with separate weights for the tokens of T5 and those of
 * the image, then 38 parallel blocks over both. Time, the pooled text of CLIP and, in the "dev" model, the guidance scale
 * modulate every block.
 *
 * Weights have the names of https://github.com/black-forest-labs/flux.
 */
import { concat } from "../../engine/graph/functional.ts";
import type { Tensor } from "../../engine/graph/tensor.ts";
import { linear } from "../../nn/linear.ts";
import type { Params } from "../../nn/params.ts";
import { type Axes, patchCount, patchGrid, patchify, unpatchify } from "../../nn/patches.ts";
import { gridPlaces } from "../../nn/positions.ts";
import {
  checkGuidance,
  embedScales,
  runStreams,
  streamBranches,
  streamLayers as layers,
  type StreamModulation,
  type StreamOptions,
  streamOutput,
  streamSizesOf,
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

/**
 * Predicts the velocity, noise − image: [B, channels, H, W] → the same shape.
 *
 * @throws ShapeError if the patch does not divide an image, or the guidance is missing or superfluous
 */
export function flux(
  p: Params,
  inputs: FluxInputs,
  config: FluxConfig,
  options: StreamOptions = {},
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
  options: StreamOptions = {},
): Tensor {
  const { hidden, patch } = config;
  checkTimes(t, undefined, "FLUX.1");
  checkGuidance(guidance, config.guidance, "FLUX.1");
  const pictures = [x, ...references];
  const tokens = pictures.map((each) => patchify(each, patch, "channels-first"));
  const grids = pictures.map((each) => patchGrid(each, patch));
  const places = [...textPlaces(context.size(1)), ...imagePlaces(grids)];
  const { qkvBias } = config;
  const sizes = streamSizesOf(places, config);
  const style: StreamStyle = { ...sizes, feedForward: "gelu", bias: true, qkvBias };
  const scales = embedScales(p, { t, guidance }, hidden, style);
  const vector = scales.add(embedVector(p.at("vector_in"), layers, pooled, hidden)); // [B, C]
  const active = vector.silu();
  const modulated = (scope: Params, parts: number) =>
    streamBranches(scope, linear(scope.at("lin"), active, parts * hidden).split(parts, -1));

  const first: TextAndImageStreams = [
    linear(p.at("txt_in"), context, hidden), // [B, L, C]
    linear(p.at("img_in"), concat(tokens, 1), hidden), // [B, N, C]
  ];
  const modulation: StreamModulation = {
    double: (scope) => ({
      image: modulated(scope.at("img_mod"), 6),
      text: modulated(scope.at("txt_mod"), 6),
    }),
    single: (scope) => modulated(scope.at("modulation"), 3),
  };
  const image = runStreams(p, first, config, modulation, style, options); // [B, N, C]
  return streamOutput(p.at("final_layer"), image, vector, tokens[0]!.size(-1), style);
}

/** The places of a text, which is not rotated. */
export function textPlaces(length: number): readonly (readonly number[])[] {
  return Array.from({ length }, () => [0, 0, 0]);
}

/** The places of a picture, (0, row, column), and of the references behind it, (i, row, column) for the i-th from 1. */
export function imagePlaces(grids: readonly Axes[]): readonly (readonly number[])[] {
  return grids.flatMap((grid, i) => gridPlaces(grid).map((place) => [i, ...place]));
}
