import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import sharp from "sharp";
import { afterAll, describe, expect, it } from "vitest";
import { readMaskFile } from "../../src/pictures/mask-node.ts";

const scratch = mkdtempSync(path.join(tmpdir(), "patchwise-mask-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

/** The mask of a row of pixels [red, green, blue, alpha], as brightness. */
async function maskOf(...pixels: readonly (readonly number[])[]): Promise<number[]> {
  const file = path.join(scratch, "mask.png");
  const raw = { width: pixels.length, height: 1, channels: pixels[0]!.length as 3 | 4 };
  await sharp(Uint8Array.from(pixels.flat()), { raw }).png().toFile(file);
  const { channels, pixels: read } = await readMaskFile(file);
  return [...read].filter((_, i) => i % channels === 0);
}

describe("a mask in a file", () => {
  it("is white where the picture is drawn anew", async () => {
    expect(await maskOf([255, 255, 255], [0, 0, 0], [128, 128, 128])).toEqual([255, 0, 128]);
  });

  it("of white strokes on nothing is drawn at the strokes", async () => {
    expect(await maskOf([255, 255, 255, 255], [0, 0, 0, 0], [255, 255, 255, 128])).toEqual([
      255, 0, 128,
    ]);
  });

  it("of a picture with a hole is drawn in the hole", async () => {
    expect(await maskOf([200, 30, 90, 255], [0, 0, 0, 0], [10, 20, 30, 255])).toEqual([0, 255, 0]);
    expect(await maskOf([0, 0, 0, 255], [0, 0, 0, 0])).toEqual([0, 255]);
  });
});
