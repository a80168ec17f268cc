/** Picture files: their pixels, and how they say that they were drawn. */
import sharp from "sharp";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { decodePicture, readPicture } from "../../../src/pictures/decode-node.ts";
import { encodePicture, readPictureMetadata } from "../../../src/pictures/file-node.ts";
import { UsageError } from "../../../src/engine/errors.ts";
import { bytes, lengthFields, type Mutation } from "../mutations.ts";
import { pngChunk } from "../png-chunks.ts";
import type { OpenTarget } from "../target.ts";

const SIDE = 12;
const shape = { width: 4, height: 4, channels: 3 } as const;
const metadata = {
  prompt: "a <red> cat",
  seed: 1,
  width: SIDE,
  height: SIDE,
  steps: 4,
  guidance: 1,
  sampler: "euler",
  model: "tiny",
  version: "1",
};

async function soundPictures(): Promise<Uint8Array[]> {
  const pixels = Uint8Array.from({ length: SIDE * SIDE * 4 }, (_, i) => (i * 37) % 256);
  const raw = (channels: 1 | 3 | 4) =>
    sharp(pixels.subarray(0, SIDE * SIDE * channels), {
      raw: { width: SIDE, height: SIDE, channels },
    });
  const files = await Promise.all([
    raw(4).png().toBuffer(),
    raw(1).toColourspace("b-w").png({ palette: false }).toBuffer(),
    raw(3).png({ palette: true }).toBuffer(),
    raw(3).toColourspace("rgb16").png().toBuffer(),
    raw(3).withMetadata({ orientation: 6 }).jpeg().toBuffer(),
    raw(3).withIccProfile("p3").jpeg({ progressive: true }).toBuffer(),
    raw(4).webp().toBuffer(),
    raw(4).webp({ lossless: true }).toBuffer(),
    raw(3).gif().toBuffer(),
    raw(3).avif().toBuffer(),
  ]);
  const picture = {
    width: SIDE,
    height: SIDE,
    channels: 3,
    pixels: pixels.subarray(0, SIDE * SIDE * 3),
  } as const;
  const described = await Promise.all(
    (["png", "jpeg", "webp"] as const).map((format) =>
      encodePicture(picture, { format, metadata }),
    ),
  );
  return [...files, ...described].map((file) => new Uint8Array(file));
}

/** Damages the first bytes, which hold sizes. */
const beginning: Mutation = (random, input, other) => {
  const end = Math.min(input.length, 64);
  const head = (random() < 0.5 ? bytes : lengthFields)(random, input.slice(0, end), other);
  const copy = new Uint8Array(head.length + input.length - end);
  copy.set(head);
  copy.set(input.subarray(end), head.length);
  return copy;
};

export const open: OpenTarget = async (folder) => {
  const file = join(folder, "picture");
  return {
    sound: await soundPictures(),
    mutations: [bytes, lengthFields, beginning, pngChunk],
    async read(input) {
      await writeFile(file, input);
      await readPictureMetadata(file).catch((error: unknown) => {
        // Most pictures do not say how they were drawn.
        if (!(error instanceof UsageError)) throw error;
      });
      await decodePicture(input, "picture", shape, { fit: "cover", background: "white" });
      await readPicture(input);
    },
  };
};
