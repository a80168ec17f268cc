import fc from "fast-check";
import { isDeepStrictEqual } from "node:util";
import { crc32 as nodeCrc32 } from "node:zlib";
import sharp from "sharp";
import { describe, expect, it } from "vitest";
import { FormatError } from "../../src/engine/errors.ts";
import { readPicture, toBlob, toImageData, toPng } from "../../src/pictures/index-node.ts";
import { parametersText } from "../../src/pictures/metadata.ts";
import type { Picture } from "../../src/pictures/picture.ts";
import { crc32 } from "../../src/pictures/png.ts";
import { pngTexts } from "../../src/pictures/png-node.ts";

const pictures = fc
  .record({
    width: fc.integer({ min: 1, max: 9 }),
    height: fc.integer({ min: 1, max: 9 }),
    channels: fc.constantFrom<1 | 3>(1, 3),
    noise: fc.infiniteStream(fc.nat(255)),
    // Smooth, striped and noisy pictures are best served by different filters.
    slope: fc.constantFrom(0, 1, 40),
  })
  .map(({ noise, slope, ...shape }): Picture => {
    const size = shape.width * shape.height * shape.channels;
    const values = slope === 0 ? [...noise.take(size)] : undefined;
    return {
      ...shape,
      pixels: Uint8Array.from({ length: size }, (_, i) => values?.[i] ?? slope * i),
    };
  });

const colours: Picture = {
  width: 2,
  height: 1,
  channels: 3,
  pixels: Uint8Array.of(255, 0, 0, 1, 2, 3),
};

describe("toPng", () => {
  it("writes files that other decoders read without loss", async () => {
    const law = fc.asyncProperty(pictures, async (picture) => {
      const read = await readPicture(await toPng(picture));
      return isDeepStrictEqual(read, picture);
    });
    await expect(fc.assert(law, { seed: 3, numRuns: 60 })).resolves.toBeUndefined();
  });

  it("computes the checksums of the PNG specification", () => {
    const law = fc.property(fc.uint8Array(), (bytes) => crc32(bytes) === nodeCrc32(bytes));
    expect(() => fc.assert(law)).not.toThrow();
  });

  it("writes smooth pictures as small as libpng does", async () => {
    const [width, height] = [64, 64];
    const pixels = Uint8Array.from({ length: 3 * width * height }, (_, i) => {
      const [x, y] = [Math.floor(i / 3) % width, Math.floor(i / (3 * width))];
      return 128 + 60 * Math.sin(x / 9 + (i % 3)) + 60 * Math.cos(y / 7);
    });
    const reference = await sharp(pixels, { raw: { width, height, channels: 3 } })
      .png({ adaptiveFiltering: true, compressionLevel: 6 })
      .toBuffer();
    const { length } = await toPng({ width, height, channels: 3, pixels });
    expect(length).toBeLessThan(1.1 * reference.length);
  });

  it("writes how the picture was drawn", async () => {
    const metadata = {
      prompt: "猫",
      seed: 1,
      steps: 2,
      guidance: 3,
      sampler: "euler",
      height: 1,
      width: 2,
      model: "m",
      version: "0",
    } as const;
    const texts = pngTexts(await toPng(colours, metadata), "p");
    expect(texts.get("parameters")).toBe(parametersText(metadata));
    expect(JSON.parse(texts.get("patchwise")!)).toEqual(metadata);
  });
});

describe("toImageData", () => {
  it("has opaque RGBA pixels, of grey pictures too", () => {
    expect(toImageData(colours)).toEqual({
      width: 2,
      height: 1,
      data: Uint8ClampedArray.of(255, 0, 0, 255, 1, 2, 3, 255),
      colorSpace: "srgb",
    });
    const grey: Picture = { width: 1, height: 1, channels: 1, pixels: Uint8Array.of(7) };
    expect([...toImageData(grey).data]).toEqual([7, 7, 7, 255]);
  });
});

describe("toBlob", () => {
  it.each(["png", "jpeg", "webp"] as const)("encodes image/%s", async (format) => {
    const blob = await toBlob(colours, `image/${format}`);
    expect(blob.type).toBe(`image/${format}`);
    const bytes = new Uint8Array(await blob.arrayBuffer());
    expect(await sharp(bytes).metadata()).toMatchObject({ format, width: 2, height: 1 });
    const { pixels } = await readPicture(bytes);
    const lossless = format !== "jpeg";
    expect(pixels.every((value, i) => !lossless || value === colours.pixels[i])).toBe(true);
  });

  it("is a PNG by default", async () => {
    expect((await toBlob(colours)).type).toBe("image/png");
  });
});

describe("readPicture", () => {
  it("shows the background behind transparent pixels", async () => {
    const bytes = await sharp({
      create: { width: 1, height: 1, channels: 4, background: { r: 0, g: 0, b: 0, alpha: 0 } },
    })
      .png()
      .toBuffer();
    expect([...(await readPicture(bytes)).pixels]).toEqual([255, 255, 255]);
    expect([...(await readPicture(bytes, { background: "black" })).pixels]).toEqual([0, 0, 0]);
  });

  it("names what cannot be decoded", async () => {
    await expect(readPicture(new Uint8Array(9), { name: "cat.png" })).rejects.toThrow(FormatError);
    await expect(readPicture(new Uint8Array(9), { name: "cat.png" })).rejects.toThrow("cat.png");
  });
});
