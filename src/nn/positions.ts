/** Fixed position tables (Vaswani et al., 2017; in two dimensions as MAE and DiT compute them). */
import { ShapeError } from "../engine/errors.ts";
import { type NdArray, ndarray } from "../engine/arrays/ndarray.ts";

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
