/**
 * The parts of a transformer with "adaLN-single" (Chen et al., 2023, "PixArt-α", section 2.2): one projection of the time modulates all
 * blocks, and each block adds a table of its own to it. The names are diffusers'.
 */
import { concat, constant } from "../engine/graph/functional.ts";
import type { Tensor } from "../engine/graph/tensor.ts";
import { linear } from "./linear.ts";
import { modulate } from "./modulation.ts";
import { normal, type Params, zero } from "./params.ts";
import { type Axes, unpatchify } from "./patches.ts";
import { sinCosTable } from "./positions.ts";
import { embedVector, timestepEmbedding } from "./timestep-embedding.ts";

const layers = ["linear_1", "linear_2"] as const;

/** Embeds numbers by 256 sinusoids and two linear layers: [...] → [..., width]. */
export function embedNumber(p: Params, x: Tensor, width: number): Tensor {
  return embedVector(p, layers, timestepEmbedding(x, 256), width);
}

/** Projects the tokens of a text to the width of the blocks: [B, L, D] → [B, L, width]. */
export function projectCaption(p: Params, text: Tensor, width: number): Tensor {
  return embedVector(p, layers, text, width, { activate: (x) => x.gelu("tanh") });
}

/** Adds a table [parts, C] to the modulation from the time, [B, parts·C], and splits it into parts × [B, C]. */
export function tableModulation(p: Params, time: Tensor, parts: number): readonly Tensor[] {
  const width = time.size(-1) / parts;
  const table = p.param("scale_shift_table", [parts, width], normal(1 / Math.sqrt(width)));
  return time.add(table.reshape([parts * width])).split(parts, -1);
}

/**
 * The last layer: tokens [B, N, C] → [B, outputs, h, w].
 *
 * @param time the embedding of the time [B, C], which is both the shift and the scale but for a table
 */
export function modulatedOutput(
  p: Params,
  tokens: Tensor,
  time: Tensor,
  {
    grid,
    patch,
    outputs,
  }: { readonly grid: Axes; readonly patch: number; readonly outputs: number },
): Tensor {
  const [shift, scale] = tableModulation(p, concat([time, time], -1), 2) as [Tensor, Tensor];
  const modulated = modulate(tokens.layerNorm({ epsilon: 1e-6 }), shift, scale);
  const patches = linear(p.at("proj_out"), modulated, patch ** 2 * outputs, { init: zero });
  return unpatchify(patches, grid, patch, "channels-last");
}

/**
 * Sine and cosine positions that span the same range for every size of the picture: [N, width].
 *
 * @param span patches along a side of the size that the range was made for
 * @param interpolation the divisor of the positions
 */
export function scaledPositions(
  grid: Axes,
  span: number,
  interpolation: number,
  width: number,
): Tensor {
  const whole = Math.floor(span);
  // Each step is rounded, as in the original, which computes in float32.
  const along = (count: number) =>
    Float32Array.from({ length: count }, (_, i) =>
      Math.fround(Math.fround(i / Math.fround(count / whole)) / Math.fround(interpolation)),
    );
  return constant(sinCosTable(grid.map(along), width));
}
