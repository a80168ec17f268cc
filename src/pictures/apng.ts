/** Writes animated PNG files (PNG specification, third edition, section 11.3.6), which end in .png, too. */
import { joined } from "../engine/bytes.ts";
import { type Clip, frameDelays, picturesOfClip } from "./clip.ts";
import type { PictureMetadata } from "./metadata.ts";
import { type PngChunk, pngOf } from "./png.ts";

/**
 * Encodes a clip as an animated PNG without loss, which repeats for ever. Programs that do not know the animation show its first frame.
 *
 * @param fps frames a second
 */
export async function toApng(
  clip: Clip,
  fps: number,
  metadata?: PictureMetadata,
): Promise<Uint8Array<ArrayBuffer>> {
  const delays = frameDelays(clip.frames, fps, 1);
  // Zero plays: without end.
  const control = numbers([4, clip.frames], [4, 0]);
  let sequence = 0;
  const frame = (milliseconds: number): PngChunk => ({
    type: "fcTL",
    data: numbers(
      ...([
        [4, sequence++],
        [4, clip.width],
        [4, clip.height],
        [4, 0],
        [4, 0],
        [2, milliseconds],
        [2, 1000],
        // The frame stays until the next one, which replaces it.
        [1, 0],
        [1, 0],
      ] as const),
    ),
  });
  const pictures = picturesOfClip(clip);
  return pngOf(
    clip,
    (rows) => [
      { type: "acTL", data: control },
      ...rows.flatMap((data, i): PngChunk[] => [
        frame(delays[i]!),
        i === 0
          ? { type: "IDAT", data }
          : { type: "fdAT", data: joined([numbers([4, sequence++]), data]) },
      ]),
    ],
    pictures,
    metadata,
  );
}

/** Unsigned numbers of some bytes each, the highest byte first. */
function numbers(...fields: readonly (readonly [bytes: 1 | 2 | 4, value: number])[]) {
  const size = fields.reduce((sum, [bytes]) => sum + bytes, 0);
  const data = new Uint8Array(size);
  let at = 0;
  for (const [bytes, value] of fields) {
    for (let i = 0; i < bytes; i++) data[at++] = (value >>> (8 * (bytes - 1 - i))) & 0xff;
  }
  return data;
}
