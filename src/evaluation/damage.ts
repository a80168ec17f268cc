/** Slightly damaged pictures: real ones in the state in which a generator leaves its drawings. */
import { normal, type RandomKey } from "../engine/random/random.ts";
import type { PictureShape } from "../pictures/picture.ts";

/**
 * Blurs a picture by one pass of 1-2-1 across and down, moves it down and to the right by two pixels, and adds Gaussian
 * noise with a standard deviation of 12 of 255.
 *
 * @param pixels [height, width, channels]
 */
export function damaged(
  pixels: Uint8Array,
  { height, width, channels }: PictureShape,
  key: RandomKey,
): Uint8Array {
  const noise = normal(key, [pixels.length]).data;
  const at = (y: number, x: number, c: number) => {
    const row = Math.min(height - 1, Math.max(0, y - 2));
    const column = Math.min(width - 1, Math.max(0, x - 2));
    return pixels[(row * width + column) * channels + c]!;
  };
  const result = new Uint8ClampedArray(pixels.length);
  for (let i = 0; i < pixels.length; i++) {
    const [c, place] = [i % channels, Math.floor(i / channels)];
    const [y, x] = [Math.floor(place / width), place % width];
    let sum = 0;
    for (const dy of [-1, 0, 1]) {
      for (const dx of [-1, 0, 1]) {
        sum += (2 - Math.abs(dy)) * (2 - Math.abs(dx)) * at(y + dy, x + dx, c);
      }
    }
    result[i] = sum / 16 + 12 * noise[i]!;
  }
  return new Uint8Array(result.buffer);
}
