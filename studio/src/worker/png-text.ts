/** Reads a text of a PNG file (iTXt, uncompressed, as Patchwise writes it). */
import { CHUNK_FRAME, isPng, pngSignature } from "../../../src/pictures/png.ts";

/** The text of a keyword; undefined if there is none, or the bytes are no PNG. */
export function readPngText(bytes: Uint8Array, keyword: string): string | undefined {
  if (!isPng(bytes)) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const decode = (from: number, to: number) => new TextDecoder().decode(bytes.subarray(from, to));
  for (let at = pngSignature.length; at + CHUNK_FRAME <= bytes.length;) {
    const length = view.getUint32(at);
    const [type, start] = [decode(at + 4, at + 8), at + 8];
    // Keyword, null, no compression (two bytes), no language, no translated keyword.
    const head = `${keyword}\0\0\0\0\0`;
    if (type === "iTXt" && decode(start, start + head.length) === head) {
      return decode(start + head.length, start + length);
    }
    at += CHUNK_FRAME + length;
  }
  return undefined;
}
