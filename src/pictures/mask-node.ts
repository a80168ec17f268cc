/** Reads masks as programs write them: white where a picture is drawn anew, or transparent there. */
import { readPicture, readPictureFile } from "./decode-node.ts";
import type { Picture } from "./picture.ts";

/** Darker pixels are no strokes of a white brush. */
const WHITE = 250;

/**
 * Reads a mask, white where a picture is drawn anew. Of a picture with transparency, the visible pixels count if all of them are
 * white, as strokes of a brush are; otherwise the transparent part is to be drawn, as in a picture with a hole.
 *
 * @throws UsageError if the file cannot be opened; FormatError if it is no picture
 */
export function readMaskFile(path: string): Promise<Picture> {
  return maskOf((background) => readPictureFile(path, background));
}

/** Reads a mask as `readMaskFile` does. @throws FormatError if the bytes are no picture */
export function readMask(bytes: Uint8Array, name: string): Promise<Picture> {
  return maskOf((background) => readPicture(bytes, { name, background }));
}

async function maskOf(read: (background: "black" | "white") => Promise<Picture>): Promise<Picture> {
  const [black, white] = await Promise.all([read("black"), read("white")]);
  const { width, height, channels } = black;
  // Behind a pixel of opacity a, white is brighter than black by 1 − a.
  const clear = white.pixels.map((value, i) => value - black.pixels[i]!);
  if (clear.every((value) => value === 0)) return black;
  const isBrush = black.pixels.every((value, i) => {
    const opacity = 255 - clear[i]!;
    return opacity < 128 || (255 * value) / opacity >= WHITE;
  });
  if (isBrush) return black;
  const pixels = clear.filter((_, i) => i % channels === 0);
  return { width, height, channels: 1, pixels };
}
