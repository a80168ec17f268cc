/** Matrices as 8-bit integers, each row or each column with a scale: the output channels of a product with them. */

/** Reads `count` rows of a matrix from row `start` on. */
type ReadRows = (start: number, count: number) => Promise<Float32Array>;

/** A matrix [rows, width] that is read some rows at a time. */
export interface RowSource {
  readonly shape: readonly [rows: number, width: number];
  readonly read: ReadRows;
}

/** Numbers that are read at a time. */
const READ = 2 ** 20;

/** Rows and columns that are transposed at a time. */
const TILE = 64;

/** max |x| / 127 of each row of `width` numbers. */
export function channelScales(rows: Float32Array, width: number): Float32Array {
  const scales = new Float32Array(width === 0 ? 0 : rows.length / width);
  for (let row = 0; row < scales.length; row++) {
    let most = 0;
    for (let i = row * width; i < (row + 1) * width; i++) {
      const size = Math.abs(rows[i]!);
      // Not Math.max, which looks at signs of zeros; a number that is none is kept as the largest.
      if (!(size <= most)) most = size;
    }
    scales[row] = most / 127;
  }
  return scales;
}

/**
 * Scales the rows of a matrix, and writes the rows, divided by their scales and rounded, as columns.
 *
 * @param values [width, rows], row-major, if they are wanted
 * @returns the scales [rows]
 */
export async function quantizedRows(source: RowSource, values?: Int8Array): Promise<Float32Array> {
  const [all, width] = source.shape;
  const scales = new Float32Array(all);
  const tile = new Int8Array(TILE * TILE);
  for await (const { start, floats } of chunks(source)) {
    const own = channelScales(floats, width);
    scales.set(own, start);
    if (!values) continue;
    const inverses = inversesOf(own);
    // In tiles that stay in the cache: rows whose length is a power of two would throw one another out of it.
    for (let top = 0; top < own.length; top += TILE) {
      const height = Math.min(TILE, own.length - top);
      for (let left = 0; left < width; left += TILE) {
        const across = Math.min(TILE, width - left);
        for (let row = 0; row < height; row++) {
          const inverse = inverses[top + row]!;
          const from = (top + row) * width + left;
          for (let i = 0; i < across; i++) {
            // Rounds as Math.round does: the sum is positive.
            tile[i * TILE + row] = ((floats[from + i]! * inverse + 128.5) | 0) - 128;
          }
        }
        for (let i = 0; i < across; i++) {
          const column = tile.subarray(i * TILE, i * TILE + height);
          values.set(column, (left + i) * all + start + top);
        }
      }
    }
  }
  return scales;
}

/**
 * Scales the columns of a matrix, and writes them, divided by their scales and rounded, where they are.
 *
 * @param values [rows, width], row-major, if they are wanted
 * @returns the scales [width]
 */
export async function quantizedColumns(
  source: RowSource,
  values?: Int8Array,
): Promise<Float32Array> {
  const [, width] = source.shape;
  const scales = new Float32Array(width);
  for await (const { floats } of chunks(source)) {
    for (const [i, x] of floats.entries()) {
      scales[i % width] = Math.max(scales[i % width]!, Math.abs(x));
    }
  }
  for (const [i, most] of scales.entries()) scales[i] = most / 127;
  if (!values) return scales;
  const inverses = inversesOf(scales);
  for await (const { start, floats } of chunks(source)) {
    for (const [i, x] of floats.entries()) {
      values[start * width + i] = Math.round(x * inverses[i % width]!);
    }
  }
  return scales;
}

async function* chunks({ shape: [rows, width], read }: RowSource) {
  const size = Math.max(1, Math.floor(READ / Math.max(1, width)));
  for (let start = 0; start < rows; start += size) {
    yield { start, floats: await read(start, Math.min(size, rows - start)) };
  }
}

/** 1 / scale; 0 for a channel of zeros, which stays zero. */
function inversesOf(scales: Float32Array): Float64Array {
  return Float64Array.from(scales, (scale) => (scale === 0 ? 0 : 1 / scale));
}
