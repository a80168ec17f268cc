/** Sheets of clips: a row each, whose frames lie side by side. */
import sharp from "sharp";
import type { NdArray } from "../../src/engine/arrays/ndarray.ts";

/**
 * Writes clips [B, 3, frames, height, width] with values in [−1, 1]; those of several arrays alternate row by row.
 */
export async function writeSheet(file: string, clips: readonly NdArray[]): Promise<void> {
  const [count, , frames, height, width] = clips[0]!.shape as [
    number,
    number,
    number,
    number,
    number,
  ];
  const area = height * width;
  const image = Buffer.alloc(count * clips.length * frames * area * 3);
  for (let row = 0; row < count * clips.length; row++) {
    const data = clips[row % clips.length]!.data as Float32Array;
    const clip = Math.floor(row / clips.length);
    for (let frame = 0; frame < frames; frame++) {
      for (let c = 0; c < 3; c++) {
        const from = ((clip * 3 + c) * frames + frame) * area;
        for (let i = 0; i < area; i++) {
          const [y, x] = [Math.floor(i / width), i % width];
          const at = ((row * height + y) * frames + frame) * width + x;
          image[3 * at + c] = Math.max(0, Math.min(255, Math.round((data[from + i]! + 1) * 127.5)));
        }
      }
    }
  }
  await sharp(image, {
    raw: { width: frames * width, height: count * clips.length * height, channels: 3 },
  })
    .png()
    .toFile(file);
}
