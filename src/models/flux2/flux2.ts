/**
 * FLUX.2 (Black Forest Labs, 2025), the network of "dev" and "klein": like FLUX.1, but all blocks of a kind share one modulation,
 * feed-forward parts are SwiGLU, and no linear layer has a bias. There is no pooled text, and the tokens of the text have
 * positions. Reference pictures, for editing, are further tokens behind those of the picture.
 *
 * Weights have the names of https://github.com/black-forest-labs/flux2.
 */
import { concat } from "../../engine/graph/functional.ts";
import type { Tensor } from "../../engine/graph/tensor.ts";
import { linear } from "../../nn/linear.ts";
import type { Params } from "../../nn/params.ts";
import { type Axes, axesOf, patchCount, patchify, unpatchify } from "../../nn/patches.ts";
import { gridPlaces } from "../../nn/positions.ts";
import {
  checkGuidance,
  embedScales,
  runStreams,
  streamBranches,
  type StreamOptions,
  streamOutput,
  streamSizesOf,
  type StreamStyle,
  type TextAndImageStreams,
} from "../../nn/stream-blocks.ts";
import { checkTimes } from "../../nn/timestep-embedding.ts";
import type { Flux2Config } from "./config.ts";

export interface Flux2Inputs {
  /** Packed latents, [B, channels, height, width]. */
  readonly x: Tensor;
  /** Times [B] in [0, 1000], float32. */
  readonly t: Tensor;
  /** Tokens of the text, [B, length, width]; all are attended to, even padding. */
  readonly y: Tensor;
  /** Guidance scales [B], for the model that was distilled with guidance. */
  readonly guidance?: Tensor | undefined;
  /** Packed latents of reference pictures, [B, channels, h, w] each. */
  readonly references?: readonly Tensor[] | undefined;
}

/**
 * Predicts the velocity, noise − image: [B, channels, H, W] → the same shape.
 *
 * @throws ShapeError if the guidance is missing or superfluous
 */
export function flux2(
  p: Params,
  inputs: Flux2Inputs,
  config: Flux2Config,
  options: StreamOptions = {},
): Tensor {
  const grid = axesOf(inputs.x);
  const tokens = flux2Tokens(p, inputs, config, options).slice(1, 0, patchCount(grid));
  return unpatchify(tokens, grid, 1, "channels-first");
}

/** The prediction of every token of the image and behind it of the references, [B, N + …, channels]. */
export function flux2Tokens(
  p: Params,
  { x, t, y, guidance, references = [] }: Flux2Inputs,
  config: Flux2Config,
  options: StreamOptions = {},
): Tensor {
  const { hidden, channels } = config;
  checkTimes(t, undefined, "FLUX.2");
  checkGuidance(guidance, config.guidance, "FLUX.2");
  const pictures = [x, ...references];
  const places = [...textPlaces(y.size(1)), ...imagePlaces(pictures.map(axesOf))];
  const sizes = streamSizesOf(places, config);
  const style: StreamStyle = { ...sizes, feedForward: "swiglu", bias: false, qkvBias: false };
  const vector = embedScales(p, { t, guidance }, hidden, style); // [B, C]
  const active = vector.silu();
  const modulated = (name: string, parts: number) => {
    const scope = p.at(`${name}.lin`);
    return streamBranches(scope, linear(scope, active, parts * hidden, style).split(parts, -1));
  };

  const tokens = pictures.map((each) => patchify(each, 1, "channels-first"));
  const first: TextAndImageStreams = [
    linear(p.at("txt_in"), y, hidden, style), // [B, L, C]
    linear(p.at("img_in"), concat(tokens, 1), hidden, style), // [B, N, C]
  ];
  const double = {
    image: modulated("double_stream_modulation_img", 6),
    text: modulated("double_stream_modulation_txt", 6),
  };
  const single = modulated("single_stream_modulation", 3);
  const modulation = { double: () => double, single: () => single };
  const image = runStreams(p, first, config, modulation, style, options); // [B, N, C]
  return streamOutput(p.at("final_layer"), image, vector, channels, style);
}

/** The places of a text, (0, 0, 0, index). */
export function textPlaces(length: number): readonly (readonly number[])[] {
  return Array.from({ length }, (_, i) => [0, 0, 0, i]);
}

/** The places of a picture, (0, row, column, 0), and of the references behind it, (10·i, row, column, 0) for the i-th from 1. */
export function imagePlaces(grids: readonly Axes[]): readonly (readonly number[])[] {
  return grids.flatMap((grid, i) => gridPlaces(grid).map((place) => [10 * i, ...place, 0]));
}
