import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { crc32, deflateSync } from "node:zlib";
import fc from "fast-check";
import sharp from "sharp";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Picture } from "../../src/pictures/picture.ts";
import {
  encodePicture,
  pictureFormat,
  readPictureMetadata,
  writePicture,
} from "../../src/pictures/file-node.ts";
import { parametersText, type PictureMetadata } from "../../src/pictures/metadata.ts";
import { withPngTexts } from "../../src/pictures/png.ts";
import { pngShape, pngTexts } from "../../src/pictures/png-node.ts";
import { FormatError, PatchwiseError, UsageError } from "../../src/engine/errors.ts";
import { generator, mutateBytes } from "../weights/mutate.ts";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "patchwise-picture-"));
});
afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

const picture = (channels: 1 | 3): Picture => ({
  width: 7,
  height: 5,
  channels,
  pixels: Uint8Array.from({ length: 35 * channels }, (_, i) => (37 * i) % 256),
});

const metadata: PictureMetadata = {
  prompt: "a café on 富士山 🗻, <at> night & day",
  negativePrompt: "blurry",
  seed: 4294967296,
  steps: 30,
  guidance: 3.5,
  sampler: "euler",
  width: 7,
  height: 5,
  model: "emoji",
  version: "0.1.0",
};

/** Builds a chunk; its checksum is correct unless one is given. */
function chunk(type: string, data: Uint8Array | string, sum?: number): Buffer {
  const body = Buffer.concat([Buffer.from(type, "latin1"), Buffer.from(data)]);
  const frame = Buffer.alloc(8);
  frame.writeUInt32BE(body.length - 4, 0);
  frame.writeUInt32BE(sum ?? crc32(body), 4);
  return Buffer.concat([frame.subarray(0, 4), body, frame.subarray(4)]);
}

const png = () => encodePicture(picture(3), { format: "png" });
/** A PNG file with chunks inserted after its header. */
async function pngWith(...chunks: Uint8Array[]): Promise<Buffer> {
  const bytes = await png();
  return Buffer.concat([bytes.subarray(0, 33), ...chunks, bytes.subarray(33)]);
}

const messageOf = (promise: Promise<unknown>) =>
  promise.then(
    () => "no error",
    (error: unknown) => (error instanceof PatchwiseError ? error.message : String(error)),
  );

describe("encodePicture", () => {
  it.each(["png", "webp"] as const)(
    "keeps every pixel of grey and colour pictures in a %s file",
    async (format) => {
      for (const channels of [1, 3] as const) {
        const bytes = await encodePicture(picture(channels), { format, metadata });
        const space = channels === 1 ? "b-w" : "srgb";
        const { data, info } = await sharp(bytes)
          .toColourspace(space)
          .raw()
          .toBuffer({ resolveWithObject: true });
        expect([info.format, info.width, info.height, info.channels]).toEqual([
          "raw",
          7,
          5,
          channels,
        ]);
        expect([...data]).toEqual([...picture(channels).pixels]);
      }
    },
  );

  it("writes GIF files", async () => {
    const bytes = await encodePicture(picture(3), { format: "gif", metadata });
    expect(await sharp(bytes).metadata()).toMatchObject({ format: "gif", width: 7, height: 5 });
  });

  it("refuses pictures that are too large for the format", async () => {
    const wide = { width: 16384, height: 1, channels: 1, pixels: new Uint8Array(16384) } as const;
    await expect(encodePicture(wide, { format: "webp" })).rejects.toThrow(
      /^A picture of 16384×1 pixels cannot be written as WEBP: .*; choose another format or size\.$/,
    );
    await expect(encodePicture(wide, { format: "png" })).resolves.toBeInstanceOf(Uint8Array);
  });
});

