/** Helpers of the attention kinds in `token-mixing.ts`: they split patches from other tokens and cut patches into windows. */
import { ShapeError } from "../engine/errors.ts";
import { attention, concat } from "../engine/graph/functional.ts";
import { product, quotient } from "../engine/graph/shape.ts";
import type { Tensor } from "../engine/graph/tensor.ts";
import { type Axes, patchCount } from "./patches.ts";

/** Where the patches are among the tokens. */
export interface PatchPlace {
  /** Patches along each axis, which follow one another in row-major order. */
  readonly grid: Axes;
  /** The number of tokens before the patches. */
  readonly before: number;
}

export interface MixingOptions {
  readonly heads: number;
  /** Added to the scores of keys, [B, 1, 1, M]. */
  readonly bias?: Tensor | undefined;
  readonly scale?: number | undefined;
}

export type Three = readonly [q: Tensor, k: Tensor, v: Tensor];

/** @throws ShapeError if the patches cannot be cut into equal parts */
export function requireDivisors(grid: Axes, sides: Axes, parts: string): void {
  if (grid.every((length, i) => Number.isInteger(length / sides[i]!))) return;
  throw new ShapeError(
    `The ${grid.join("×")} patches of this picture cannot be cut into ${parts} for attention; give a size whose patches are a multiple of that.`,
  );
}

/** [B, N, C] → [B·windows, side², C]. */
export function toWindows(x: Tensor, grid: Axes, sides: Axes): Tensor {
  const axes = grid.length;
  const split = grid.flatMap((length, i) => [length / sides[i]!, sides[i]!]);
  const windows = product([x.dim(0), patchCount(grid) / patchCount(sides)])!;
  const order = Array.from({ length: axes }, (_, i) => i);
  return x
    .reshape([x.dim(0), ...split, x.dim(2)])
    .transpose([0, ...order.map((i) => 2 * i + 1), ...order.map((i) => 2 * i + 2), 2 * axes + 1])
    .reshape([windows, patchCount(sides), x.dim(2)]);
}

/** The inverse of `toWindows`. */
export function fromWindows(x: Tensor, grid: Axes, sides: Axes): Tensor {
  const axes = grid.length;
  const counts = grid.map((length, i) => length / sides[i]!);
  const rows = quotient(x.dim(0), patchCount(counts))!;
  const order = Array.from({ length: axes }, (_, i) => [i + 1, axes + i + 1]).flat();
  return x
    .reshape([rows, ...counts, ...sides, x.dim(2)])
    .transpose([0, ...order, 2 * axes + 1])
    .reshape([rows, patchCount(grid), x.dim(2)]);
}

/** The patches of all tokens [B, N, C], and the tokens before and after them, if there are any. */
export function apart(
  x: Tensor,
  { grid, before }: PatchPlace,
): { readonly patches: Tensor; readonly others: Tensor | undefined } {
  const [all, count] = [x.size(1), patchCount(grid)];
  if (before + count > all) {
    throw new ShapeError(
      `${all} tokens cannot hold ${before} and then the ${count} patches of a grid of ${grid.join("×")}.`,
    );
  }
  if (all === count) return { patches: x, others: undefined };
  const others = [
    ...(before > 0 ? [x.slice(1, 0, before)] : []),
    ...(before + count < all ? [x.slice(1, before + count)] : []),
  ];
  return { patches: x.slice(1, before, before + count), others: concat(others, 1) };
}

/** The inverse of `apart`. */
export function together(
  patches: Tensor,
  others: Tensor | undefined,
  { before }: Pick<PatchPlace, "before">,
): Tensor {
  if (!others) return patches;
  const parts = [
    ...(before > 0 ? [others.slice(1, 0, before)] : []),
    patches,
    ...(before < others.size(1) ? [others.slice(1, before)] : []),
  ];
  return concat(parts, 1);
}

export function fullAttention(
  queries: Tensor,
  [, k, v]: Three,
  { bias, ...options }: MixingOptions,
): Tensor {
  return attention(queries, k, v, { ...scoresOf(options), ...(bias && { bias }) });
}

export function scoresOf({ heads, scale }: Omit<MixingOptions, "bias">) {
  return { heads, ...(scale !== undefined && { scale }) };
}

/** One copy of the rows for each window: [B, M, C] → [B·windows, M, C]. */
export function repeated(x: Tensor, windows: number): Tensor {
  const copies = x.unsqueeze(1).expand([x.dim(0), windows, x.dim(1), x.dim(2)]);
  return copies.reshape([product([x.dim(0), windows])!, x.dim(1), x.dim(2)]);
}
