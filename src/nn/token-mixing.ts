/**
 * Attention whose cost grows more slowly than the square of the number of patches: linear (Katharopoulos et al., 2020; Sana, Xie et
 * al., 2024), in windows that are shifted in every other block (Swin, Liu et al., 2021), in windows of tiles around each tile (STA, Zhang et
 * al., 2025), and with fewer keys and values (PixArt-Σ, Chen et al., 2024).
 *
 * Tokens that are no patches, such as those of a text, attend to all tokens, and every patch attends to them.
 */
import { ShapeError } from "../engine/errors.ts";
import { attention, concat, constant, full } from "../engine/graph/functional.ts";
import { formatShape, product } from "../engine/graph/shape.ts";
import type { Tensor } from "../engine/graph/tensor.ts";
import {
  apart,
  fromWindows,
  fullAttention,
  type MixingOptions,
  type PatchPlace,
  repeated,
  requireDivisors,
  scoresOf,
  type Three,
  together,
  toWindows,
} from "./mixing-parts.ts";
import { norm } from "./norm.ts";
import { type Params, zero } from "./params.ts";
import { type Axes, patchCount } from "./patches.ts";
import { mixInTiles } from "./tile-mixing.ts";

/** The choice of attention in a config; see `mixingSchema`. */
export type TokenMixing =
  | { readonly kind: "full" }
  | { readonly kind: "linear" }
  /** `size` patches along each axis of a window; a shorter axis is one window wide. */
  | { readonly kind: "window"; readonly size: number }
  /** `size` patches along each axis of a tile, which attends to `window` tiles along each axis, an odd number. */
  | { readonly kind: "tile"; readonly size: number; readonly window: number }
  /** The keys and values of `factor` × `factor` patches become one. */
  | { readonly kind: "compressed"; readonly factor: number };

/** The tokens that a mixing is applied to. */
export interface MixedTokens extends PatchPlace {
  readonly mixing: Exclude<TokenMixing, { kind: "full" }>;
  /** The index of the block, from 0: windows are shifted in odd ones. */
  readonly block: number;
}

/** The tokens of a block for a config's choice; undefined for full attention, which needs to know nothing of them. */
export function mixedTokens(
  mixing: TokenMixing | undefined,
  tokens: Omit<MixedTokens, "mixing">,
): MixedTokens | undefined {
  return mixing === undefined || mixing.kind === "full" ? undefined : { ...tokens, mixing };
}

/**
 * Mixes tokens with queries, keys and values [B, N, C], heads side by side: [B, N, C]. "compressed" has weights with PixArt-Σ's names
 * `sr` and `norm`.
 *
 * @throws ShapeError if the bias differs between queries, or the grid has another number of tokens
 */
export function mixTokensBy(
  p: Params,
  parts: Three,
  options: MixingOptions,
  tokens: MixedTokens,
): Tensor {
  const { bias } = options;
  if (bias && (bias.rank !== 4 || bias.shape[1] !== 1 || bias.shape[2] !== 1)) {
    throw new ShapeError(
      `Attention of kind "${tokens.mixing.kind}" takes a bias of keys [B, 1, 1, M], not ${formatShape(bias.shape)}.`,
    );
  }
  const { mixing } = tokens;
  if (mixing.kind === "linear") return mixLinearly(parts, options);
  if (mixing.kind === "window") return mixInWindows(parts, options, { ...tokens, mixing });
  if (mixing.kind === "tile") return mixInTiles(parts, options, { ...tokens, ...mixing });
  return mixCompressed(p, parts, options, { ...tokens, mixing });
}

/**
 * relu(q)·(relu(k)ᵀ·v), divided by relu(q)·Σ relu(k), with heads [B, heads, N, D]. Keys and values are summed over the tokens before a
 * query looks at them, so the cost is O(N).
 */
