/** Positions of tokens on grids of one to three axes: fixed sine-cosine tables and rotary embeddings. */
import { type NdArray, ndarray } from "../engine/arrays/ndarray.ts";
import { ShapeError } from "../engine/errors.ts";
import { concat, constant } from "../engine/graph/functional.ts";
import type { Tensor } from "../engine/graph/tensor.ts";
import type { Axes } from "./patches.ts";

/** The positions 0, 1, 2, … along each axis of a grid. */
export function gridPositions(grid: Axes): readonly (readonly number[])[] {
  return grid.map((length) => Array.from({ length }, (_, i) => i));
}

/**
 * A sine-cosine table of the places of a grid in row-major order (Vaswani et al., 2017; over two axes as MAE and DiT compute
 * it): [places, channels].
 *
 * The axes share the channels equally. The LAST axis comes first: in a picture the first half of the channels encodes the
 * column and the second half the row, as in the published checkpoints. Everything is computed in float64 and rounded to
 * float32 once.
 *
 * @param positions the position of each place along each axis; see `gridPositions`
 * @param channels a multiple of twice the number of axes
 * @throws ShapeError when the channels do not divide
 * @example sinCosTable(gridPositions([32, 32]), 384)
 */
export function sinCosTable(
  positions: readonly ArrayLike<number>[],
  channels: number,
): NdArray<"float32"> {
  const axes = positions.length;
  if (channels % (2 * axes) !== 0) {
    throw new ShapeError(
      `Sine-cosine positions over ${axes} ${axes === 1 ? "axis" : "axes"} need a multiple of ${2 * axes} channels, not ${channels}.`,
    );
  }
  const rows = positions
    .map((axis) => sinCos(axis, channels / axes))
    .reduce<number[][]>(
      (before, axis) => before.flatMap((outer) => axis.map((inner) => [...inner, ...outer])),
      [[]],
    );
  return ndarray("float32", [rows.length, channels], rows.flat());
}

/** Sines, then cosines, of the positions along one axis: [positions, channels]. */
function sinCos(positions: ArrayLike<number>, channels: number): number[][] {
  const half = channels / 2;
  const frequencies = Array.from({ length: half }, (_, i) => 1 / 10_000 ** (i / half));
  return Array.from(positions, (position) => {
    const angles = frequencies.map((frequency) => position * frequency);
    return [...angles.map(Math.sin), ...angles.map(Math.cos)];
  });
}

/**
 * Which two channels of a head of size D turn together: neighbours (2i, 2i + 1), as in the original paper and FLUX, or the
 * channels i and i + D / 2 of its halves, as in LLaMA and Qwen.
 */
export type RotaryPairing = "neighbours" | "halves";

/** Cosine and sine of the angles of each token, [N, 1, size / 2], and the channels that they turn. */
export interface RotaryTable {
  readonly cos: Tensor;
  readonly sin: Tensor;
  readonly pairing: RotaryPairing;
}

export interface RotaryOptions {
  /** Base of the frequencies, 10,000 by default; the longest wavelength is 2π·theta. */
  readonly theta?: number | undefined;
  /** Neighbours by default. */
  readonly pairing?: RotaryPairing | undefined;
}

/**
 * The angles of a rotary position embedding (Su et al., 2021) for the places of a grid in row-major order:
 * position · theta^(−i/pairs) for i in [0, pairs).
 *
 * The axes share the pairs of channels equally unless their pairs are given; the first axis gets what does not divide.
 *
 * @param size channels of a head, an even number
 * @throws ShapeError when a head has too few channels or an odd number of them
 */
export function rotaryTable(
  grid: Axes,
  size: number,
  {
    extra = 0,
    pairs = sharedPairs(size, grid.length),
    ...options
  }: RotaryOptions & {
    /** The number of tokens behind those of the grid, which are not rotated; 0 by default. */
    readonly extra?: number;
    /** Pairs of channels that each axis turns, together half of a head; equal shares unless given. */
    readonly pairs?: readonly number[] | undefined;
  } = {},
): RotaryTable {
  const unrotated = Array.from({ length: extra }, () => grid.map(() => 0));
  return rotaryTableOf([...gridPlaces(grid), ...unrotated], pairs, options);
}

/** The places of a grid in row-major order, each as its positions along the axes: [places][axes]. */
export function gridPlaces(grid: Axes): readonly (readonly number[])[] {
  return gridPositions(grid).reduce<number[][]>(
    (rows, axis) => rows.flatMap((row) => axis.map((at) => [...row, at])),
    [[]],
  );
}

/**
 * How many pairs of a head's channels each axis turns: equal shares, of which the first axis gets what does not divide.
 *
 * @throws ShapeError when a head has too few channels or an odd number of them
 */
export function sharedPairs(size: number, axes: number): readonly number[] {
  const share = Math.floor(size / 2 / axes);
  if (size % 2 === 0 && share > 0) {
    const rest = size / 2 - share * (axes - 1);
    return Array.from({ length: axes }, (_, axis) => (axis === 0 ? rest : share));
  }
  throw new ShapeError(
    `Rotary positions rotate pairs of channels, at least one pair an axis: a head needs an even number of channels, at least ${2 * axes}, not ${size}.`,
  );
}

/**
 * The same for tokens at any positions, such as those of a text and of several pictures in one sequence.
 *
 * @param positions of each token along each axis, [N][axes]; a token at 0 is not rotated
 * @param pairs of channels that each axis turns, together half of a head
 * @example rotaryTableOf([[0, 0], [0, 1]], [32, 32]) // two tokens beside each other, heads of 128 channels
 */
export function rotaryTableOf(
  positions: readonly (readonly number[])[],
  pairs: readonly number[],
  { theta = 10_000, pairing = "neighbours" }: RotaryOptions = {},
): RotaryTable {
  const frequencies = pairs.flatMap((count, axis) =>
    Array.from({ length: count }, (_, i) => ({ axis, frequency: theta ** (-i / count) })),
  );
  const turning = frequencies.length;
  const angles = new Float64Array(positions.length * turning);
  for (const [row, places] of positions.entries()) {
    for (const [i, { axis, frequency }] of frequencies.entries()) {
      angles[row * turning + i] = places[axis]! * frequency;
    }
  }
  const shape = [positions.length, 1, turning];
  const table = (f: (x: number) => number) =>
    constant(ndarray("float32", shape, new Float32Array(angles.map((x) => f(x)))));
  return { cos: table(Math.cos), sin: table(Math.sin), pairing };
}

/** Rotates pair i of the channels of [B, N, heads, size] by the angle i of their token. */
export function rotate(x: Tensor, { cos, sin, pairing }: RotaryTable): Tensor {
  const half = x.size(-1) / 2;
  // The axis that holds the two channels of a pair: the last for neighbours, the one before it for halves.
  const [pair, sizes] =
    pairing === "neighbours" ? ([-1, [half, 2]] as const) : ([-2, [2, half]] as const);
  const pairs = x.reshape([...x.shape.slice(0, -1), ...sizes]);
  const [a, b] = pairs.split(2, pair).map((part) => part.squeeze(pair)) as [Tensor, Tensor]; // 2 × [B, N, heads, size / 2]
  const rotated = [a.mul(cos).sub(b.mul(sin)), a.mul(sin).add(b.mul(cos))];
  return concat(
    rotated.map((part) => part.unsqueeze(pair)),
    pair,
  ).reshape(x.shape);
}
