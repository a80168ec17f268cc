/** Compares what an application drew. */
import sharp from "sharp";

/**
 * @param {Buffer} expected RGB bytes
 * @param {Buffer} file a picture file
 * @returns {Promise<string>} how far they are apart
 */
export async function apartFrom(expected, file) {
  return apart(expected, await sharp(file).removeAlpha().raw().toBuffer());
}

/**
 * @param {Buffer} expected RGB bytes
 * @param {ArrayLike<number>} drawn RGB bytes
 * @returns {string} how far they are apart
 */
export function apart(expected, drawn) {
  const most = expected.reduce(
    (worst, value, i) => Math.max(worst, Math.abs(value - (drawn[i] ?? NaN))),
    0,
  );
  if (drawn.length === expected.length && most <= 1) return `${most} of 255 apart from Node`;
  throw new Error(`${most} of 255 apart, ${drawn.length} values instead of ${expected.length}`);
}
