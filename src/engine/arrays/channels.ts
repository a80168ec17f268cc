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

/** Words of four bytes in a row of a tile. */
const WORDS = TILE / 4;

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
  for await (const { start, floats } of chunks(source)) {
    const own = channelScales(floats, width);
    scales.set(own, start);
    if (values) writeColumns(floats, inversesOf(own), values, start, all);
  }
  return scales;
}

/**
 * Writes rows times a factor each, rounded, as columns of a matrix with rows of `all` numbers, from column `start` on. Done in tiles that stay
 * in the cache, since rows whose length is a power of two would throw one another out of it, and four rows at a time as the bytes of one word.
 */
function writeColumns(
  floats: Float32Array,
  factors: Float64Array,
  values: Int8Array,
  start: number,
  all: number,
): void {
  const count = factors.length;
  const width = floats.length / count;
  const tile = new Int32Array(TILE * WORDS);
  const bytes = new Int8Array(tile.buffer);
  const words =
    ((all % 4) | (start % 4) | (values.byteOffset % 4)) === 0 ? wordsOf(values) : undefined;
  for (let top = 0; top < count; top += TILE) {
    const height = Math.min(TILE, count - top);
    for (let left = 0; left < width; left += TILE) {
      const across = Math.min(TILE, width - left);
      for (let row = top; row < top + height; row += 4) {
        // Where fewer than four rows are left, the last one is taken again, and not copied.
        const [a, b, c, d] = [0, 1, 2, 3].map((i) => Math.min(row + i, count - 1)) as Four;
        const [fa, fb, fc, fd] = [factors[a]!, factors[b]!, factors[c]!, factors[d]!];
        const [pa, pb, pc, pd] = [a, b, c, d].map((i) => i * width + left) as Four;
        for (let [i, to] = [0, (row - top) / 4]; i < across; i++, to += WORDS) {
          tile[to] = word(
            floats[pa + i]! * fa,
            floats[pb + i]! * fb,
            floats[pc + i]! * fc,
            floats[pd + i]! * fd,
          );
        }
      }
      for (let i = 0; i < across; i++) {
        const to = (left + i) * all + start + top;
        if (words && height % 4 === 0) {
          for (let j = 0; j < height / 4; j++) words[to / 4 + j] = tile[i * WORDS + j]!;
        } else values.set(bytes.subarray(i * TILE, i * TILE + height), to);
      }
    }
  }
}

type Four = [number, number, number, number];

/** Four numbers from -127 to 127 as the bytes of a word. They are rounded as Math.round does, since the sums are positive. */
function word(a: number, b: number, c: number, d: number): number {
  const bytes = (a + 128.5) | ((b + 128.5) << 8) | ((c + 128.5) << 16) | ((d + 128.5) << 24);
  return bytes ^ 0x80808080;
}

function wordsOf({ buffer, byteOffset, byteLength }: Int8Array): Int32Array {
  return new Int32Array(buffer, byteOffset, byteLength >> 2);
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
  const most = Math.max(1, Math.floor(READ / Math.max(1, width)));
  const size = most - (most > TILE ? most % TILE : 0);
  for (let start = 0; start < rows; start += size) {
    yield { start, floats: await read(start, Math.min(size, rows - start)) };
  }
}

/** 1 / scale; 0 for a channel of zeros, which stays zero. */
function inversesOf(scales: Float32Array): Float64Array {
  return Float64Array.from(scales, (scale) => (scale === 0 ? 0 : 1 / scale));
}