export function linearMixing([q, k, v]: Three): Tensor {
  const [queries, keys] = [q.relu(), k.relu()];
  const sums = keys.swapAxes(2, 3).matmul(v); // [B, heads, D, D]
  const weights = queries.mul(keys.sum(2, true)).sum(-1, true); // [B, heads, N, 1]
  return queries.matmul(sums).div(weights.add(1e-15)); // [B, heads, N, D]
}

function mixLinearly([q, k, v]: Three, { heads, bias }: MixingOptions): Tensor {
  const byHead = (x: Tensor) =>
    x.reshape([x.dim(0), x.dim(1), heads, x.size(2) / heads]).swapAxes(1, 2);
  // A number that is added to the score before a softmax multiplies the weight by its exponential.
  const keys = bias ? byHead(k).relu().mul(bias.exp().swapAxes(2, 3)) : byHead(k);
  return linearMixing([byHead(q), keys, byHead(v)])
    .swapAxes(1, 2)
    .reshape(q.shape);
}

function mixInWindows(
  parts: Three,
  options: MixingOptions,
  tokens: MixedTokens & { readonly mixing: { readonly size: number } },
): Tensor {
  const { grid, block, mixing } = tokens;
  const sides = grid.map((length) => Math.min(length, mixing.size));
  requireDivisors(grid, sides, `windows of ${sides.join("×")}`);
  // A window that spans its axis is not shifted along it.
  const shifts = sides.map((side, i) => (block % 2 === 1 && side < grid[i]! ? side >> 1 : 0));
  const windows = patchCount(grid) / patchCount(sides);
  const [q, k, v] = parts.map((part) => {
    const { patches, others } = apart(part, tokens);
    return { own: toWindows(rolled(patches, grid, shifts), grid, sides), others };
  }) as [Split, Split, Split];
  const shared = ({ own, others }: Split) =>
    others ? concat([own, repeated(others, windows)], 1) : own;
  const bias = windowBias(parts[0], options.bias, { ...tokens, sides, shifts });
  const attended = attention(q.own, shared(k), shared(v), {
    ...scoresOf(options),
    ...(bias && { bias }),
  }); // [B·windows, side², C]
  const patches = rolled(
    fromWindows(attended, grid, sides),
    grid,
    shifts.map((shift, i) => (shift === 0 ? 0 : grid[i]! - shift)),
  );
  return together(patches, q.others && fullAttention(q.others, parts, options), tokens);
}

interface Split {
  /** The patches by window, [B·windows, side², C]. */
  readonly own: Tensor;
  readonly others: Tensor | undefined;
}

/**
 * Added to the scores of a window's own patches and of the other tokens: −10⁴ for patches that a shift has brought together from
 * opposite borders, and for what the given bias masks. [B·windows, 1, side², side² + M], or undefined if there is nothing to add.
 */
function windowBias(
  x: Tensor,
  given: Tensor | undefined,
  { grid, sides, shifts, ...tokens }: MixedTokens & { readonly sides: Axes; readonly shifts: Axes },
): Tensor | undefined {
  const shifted = shifts.some((shift) => shift > 0);
  const others = x.size(1) - patchCount(grid);
  const masked = given && others > 0;
  if (!shifted && !masked) return undefined;
  const [windows, own] = [patchCount(grid) / patchCount(sides), patchCount(sides)];
  const rows = x.dim(0);
  const ofPatches = shifted
    ? constant(borderMask(grid, sides, shifts))
    : full([1, windows, 1, own, own], 0);
  const parts = [ofPatches.expand([rows, windows, 1, own, own])];
  if (others > 0) {
    const bias = masked
      ? apart(given.swapAxes(1, 3).reshape([rows, x.size(1), 1]), { ...tokens, grid }).others!
      : full([rows, others, 1], 0);
    parts.push(bias.reshape([rows, 1, 1, 1, others]).expand([rows, windows, 1, own, others]));
  }
  return concat(parts, -1).reshape([product([rows, windows])!, 1, own, own + others]);
}

