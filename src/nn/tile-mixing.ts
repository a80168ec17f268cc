/**
 * Sliding tile attention ("Fast Video Generation with Sliding Tile Attention", Zhang et al., 2025): patches are cut into tiles, and those
 * of a tile attend to a window of tiles around it. At the border the window stays inside, so each patch attends to as many.
 */
import { attention, concat, constant, full } from "../engine/graph/functional.ts";
import { product } from "../engine/graph/shape.ts";
import type { Tensor } from "../engine/graph/tensor.ts";
import type { MixingOptions, PatchPlace, Three } from "./mixing-parts.ts";
import {
  apart,
  fromWindows,
  fullAttention,
  repeated,
  requireDivisors,
  scoresOf,
  together,
  toWindows,
} from "./mixing-parts.ts";
import { type Axes, patchCount } from "./patches.ts";

export interface TilePlace extends PatchPlace {
  /** Patches along each axis of a tile; a shorter axis is one tile wide. */
  readonly size: number;
  /** Tiles along each axis of a window; an axis of fewer tiles is in each window as a whole. */
  readonly window: number;
}

/** Some rows of tiles along the first axis, which all attend to the same rows. */
interface Band {
  readonly queries: readonly [start: number, end: number];
  readonly keys: readonly [start: number, end: number];
}

/**
 * The first axis is computed band by band, so that keys and values are copied for the windows along the other axes only.
 *
 * @throws ShapeError if tiles do not divide the grid
 */
export function mixInTiles(parts: Three, options: MixingOptions, place: TilePlace): Tensor {
  const { grid, size, window } = place;
  const sides = grid.map((length) => Math.min(length, size));
  requireDivisors(grid, sides, `tiles of ${sides.join("×")}`);
  const [q, k, v] = parts.map((part) => apart(part, place)) as [Apart, Apart, Apart];
  const bias = options.bias && apart(keysFirst(options.bias), place).others;
  const scores = scoresOf(options);
  const mixed = bandsOf(grid[0]!, sides[0]!, window).map(({ queries, keys }) => {
    const ofQueries = bandOf(q.patches, grid, queries);
    const lengths = grid.with(0, queries[1] - queries[0]);
    const tile = sides.with(0, lengths[0]!);
    const around = ({ patches, others }: Apart) => {
      const own = windowsOf(bandOf(patches, grid, keys), grid.with(0, keys[1] - keys[0]), {
        sides,
        window,
      });
      return others ? concat([own, repeated(others, tilesIn(grid, sides))], 1) : own;
    };
    const [near, values] = [around(k), around(v)];
    const masked = bias && biasOf(bias, near, tilesIn(grid, sides));
    const attended = attention(toWindows(ofQueries, lengths, tile), near, values, {
      ...scores,
      ...(masked && { bias: masked }),
    });
    return fromWindows(attended, lengths, tile);
  });
  return together(concat(mixed, 1), q.others && fullAttention(q.others, parts, options), place);
}

type Apart = ReturnType<typeof apart>;

/** The number of tiles along all axes but the first. */
function tilesIn(grid: Axes, sides: Axes): number {
  return patchCount(grid.slice(1)) / patchCount(sides.slice(1));
}

/** The first tile of the window of each tile along an axis, and the number of tiles of a window. */
function windowStarts(tiles: number, window: number) {
  const width = Math.min(tiles, window);
  const starts = Array.from({ length: tiles }, (_, tile) =>
    Math.min(Math.max(0, tile - (width >> 1)), tiles - width),
  );
  return { starts, width };
}

function bandsOf(length: number, side: number, window: number): readonly Band[] {
  const { starts, width } = windowStarts(length / side, window);
  return [...new Set(starts)].map((start) => ({
    queries: [starts.indexOf(start) * side, (starts.lastIndexOf(start) + 1) * side],
    keys: [start * side, (start + width) * side],
  }));
}

/** The patches [B, N, C] with these places along the first axis. */
function bandOf(x: Tensor, grid: Axes, [start, end]: readonly [number, number]): Tensor {
  if (start === 0 && end === grid[0]) return x;
  const inRow = patchCount(grid.slice(1));
  return x.slice(1, start * inRow, end * inRow);
}

/** The patches around each tile of a band, as wide as the band along the first axis: [B, N, C] → [B·tiles, M, C]. */
function windowsOf(
  x: Tensor,
  grid: Axes,
  { sides, window }: { readonly sides: Axes; readonly window: number },
): Tensor {
  const tile = sides.with(0, grid[0]!);
  const counts = grid.map((length, i) => length / tile[i]!).slice(1);
  const around = counts.map((tiles) => windowStarts(tiles, window));
  const [rows, channels] = [x.dim(0), x.dim(2)];
  let y = toWindows(x, grid, tile).reshape([rows, ...counts, patchCount(tile), channels]);
  // From the last axis on, each axis becomes two: the tile, and the tiles around it.
  for (const [axis, { starts, width }] of [...around.entries()].toReversed()) {
    if (width === 1 && starts.length === 1) {
      y = y.unsqueeze(axis + 2);
      continue;
    }
    const indices = starts.flatMap((start) => Array.from({ length: width }, (_, i) => start + i));
    y = y.gather(
      constant({
        dtype: "int64",
        shape: [starts.length, width],
        data: BigInt64Array.from(indices, BigInt),
      }),
      axis + 1,
    );
  }
  const axes = counts.length;
  const order = Array.from({ length: axes }, (_, i) => i);
  return y
    .transpose([
      0,
      ...order.map((i) => 2 * i + 1),
      ...order.map((i) => 2 * i + 2),
      2 * axes + 1,
      2 * axes + 2,
    ])
    .reshape([
      product([rows, patchCount(counts)])!,
      patchCount(around.map(({ width }) => width)) * patchCount(tile),
      channels,
    ]);
}

/** A bias of keys [B, 1, 1, N] as tokens [B, N, 1]. */
function keysFirst(bias: Tensor): Tensor {
  return bias.swapAxes(1, 3).reshape([bias.dim(0), bias.dim(3), 1]);
}

/** The bias of the keys of a window: 0 for patches, then the bias [B, M, 1] of the other tokens. */
function biasOf(others: Tensor, keys: Tensor, tiles: number): Tensor {
  const patches = keys.size(1) - others.size(1);
  const whole = concat([full([others.dim(0), patches, 1], 0), others], 1);
  return repeated(whole, tiles).reshape([keys.dim(0), 1, 1, keys.size(1)]);
}
