/**
 * Pictures and clips as sequences of patches, and back (Dosovitskiy et al., 2021). Sizes are lists of one number an axis, such
 * as [height, width] of a picture or [frames, height, width] of a clip, so that everything here holds for one to three axes.
 */
import { ShapeError } from "../engine/errors.ts";
import { perAxis } from "../engine/graph/ops.ts";
import type { Tensor } from "../engine/graph/tensor.ts";
import { linear } from "./linear.ts";
import { type Params, xavierUniform, zero } from "./params.ts";

/** One number for each axis of space and time. */
export type Axes = readonly number[];

/** One linear layer, or one without bias to a narrow width and one from there (Li & He, 2025). */
export type PatchEmbedding =
  | { readonly kind: "linear" }
  | { readonly kind: "bottleneck"; readonly width: number };

/** The order of the numbers in a token: the channels of a patch before its pixels, or behind them. */
export type PatchOrder = "channels-first" | "channels-last";

/** Sizes as they are written in messages: "256×256". */
export function formatAxes(axes: Axes): string {
  return axes.join("×");
}

/** Sizes of space and time of a tensor [B, C, ...axes]. */
export function axesOf(x: Tensor): Axes {
  return x.shape.slice(2).map((_, axis) => x.size(axis + 2));
}

/** The multiples of a patch nearest to the sizes, at least one patch along each axis. */
export function nearestMultiples(axes: Axes, patch: number | Axes): Axes {
  const unit = perAxis(patch, axes.length);
  return axes.map((size, i) => Math.max(1, Math.round(size / unit[i]!)) * unit[i]!);
}

/**
 * Number of patches along each axis of [B, C, ...axes].
 *
 * @param patch pixels of a patch along every axis, or one number for each
 * @throws ShapeError when the patches do not divide the sizes
 */
export function patchGrid(x: Tensor, patch: number | Axes): Axes {
  const axes = axesOf(x);
  const unit = perAxis(patch, axes.length);
  const grid = axes.map((size, i) => size / unit[i]!);
  if (unit.length === axes.length && grid.every(Number.isInteger)) return grid;
  if (unit.length !== axes.length) {
    throw new ShapeError(
      `A patch of ${formatAxes(unit)} has ${unit.length} axes, but the input of ${formatAxes(axes)} has ${axes.length}; give one size for each axis.`,
    );
  }
  const multiple = new Set(unit).size === 1 ? unit[0] : formatAxes(unit);
  throw new ShapeError(
    `An image of ${formatAxes(axes)} cannot be cut into patches of ${formatAxes(unit)}; use a multiple of ${multiple}, such as ${formatAxes(nearestMultiples(axes, unit))}.`,
  );
}

/** Number of patches in a grid. */
export function patchCount(grid: Axes): number {
  return grid.reduce((count, size) => count * size, 1);
}

/** Number of pixels of a patch over some axes. */
export function patchPixels(patch: number | Axes, axes: number): number {
  return patchCount(perAxis(patch, axes));
}

/** [B, C, ...axes] → [B, N, C·pixels of a patch], patches in row-major order. */
export function patchify(x: Tensor, patch: number | Axes, order: PatchOrder): Tensor {
  const { image, tokens } = patterns(patchGrid(x, patch).length, order);
  return x.rearrange(`${image} -> ${tokens}`, pixelSizes(perAxis(patch, x.rank - 2)));
}

/**
 * The inverse of `patchify`: [B, N, C·pixels of a patch] → [B, C, ...grid · patch].
 *
 * @param grid number of patches along each axis, as `patchGrid` gives them
 */
export function unpatchify(
  tokens: Tensor,
  grid: Axes,
  patch: number | Axes,
  order: PatchOrder,
): Tensor {
  const { image, tokens: flat } = patterns(grid.length, order);
  const places = Object.fromEntries(grid.map((size, i) => [`n${i}`, size]));
  return tokens.rearrange(`${flat} -> ${image}`, {
    ...places,
    ...pixelSizes(perAxis(patch, grid.length)),
  });
}

/** Both sides of the einops pattern; axis i has n_i patches of p_i pixels. */
function patterns(axes: number, order: PatchOrder) {
  const numbers = Array.from({ length: axes }, (_, i) => i);
  const places = numbers.map((i) => `n${i}`).join(" ");
  const pixels = numbers.map((i) => `p${i}`).join(" ");
  const patch = order === "channels-first" ? `c ${pixels}` : `${pixels} c`;
  return {
    image: `b c ${numbers.map((i) => `(n${i} p${i})`).join(" ")}`,
    tokens: `b (${places}) (${patch})`,
  };
}

function pixelSizes(patch: Axes): Record<string, number> {
  return Object.fromEntries(patch.map((size, i) => [`p${i}`, size]));
}

/**
 * One linear layer over each patch: [B, C, ...axes] → [B, N, outputs].
 *
 * The weights have the layout of the convolution with stride `patch` that this layer is, `weight` [outputs, C, ...patch], but it
 * is computed as a matrix product, which is faster, forward and backward.
 *
 * @param patch pixels of a patch along every axis, or one number for each
 */
export function patchProjection(
  p: Params,
  x: Tensor,
  patch: number | Axes,
  outputs: number,
  { bias = true }: { readonly bias?: boolean } = {},
): Tensor {
  const patches = patchify(x, patch, "channels-first"); // [B, N, C·pixels]
  const inputs = patches.size(-1);
  const shape = [outputs, x.size(1), ...perAxis(patch, x.rank - 2)];
  const weight = p.param("weight", shape, xavierUniform([outputs, inputs]));
  const kernel = weight.reshape([outputs, inputs]);
  return patches.linear(kernel, bias ? p.param("bias", [outputs], zero) : undefined);
}

/**
 * Embeds each patch as a token: [B, C, ...axes] → [B, N, hidden]. Parameters have timm's name `proj`, or JiT's `proj1` and `proj2`.
 *
 * @param patch pixels of a patch along every axis, or one number for each
 * @example const tokens = patchEmbedding(p.at("x_embedder"), clip, [1, 2, 2], 384, { kind: "linear" });
 */
export function patchEmbedding(
  p: Params,
  x: Tensor,
  patch: number | Axes,
  hidden: number,
  embedding: PatchEmbedding,
): Tensor {
  if (embedding.kind === "linear") return patchProjection(p.at("proj"), x, patch, hidden);
  const narrow = patchProjection(p.at("proj1"), x, patch, embedding.width, { bias: false }); // [B, N, width]
  return linear(p.at("proj2"), narrow, hidden); // [B, N, hidden]
}
