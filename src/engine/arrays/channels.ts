/** Rows of numbers as 8-bit integers, each row with a scale: the output channels of a linear layer. */

/** max |x| / 127 of each row of `width` numbers. */
export function channelScales(rows: Float32Array, width: number): Float32Array {
  const scales = new Float32Array(width === 0 ? 0 : rows.length / width);
  for (let row = 0; row < scales.length; row++) {
    let most = 0;
    for (let i = row * width; i < (row + 1) * width; i++) most = Math.max(most, Math.abs(rows[i]!));
    scales[row] = most / 127;
  }
  return scales;
}

/**
 * Writes rows, divided by their scales and rounded, as columns of a matrix of bytes.
 *
 * @param scales of all rows of the matrix
 * @param target.start the number of the first of these rows
 * @param target.values [width, rows of the matrix], row-major
 */
export function quantizeChannels(
  rows: Float32Array,
  width: number,
  scales: Float32Array,
  { start, values }: { readonly start: number; readonly values: Int8Array },
): void {
  const count = rows.length / width;
  const all = scales.length;
  const inverses = Float64Array.from({ length: count }, (_, row) => {
    const scale = scales[start + row]!;
    return scale === 0 ? 0 : 1 / scale;
  });
  for (let i = 0; i < width; i++) {
    for (let row = 0; row < count; row++) {
      values[i * all + start + row] = Math.round(rows[row * width + i]! * inverses[row]!);
    }
  }
}