describe("writePicture", () => {
  it("writes the format of the file's extension", async () => {
    for (const [name, format] of [
      ["a.png", "png"],
      ["b.WebP", "webp"],
      ["d.JPG", "jpeg"],
      ["e.jpeg", "jpeg"],
      ["c.gif", "gif"],
    ] as const) {
      const bytes = await writePicture(join(folder, name), picture(3), metadata);
      const written = await readFile(join(folder, name));
      expect(written.equals(bytes)).toBe(true);
      expect((await sharp(written).metadata()).format).toBe(format);
    }
    expect((await readdir(folder)).length).toBe(5);
  });

  it.each(["a.bmp", "a", "png", "a.png.txt"])("refuses the name %s", (name) => {
    expect(() => pictureFormat(name)).toThrow(
      new UsageError(
        `Cannot write a picture to ${name}: give a name that ends in .png, .jpg, .jpeg, .webp, .gif.`,
      ),
    );
  });
});

describe("readPictureMetadata", () => {
  it.each(["png", "jpg", "webp"])("reads what was written to a .%s file", async (format) => {
    const path = join(folder, `p.${format}`);
    for (const each of [
      metadata,
      { ...without(metadata, "negativePrompt"), class: "Ankle boot" },
    ]) {
      await writePicture(path, picture(3), each);
      expect(await readPictureMetadata(path)).toEqual(each);
    }
  });

  it("reads back arbitrary text", async () => {
    const texts = fc.string({ unit: "binary", maxLength: 20 });
    const law = fc.asyncProperty(
      texts,
      texts,
      fc.constantFrom("png" as const, "jpeg" as const, "webp" as const),
      async (prompt, negative, format) => {
        const path = join(folder, `p.${format}`);
        const told = { ...metadata, prompt, negativePrompt: negative };
        await writeFile(path, await encodePicture(picture(1), { format, metadata: told }));
        const found = await readPictureMetadata(path);
        return found.prompt === prompt && found.negativePrompt === negative;
      },
    );
    await expect(fc.assert(law, { seed: 2, numRuns: 30 })).resolves.toBeUndefined();
  });

  it("writes texts that other programs show", async () => {
    const bytes = await encodePicture(picture(3), { format: "png", metadata });
    const { comments } = await sharp(bytes).metadata();
    expect(comments).toEqual([
      { keyword: "parameters", text: parametersText(metadata) },
      { keyword: "patchwise", text: JSON.stringify(metadata) },
    ]);
    expect(parametersText(metadata)).toBe(
      "a café on 富士山 🗻, <at> night & day\nNegative prompt: blurry\n" +
        "Steps: 30, Sampler: euler, CFG scale: 3.5, Seed: 4294967296, Size: 7x5, Model: emoji, Version: patchwise 0.1.0",
    );
    const odd = { ...without(metadata, "prompt"), class: "a\0b", model: 'one, "two"' };
    expect(parametersText(odd)).toContain(', Model: "one, \\"two\\"", ');
    expect(parametersText(odd)).toMatch(/^a b\n/);
  });

  it("fails for files without metadata", async () => {
    for (const [name, content] of [
      ["plain.png", await png()],
      ["plain.webp", await encodePicture(picture(3), { format: "webp" })],
      ["drawn.gif", await encodePicture(picture(3), { format: "gif", metadata })],
      ["other.png", await pngWith(chunk("tEXt", "parameters\0a cat\nSteps: 20"))],
    ] as const) {
      const path = join(folder, name);
      await writeFile(path, content);
      await expect(readPictureMetadata(path)).rejects.toThrow(
        new UsageError(
          `${path} does not say how it was drawn; give a PNG, JPEG or WebP file that patchwise generate wrote.`,
        ),
      );
    }
  });

  it("fails for files that are missing, damaged or no pictures", async () => {
    const path = join(folder, "x.png");
    expect(await messageOf(readPictureMetadata(path))).toBe(
      `Cannot read ${path}: there is no such file or folder; check the path (ENOENT).`,
    );
    for (const content of ["no picture", ""]) {
      await writeFile(path, content);
      expect(await messageOf(readPictureMetadata(path))).toBe(
        `${path} is not a valid picture file; give another.`,
      );
    }
    await writeFile(path, await pngWith(chunk("iTXt", "patchwise\0\0\0\0\0{")));
    expect(await messageOf(readPictureMetadata(path))).toMatch(
      /^The description of how .* was drawn is damaged \(the whole: .*\); give another file\.$/,
    );
    const wrong = JSON.stringify({ ...metadata, seed: -1 });
    await writeFile(path, await pngWith(chunk("iTXt", `patchwise\0\0\0\0\0${wrong}`)));
    expect(await messageOf(readPictureMetadata(path))).toMatch(/damaged \(seed: /);
  });
});

describe("pngTexts", () => {
  it("reads all three kinds of text, compressed or not, and the first of two with one keyword", async () => {
    const packed = deflateSync(Buffer.from("packed"));
    const bytes = await pngWith(
      chunk("tEXt", Buffer.from("Latin\0é", "latin1")),
      chunk("zTXt", Buffer.concat([Buffer.from("Packed\0\0"), packed])),
      chunk("iTXt", Buffer.concat([Buffer.from("Both\0\x01\0en\0Beide\0"), packed])),
      chunk("iTXt", "Plain\0\0\0de\0Schlicht\0日本"),
      chunk("tEXt", "Plain\0second"),
      chunk("tEXt", "No end"),
    );
    expect([...pngTexts(bytes, "p")]).toEqual([
      ["Latin", "é"],
      ["Packed", "packed"],
      ["Both", "packed"],
      ["Plain", "日本"],
      ["No end", ""],
    ]);
    // An independent reader agrees.
    expect((await sharp(bytes).metadata()).comments).toContainEqual({
      keyword: "Plain",
      text: "日本",
    });
  });

  it("names what is wrong with a file", async () => {
    const sound = Buffer.from(await png());
    const of = (bytes: Uint8Array) => () => pngTexts(bytes, "p");
    const error = (reason: string) =>
      new FormatError(`p is not a valid PNG file: ${reason}; create or download it again.`);
    expect(of(sound.subarray(0, 7))).toThrow(error("it does not begin with the PNG signature"));
    expect(of(sound.subarray(0, -1))).toThrow(error("it ends too early"));
    expect(of(sound.subarray(0, -12))).toThrow(error("it ends too early"));
    const long = Buffer.from(sound);
    long.writeUInt32BE(0xffffffff, 33);
    expect(of(long)).toThrow(error("it ends too early"));
    expect(of(await pngWith(chunk("tEXt", "a\0b", 1)))).toThrow(
      error("the checksum of its tEXt chunk at byte 33 is wrong"),
    );
    expect(of(await pngWith(chunk("t\0Xt", "a\0b")))).toThrow(error("no chunk begins at byte 33"));
    const unpackable = error("a text in it cannot be decompressed to 16777216 bytes or fewer");
    expect(of(await pngWith(chunk("zTXt", "a\0\0no")))).toThrow(unpackable);
    const bomb = Buffer.concat([Buffer.from("a\0\0"), deflateSync(Buffer.alloc(2 ** 25))]);
    expect(of(await pngWith(chunk("zTXt", bomb)))).toThrow(unpackable);
  });

  it("returns texts or throws a FormatError for any damage", async () => {
    const packed = deflateSync(Buffer.alloc(99));
    // Slices of plain arrays are copies, unlike those of Buffers.
    const sound = [
      await encodePicture(picture(3), { format: "png", metadata }),
      await pngWith(
        chunk("zTXt", Buffer.concat([Buffer.from("Packed\0\0"), packed])),
        chunk("iTXt", Buffer.concat([Buffer.from("Both\0\x01\0en\0Beide\0"), packed])),
        chunk("tEXt", ""),
      ),
    ].map((bytes) => new Uint8Array(bytes));
    const random = generator(5);
    const outcomes = { read: 0, refused: 0 };
    for (let i = 0; i < 6000; i++) {
      let bytes = mutateBytes(random, sound[i % 2]!, sound[(i >> 1) % 2]!);
      // Correct the checksums of half of them, so that the checks behind them run too.
      if (random() < 0.5) bytes = repaired(bytes);
      try {
        pngTexts(bytes, "p");
        outcomes.read++;
      } catch (error) {
        if (!(error instanceof FormatError)) throw error;
        outcomes.refused++;
      }
    }
    expect(Math.min(outcomes.read, outcomes.refused)).toBeGreaterThan(500);
  });

  it("reads what withPngTexts wrote, and the file still decodes", async () => {
    const bytes = withPngTexts(await png(), { one: "日本", two: "" });
    expect([...pngTexts(bytes, "p")]).toEqual([
      ["one", "日本"],
      ["two", ""],
    ]);
    expect([...(await sharp(bytes).raw().toBuffer())]).toEqual([...picture(3).pixels]);
  });
});

describe("readPictureMetadata of a damaged WebP", () => {
  it("returns metadata or throws a PatchwiseError", async () => {
    const sound = new Uint8Array(await encodePicture(picture(3), { format: "webp", metadata }));
    const random = generator(6);
    const path = join(folder, "p.webp");
    const outcomes = { read: 0, refused: 0 };
    for (let i = 0; i < 300; i++) {
      await writeFile(path, mutateBytes(random, sound, sound));
      try {
        await readPictureMetadata(path);
        outcomes.read++;
      } catch (error) {
        if (!(error instanceof PatchwiseError)) throw error;
        outcomes.refused++;
      }
    }
    expect(Math.min(outcomes.read, outcomes.refused)).toBeGreaterThan(20);
  });
});

describe("pngShape", () => {
  it("reads the size and channels of every colour type", async () => {
    const colours = sharp(picture(3).pixels, { raw: { width: 7, height: 5, channels: 3 } });
    const shapes = [];
    for (const bytes of [
      await colours.clone().png().toBuffer(),
      await colours.clone().png({ palette: true }).toBuffer(),
      await colours.clone().ensureAlpha(0.5).png().toBuffer(),
      await colours.clone().toColourspace("b-w").png().toBuffer(),
      await colours.clone().ensureAlpha(0.5).toColourspace("b-w").png().toBuffer(),
    ]) {
      const { width, height, channels } = pngShape(bytes, "p");
      shapes.push([width, height, channels]);
    }
    expect(shapes).toEqual([3, 3, 4, 1, 2].map((channels) => [7, 5, channels]));
  });

  it("refuses an invalid header", async () => {
    const bytes = await png();
    const error = new FormatError(
      "p is not a valid PNG file: its header is invalid; create or download it again.",
    );
    const behind = (header: Uint8Array) =>
      Buffer.concat([bytes.subarray(0, 8), header, bytes.subarray(33)]);
    expect(() => pngShape(behind(chunk("IHDR", "short")), "p")).toThrow(error);
    expect(() => pngShape(behind(Buffer.alloc(0)), "p")).toThrow(error);
    expect(() => pngShape(behind(chunk("IHDR", new Uint8Array(13).fill(7))), "p")).toThrow(error);
  });
});

/** Corrects the checksum of each chunk that can be found. */
function repaired(bytes: Uint8Array): Uint8Array {
  const copy = Buffer.from(bytes);
  for (let at = 8; at + 12 <= copy.length;) {
    const end = at + 8 + copy.readUInt32BE(at);
    if (end + 4 > copy.length) break;
    copy.writeUInt32BE(crc32(copy.subarray(at + 4, end)), end);
    at = end + 4;
  }
  return copy;
}

function without<T extends object, K extends keyof T>(record: T, key: K): Omit<T, K> {
  const { [key]: _, ...rest } = record;
  return rest;
}
