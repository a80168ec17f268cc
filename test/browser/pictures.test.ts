import { spawnSync } from "node:child_process";
import path from "node:path";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import {
  type ClipFormat,
  clipOfPictures,
  encodeClip,
  readPicture,
} from "../../src/pictures/index-node.ts";
import { type BrowserPage, openPage } from "../support/browser.ts";
import type * as pageModule from "./pictures-page.ts";

vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });

let page: BrowserPage<typeof pageModule>;
beforeAll(async () => {
  page = await openPage(path.join(import.meta.dirname, "pictures-page.ts"));
});
afterAll(() => page?.close());

const picture = (channels: 1 | 3) => ({
  width: 5,
  height: 4,
  channels,
  pixels: Array.from({ length: 20 * channels }, (_, i) => (i * i * 7) % 256),
});

describe("pictures in a page", () => {
  it("are encoded as PNG without loss", async () => {
    for (const channels of [1, 3] as const) {
      const given = picture(channels);
      const { pixels, ...shape } = await readPicture(
        Uint8Array.from(await page.call("png", given)),
      );
      expect({ ...shape, pixels: [...pixels] }).toEqual(given);
    }
  });

  it("become Blobs of the requested type", async () => {
    for (const type of [undefined, "image/png", "image/jpeg", "image/webp"] as const) {
      const blob = await page.call("blob", picture(3), type);
      expect(blob.type).toBe(type ?? "image/png");
      const { format, width, height } = await sharp(Uint8Array.from(blob.bytes)).metadata();
      expect([`image/${format}`, width, height]).toEqual([blob.type, 5, 4]);
    }
  });

  it("become ImageData", async () => {
    const { own, data } = await page.call("imageData", picture(1));
    expect(own).toBe(true);
    expect(data).toEqual(picture(1).pixels.flatMap((value) => [value, value, value, 255]));
  });

  it("are read from PNG, JPEG and WebP files as in Node", async () => {
    const raw = (channels: 1 | 3) =>
      sharp(Uint8Array.from(picture(channels).pixels), { raw: { width: 5, height: 4, channels } });
    const grey = await raw(1).toColourspace("b-w").png().toBuffer();
    expect(await page.call("read", [...grey])).toEqual(picture(1));
    const lossless = [
      await raw(3).png().toBuffer(),
      await raw(3).webp({ lossless: true }).toBuffer(),
    ];
    for (const bytes of lossless) expect(await page.call("read", [...bytes])).toEqual(picture(3));

    const smooth = await sharp({
      create: { width: 16, height: 8, channels: 3, background: "#406080" },
    })
      .jpeg()
      .toBuffer();
    const read = await page.call("read", [...smooth]);
    expect([read.width, read.height, read.channels]).toEqual([16, 8, 3]);
    expect(Math.abs(read.pixels[0]! - 0x40)).toBeLessThan(4);
  });

  it("show the background behind transparent pixels", async () => {
    const background = { r: 0, g: 0, b: 0, alpha: 0 };
    const clear = await sharp({ create: { width: 1, height: 1, channels: 4, background } })
      .png()
      .toBuffer();
    expect((await page.call("read", [...clear])).pixels).toEqual([255, 255, 255]);
    expect((await page.call("read", [...clear], "black")).pixels).toEqual([0, 0, 0]);
  });

  it("are named when they cannot be decoded", async () => {
    await expect(page.call("read", [1, 2, 3])).rejects.toThrow("cat.png cannot be decoded");
  });
});

describe("files of clips in a page", () => {
  const frames = Array.from({ length: 5 }, (_, i) => ({
    width: 16,
    height: 8,
    channels: 3 as const,
    pixels: new Uint8Array(16 * 8 * 3).fill(40 * i),
  }));
  const bytesOf = async (format: ClipFormat) => [
    ...(await encodeClip(clipOfPictures(frames), { format, fps: 12.5 })),
  ];

  it.each<[ClipFormat, string]>([
    ["webp", "image/webp"],
    ["gif", "image/gif"],
    ["apng", "image/png"],
  ])("as %s are animated in their size, frames and duration", async (format, type) => {
    const played = await page.call("animation", await bytesOf(format), type);
    expect(played).toMatchObject({ width: 16, height: 8, frames: 5 });
    expect(played.duration).toBeCloseTo(0.4, 2);
  });

  // Without ffmpeg there is no such file; clip-file.test.ts checks the sentence that says so.
  const films = spawnSync("ffmpeg", ["-version"]).status === 0 ? (["mp4", "webm"] as const) : [];
  it("as films play to their end", async () => {
    for (const format of films) {
      const played = await page.call("film", await bytesOf(format), `video/${format}`);
      expect(played).toMatchObject({ width: 16, height: 8, frames: 5 });
      expect(played.duration).toBeCloseTo(0.4, 1);
    }
  });
});
