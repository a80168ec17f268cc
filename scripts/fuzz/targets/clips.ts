/** Animated files: PNG, WebP and GIF. Films are read by another program, ffmpeg. */
import sharp from "sharp";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { toApng } from "../../../src/pictures/apng.ts";
import { readClip } from "../../../src/pictures/clip-file-node.ts";
import { bytes, lengthFields } from "../mutations.ts";
import { pngChunk } from "../png-chunks.ts";
import type { OpenTarget } from "../target.ts";

const [SIDE, FRAMES] = [6, 3];
const size = SIDE * SIDE * 3;

export const open: OpenTarget = async (folder) => {
  const pixels = Uint8Array.from({ length: FRAMES * size }, (_, i) => (i * 37) % 256);
  const raw = { width: SIDE, height: SIDE * FRAMES, channels: 3, pageHeight: SIDE } as const;
  const animated = sharp(pixels, { raw });
  const clip = { frames: FRAMES, width: SIDE, height: SIDE, channels: 3, pixels } as const;
  const files = [
    await animated.clone().webp({ lossless: true }).toBuffer(),
    await animated.clone().gif().toBuffer(),
    await toApng(clip, 8),
  ];
  return {
    sound: files.map((file) => new Uint8Array(file)),
    mutations: [bytes, lengthFields, pngChunk],
    async read(input) {
      const file = join(folder, "clip");
      await writeFile(file, input);
      await readClip(file);
    },
  };
};
