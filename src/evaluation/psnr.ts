/** The peak signal-to-noise ratio of two pictures. */
import type { Picture } from "../pictures/picture.ts";

/**
 * 10·log₁₀(255² / mean squared difference of the bytes), in dB: about 30 is hard to see side by side, and Infinity is equality.
 *
 * @param a and b pictures of one size
 */
export function psnr(a: Picture, b: Picture): number {
  let squares = 0;
  for (const [i, value] of a.pixels.entries()) squares += (value - b.pixels[i]!) ** 2;
  return 10 * Math.log10((255 ** 2 * a.pixels.length) / squares);
}