/** [1, windows, 1, side², side²]: −10⁴ between patches of a window that are not neighbours in the picture. */
function borderMask(grid: Axes, sides: Axes, shifts: Axes) {
  const counts = grid.map((length, i) => length / sides[i]!);
  const [windows, own] = [patchCount(counts), patchCount(sides)];
  const data = new Float32Array(windows * own * own);
  const insides = placesOf(sides);
  for (const [w, window] of placesOf(counts).entries()) {
    // Along an axis, the patches of the last window that come from the other border.
    const groups = insides.map((inside) =>
      inside.map((at, i) => (window[i]! * sides[i]! + at >= grid[i]! - shifts[i]! ? 1 : 0)).join(),
    );
    for (const [row, group] of groups.entries()) {
      for (let column = 0; column < own; column++) {
        if (groups[column] !== group) data[(w * own + row) * own + column] = -10_000;
      }
    }
  }
  return { dtype: "float32", shape: [1, windows, 1, own, own], data } as const;
}

/** All places of a grid in row-major order. */
function placesOf(grid: Axes): readonly (readonly number[])[] {
  return grid.reduce<number[][]>(
    (rows, length) => rows.flatMap((row) => Array.from({ length }, (_, at) => [...row, at])),
    [[]],
  );
}

/** Moves patches [B, N, C] to lower places along each axis of the grid; those at the border come in at the other one. */
function rolled(x: Tensor, grid: Axes, shifts: Axes): Tensor {
  if (shifts.every((shift) => shift === 0)) return x;
  let y = x.reshape([x.dim(0), ...grid, x.dim(2)]);
  for (const [i, shift] of shifts.entries()) {
    if (shift > 0) y = concat([y.slice(i + 1, shift), y.slice(i + 1, 0, shift)], i + 1);
  }
  return y.reshape(x.shape);
}

function mixCompressed(
  p: Params,
  [q, k, v]: Three,
  options: MixingOptions,
  tokens: MixedTokens & { readonly mixing: { readonly factor: number } },
): Tensor {
  const { grid, mixing } = tokens;
  const places = grid.slice(-2);
  const joined = places.map(() => mixing.factor);
  requireDivisors(places, joined, `cells of ${joined.join("×")}`);
  const fewer = (x: Tensor) => {
    const { patches, others } = apart(x, tokens);
    const less = compressed(p, patches, grid, mixing.factor);
    return others ? concat([less, others], 1) : less;
  };
  const { bias } = options;
  const whole = bias?.swapAxes(1, 3).reshape([bias.dim(0), bias.dim(3), 1]);
  const others = whole && apart(whole, tokens).others;
  const kept = patchCount(grid) / mixing.factor ** 2;
  const masked =
    others &&
    concat([full([others.dim(0), kept, 1], 0), others], 1).reshape([
      others.dim(0),
      1,
      1,
      kept + others.size(1),
    ]);
  return attention(q, fewer(k), fewer(v), {
    ...scoresOf(options),
    ...(masked && { bias: masked }),
  });
}

/** A depthwise convolution over rows and columns, the mean at first, and a norm: [B, N, C] → [B, N / factor², C]. */
function compressed(p: Params, x: Tensor, grid: Axes, factor: number): Tensor {
  const width = x.size(2);
  const [rows, columns] = grid.slice(-2) as [number, number];
  const above = patchCount(grid.slice(0, -2));
  const scope = p.at("sr");
  const init = { kind: "constant", value: 1 / factor ** 2 } as const;
  const weight = scope
    .param("weight", [width, 1, factor, factor], init)
    .reshape([width, factor, factor])
    .transpose([1, 2, 0])
    .reshape([factor, 1, factor, width]);
  const cells = [(above * rows) / factor, factor, columns / factor, factor];
  const sums = x
    .reshape([x.dim(0), ...cells, width])
    .mul(weight)
    .sum([2, 4])
    .reshape([x.dim(0), (above * rows * columns) / factor ** 2, width])
    .add(scope.param("bias", [width], zero));
  return norm(p.at("norm"), sums, { kind: "layer", affine: true, epsilon: 1e-5 });
}
