/** Fixed position tables (Vaswani et al., 2017; in two dimensions as MAE and DiT compute them). */
import { type NdArray, ndarray } from "../engine/arrays/ndarray.ts";
import { ShapeError } from "../engine/errors.ts";
import { concat, constant } from "../engine/graph/functional.ts";
import type { Tensor } from "../engine/graph/tensor.ts";

/**
 * Sines, then cosines, of one axis: [positions, channels], in float64.
 *
 * @param channels even
 */
function sinCos(positions: ArrayLike<number>, channels: number): number[][] {
  const half = channels / 2;
  const frequencies = Array.from({ length: half }, (_, i) => 1 / 10_000 ** (i / half));
  return Array.from(positions, (position) => {
    const angles = frequencies.map((frequency) => position * frequency);
    return [...angles.map(Math.sin), ...angles.map(Math.cos)];
  });
}

/**
 * A table for one axis: [positions, channels].
 *
 * @param channels even
 */
export function sinCos1d(positions: ArrayLike<number>, channels: number): NdArray<"float32"> {
  if (channels % 2 !== 0) {
    throw new ShapeError(`Sine-cosine positions need an even number of channels, not ${channels}.`);
  }
  const table = sinCos(positions, channels);
  return ndarray("float32", [table.length, channels], table.flat());
}

/**
 * A table for the patches of an image in row-major order: [rows · columns, channels].
 *
 * The first half of the channels encodes the COLUMN, the second the row, as in the published
 * checkpoints. Everything is computed in float64 and rounded to float32 once.
 *
 * @param rows position of each row: 0, 1, 2, … unless they are scaled
 * @param channels a multiple of 4
 */
export function sinCos2d(
  rows: ArrayLike<number>,
  columns: ArrayLike<number>,
  channels: number,
): NdArray<"float32"> {
  if (channels % 4 !== 0) {
    throw new ShapeError(
      `Sine-cosine positions of two dimensions need a multiple of 4 channels, not ${channels}.`,
    );
  }
  const ofRows = sinCos(rows, channels / 2);
  const ofColumns = sinCos(columns, channels / 2);
  const table = ofRows.flatMap((row) => ofColumns.flatMap((column) => [...column, ...row]));
  return ndarray("float32", [ofRows.length * ofColumns.length, channels], table);
}

/** Cosine and sine of each token's angles, [N, 1, size / 2]. */
export interface RotaryTable {
  readonly cos: Tensor;
  readonly sin: Tensor;
}

/**
 * The angles of a grid's positions in row-major order: position · theta^(−i/pairs) for i in [0, pairs).
 *
 * Each axis has an equal share of the pairs of channels; what does not divide goes to the first.
 *
 * @param size channels of a head, even
 * @param options.theta the longest wavelength is 2π·theta; 10,000 unless given
 * @param options.extra tokens behind the grid's, which are not turned
 */
export function rotaryTable(
  grid: readonly number[],
  size: number,
  options: { readonly theta?: number; readonly extra?: number } = {},
): RotaryTable {
  const { theta = 10_000, extra = 0 } = options;
  const share = Math.floor(size / 2 / grid.length);
  if (size % 2 !== 0 || share === 0) {
    throw new ShapeError(
      `Rotary positions turn pairs of channels, at least one a dimension: a head needs an even number of channels, at least ${2 * grid.length}, not ${size}.`,
    );
  }
  const shares = grid.map((_, axis) => (axis === 0 ? size / 2 - share * (grid.length - 1) : share));
  const frequencies = shares.map((pairs) =>
    Array.from({ length: pairs }, (_, i) => theta ** (-i / pairs)),
  );
  const positions = grid.reduce<number[][]>(
    (rows, length) => rows.flatMap((row) => Array.from({ length }, (_, at) => [...row, at])),
    [[]],
  );
  const still = Array.from({ length: extra }, () => grid.map(() => 0));
  const rows = [...positions, ...still];
  const angles = rows.flatMap((row) =>
    row.flatMap((position, axis) => frequencies[axis]!.map((frequency) => position * frequency)),
  );
  const table = (f: (x: number) => number) =>
    constant(ndarray("float32", [rows.length, 1, size / 2], angles.map(f)));
  return { cos: table(Math.cos), sin: table(Math.sin) };
}

/** Turns neighbouring channels (2i, 2i + 1) of [B, N, heads, size] by the token's angle i. */
export function rotate(x: Tensor, { cos, sin }: RotaryTable): Tensor {
  const pairs = x.reshape([...x.shape.slice(0, -1), x.size(-1) / 2, 2]);
  const [a, b] = pairs.split(2, -1).map((part) => part.squeeze(-1)) as [Tensor, Tensor]; // 2 × [B, N, heads, size / 2]
  const turned = [a.mul(cos).sub(b.mul(sin)), a.mul(sin).add(b.mul(cos))];
  return concat(
    turned.map((part) => part.unsqueeze(-1)),
    -1,
  ).reshape(x.shape);
}
