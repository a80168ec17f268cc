import { readFileSync } from "node:fs";
import { crc32 } from "../../src/pictures/png.ts";
import sharp, { type Sharp } from "sharp";
import { describe, expect, it } from "vitest";
import type { Fitting } from "../../src/pictures/fitting.ts";
import { decodePicture, fitPicture, readPicture } from "../../src/pictures/decode-node.ts";
import { withChannels } from "../../src/pictures/picture.ts";
import { FormatError } from "../../src/engine/errors.ts";
import { messageOf, png } from "../data/support.ts";

const cover: Fitting = { fit: "cover", background: "white" };
const shape = (height: number, width: number, channels: 1 | 3 = 3) => ({ height, width, channels });

/** Raw pixels as a picture. */
function raw(pixels: readonly number[], width: number, height: number, channels: 1 | 2 | 3 | 4) {
  return sharp(Uint8Array.from(pixels), { raw: { width, height, channels } });
}

const decode = async (picture: Sharp, of = shape(2, 2), fitting: Fitting = cover) => [
  ...(await decodePicture(await picture.toBuffer(), "a.png", of, fitting)),
];

const checks = [255, 0, 0, 0, 255, 0, 0, 0, 255, 40, 50, 60];

/** Linear values of other primaries in those of sRGB. */
const adobeRgb = [
  [1.398281, -0.398285, 0],
  [0, 1, 0],
  [0, -0.042939, 1.042943],
];
const p3 = [
  [1.22494, -0.22494, 0],
  [-0.042057, 1.042057, 0],
  [-0.019638, -0.078636, 1.098274],
];

/** The curve of sRGB (IEC 61966-2-1) and its inverse. */
const linearOf = (value: number) =>
  value <= 255 * 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4;
const encoded = (value: number) =>
  255 * (value <= 0.0031308 ? 12.92 * Math.max(0, value) : 1.055 * value ** (1 / 2.4) - 0.055);
const srgbOf = (linear: readonly number[], matrix: readonly (readonly number[])[]) =>
  matrix.map((row) => encoded(row.reduce((sum, factor, i) => sum + factor * linear[i]!, 0)));

describe("decodePicture", () => {
  it("keeps every pixel of a picture that has the right size", async () => {
    expect(await decode(raw(checks, 2, 2, 3).png())).toEqual(checks);
    expect(await decode(raw(checks, 2, 2, 3).webp({ lossless: true }))).toEqual(checks);
  });

  it.each(["jpeg", "webp", "avif", "gif"] as const)("decodes %s files", async (format) => {
    const grey = await decode(
      sharp({ create: { width: 8, height: 8, channels: 3, background: "#406080" } }).toFormat(
        format,
      ),
      shape(1, 1),
    );
    expect(Math.max(...grey.map((value, i) => Math.abs(value - [64, 96, 128][i]!)))).toBeLessThan(
      4,
    );
  });

  it("crops both sides evenly for cover", async () => {
    const wide = raw([10, 20, 30, 40, 50, 60, 70, 80], 4, 2, 1);
    expect(await decode(wide.png(), shape(2, 2, 1))).toEqual([20, 30, 60, 70]);
  });

  it("pads with the background for contain", async () => {
    const wide = raw([10, 20, 30, 40], 2, 1, 2).png();
    const fitting = { fit: "contain", background: "#ff8000" } as const;
    const opaque = raw([1, 2, 3, 4, 5, 6], 2, 1, 3).png();
    const contained = await decode(opaque, shape(3, 2), fitting);
    expect(contained.slice(0, 3)).toEqual([255, 128, 0]);
    expect(contained.slice(6, 12)).toEqual([1, 2, 3, 4, 5, 6]);
    expect(contained.slice(12, 15)).toEqual([255, 128, 0]);
    // Of an opacity of 20 / 255, the background has 235 parts; libvips rounds down.
    expect((await decode(wide, shape(1, 2), fitting)).slice(0, 3)).toEqual([235, 118, 0]);
  });

  it("shows the background through transparent pixels", async () => {
    const clear = raw([9, 9, 9, 0, 9, 9, 9, 255], 2, 1, 4).png();
    expect(await decode(clear, shape(1, 2))).toEqual([255, 255, 255, 9, 9, 9]);
    const onBlack = { fit: "cover", background: "black" } as const;
    expect(await decode(clear, shape(1, 2), onBlack)).toEqual([0, 0, 0, 9, 9, 9]);
  });

  it("converts to the requested number of channels", async () => {
    const grey = raw([0, 100, 200, 255], 2, 2, 1).toColourspace("b-w").png();
    expect(await decode(grey, shape(2, 2, 1))).toEqual([0, 100, 200, 255]);
    const spread = [0, 100, 200, 255].flatMap((value) => [value, value, value]);
    expect(await decode(grey)).toEqual(spread);
    const black = await decode(raw(checks, 2, 2, 3).png(), shape(2, 2, 1));
    expect(black).toHaveLength(4);
    // Green is brighter to the eye than red, and red than blue.
    expect(black[1]).toBeGreaterThan(black[0]!);
    expect(black[0]).toBeGreaterThan(black[2]!);
  });

  it("converts 16 bits a channel to 8", async () => {
    const deep = sharp(Uint16Array.from([0, 0x8080, 0xffff, 0x4040]), {
      raw: { width: 2, height: 2, channels: 1 },
    });
    const bytes = await deep.toColourspace("grey16").png().toBuffer();
    expect((await sharp(bytes).metadata()).depth).toBe("ushort");
    const pixels = await decodePicture(bytes, "deep.png", shape(2, 2, 1), cover);
    expect([...pixels]).toEqual([0, 0x80, 0xff, 0x40]);
  });

  it("converts profiles to sRGB alike at 8 and 16 bits", async () => {
    // Adobe RGB (1998) and IEC 61966-2-1, by their definitions.
    const linear = [200, 60, 30].map((value) => (value / 255) ** (563 / 256));
    const adobe = srgbOf(linear, adobeRgb);
    for (const [name, want] of [
      ["rgb8-adobe", adobe],
      ["rgb16-adobe", adobe],
      ["rgb16-srgbicc", [200, 60, 30]],
    ] as const) {
      const bytes = readFileSync(new URL(`../fixtures/pictures/${name}.png`, import.meta.url));
      const fitted = await decodePicture(bytes, name, shape(1, 1), cover);
      const own = await readPicture(bytes);
      for (const [i, value] of want.entries()) {
        expect(Math.abs(fitted[i]! - value)).toBeLessThanOrEqual(1.5);
        expect(Math.abs(own.pixels[i]! - value)).toBeLessThanOrEqual(1.5);
      }
    }
  });

  it.each(["png", "avif"] as const)(
    "reads Display P3 in %s files of 10 to 16 bits",
    async (format) => {
      const colours = Uint16Array.from(
        { length: 16 * 16 * 3 },
        (_, i) => [200, 60, 30][i % 3]! * 257,
      );
      const wide = sharp(colours, { raw: { width: 16, height: 16, channels: 3 } })
        .toColourspace("rgb16")
        .withIccProfile("p3");
      const bytes = await (
        format === "png" ? wide.png() : wide.avif({ bitdepth: 10, lossless: true })
      ).toBuffer();
      expect((await sharp(bytes).metadata()).depth).toBe("ushort");
      const pixels = await decodePicture(bytes, "wide", shape(1, 1), cover);
      // From (200, 60, 30) in Display P3, by its definition: the primaries of DCI-P3 and the curve of sRGB.
      for (const [i, value] of srgbOf([200, 60, 30].map(linearOf), p3).entries()) {
        expect(Math.abs(pixels[i]! - value)).toBeLessThanOrEqual(1.5);
      }
    },
  );

  it("converts grey profiles alike at 8 and 16 bits, with alpha and without", async () => {
    for (const [name, gamma] of [
      ["grey8-gamma1", 1],
      ["grey16-gamma1", 1],
      ["greyalpha8-gamma18", 461 / 256],
      ["greyalpha16-gamma18", 461 / 256],
    ] as const) {
      const bytes = readFileSync(new URL(`../fixtures/pictures/${name}.png`, import.meta.url));
      const want = encoded((150 / 255) ** gamma);
      const values = [
        ...(await decodePicture(bytes, name, shape(1, 1), cover)),
        ...(await decodePicture(bytes, name, shape(1, 1, 1), cover)),
        ...(await readPicture(bytes)).pixels,
      ];
      for (const value of values) expect(Math.abs(value - want)).toBeLessThanOrEqual(1);
    }
  });

  describe.each([8, 16] as const)("of a PNG file of %i bits without a profile", (depth) => {
    const [r, g, b] = [200, 60, 30];
    /** A file with chunks behind its header. */
    async function withChunks(chunks: Readonly<Record<string, Uint8Array>>, channels: 3 | 4 = 3) {
      const values = Array.from({ length: 4 }, () => [r, g, b, 255].slice(0, channels)).flat();
      const file = await (
        depth === 8
          ? raw(values, 2, 2, channels)
          : sharp(
              Uint16Array.from(values, (value) => 257 * value),
              {
                raw: { width: 2, height: 2, channels },
              },
            ).toColourspace("rgb16")
      )
        .png()
        .toBuffer();
      const added = Object.entries(chunks).map(([type, data]) => {
        const chunk = Buffer.alloc(12 + data.length);
        chunk.writeUInt32BE(data.length, 0);
        chunk.write(type, 4, "latin1");
        chunk.set(data, 8);
        chunk.writeUInt32BE(crc32(chunk.subarray(4, 8 + data.length)), 8 + data.length);
        return chunk;
      });
      return Buffer.concat([file.subarray(0, 33), ...added, file.subarray(33)]);
    }
    const numbers = (...values: number[]) => {
      const bytes = Buffer.alloc(4 * values.length);
      for (const [i, value] of values.entries()) bytes.writeUInt32BE(value, 4 * i);
      return bytes;
    };
    const srgbPoints = numbers(31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000);
    const p3Points = numbers(31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000);
    const adobePoints = numbers(31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000);
    const inP3 = srgbOf([r, g, b].map(linearOf), p3);

    it.each<[string, Record<string, Uint8Array>, number[]]>([
      ["gAMA and cHRM of sRGB", { gAMA: numbers(45455), cHRM: srgbPoints }, [r, g, b]],
      ["gAMA of 1", { gAMA: numbers(100000) }, [r, g, b].map((value) => encoded(value / 255))],
      ["cHRM of Display P3", { gAMA: numbers(45455), cHRM: p3Points }, inP3],
      [
        "gAMA and cHRM of Adobe RGB",
        { gAMA: numbers(45470), cHRM: adobePoints },
        srgbOf([r, g, b].map(linearOf), adobeRgb),
      ],
      ["sRGB in front of gAMA", { sRGB: Buffer.of(0), gAMA: numbers(100000) }, [r, g, b]],
      ["cICP of sRGB", { cICP: Buffer.of(1, 13, 0, 1) }, [r, g, b]],
      ["cICP of Display P3", { cICP: Buffer.of(12, 13, 0, 1) }, inP3],
      ["cICP in front of sRGB", { cICP: Buffer.of(12, 13, 0, 1), sRGB: Buffer.of(0) }, inP3],
      ["points that are no colours", { cHRM: numbers(0, 0, 0, 0, 0, 0, 0, 0) }, [r, g, b]],
    ])("converts from %s", async (_, chunks, want) => {
      for (const channels of [3, 4] as const) {
        const bytes = await withChunks(chunks, channels);
        const fitted = await decodePicture(bytes, "a.png", shape(1, 1), cover);
        const own = await readPicture(bytes);
        for (const [i, value] of want.entries()) {
          expect(Math.abs(fitted[i]! - value)).toBeLessThanOrEqual(1);
          expect(Math.abs(own.pixels[i]! - value)).toBeLessThanOrEqual(1);
        }
      }
    });

    it.each([
      [16, "PQ"],
      [18, "HLG"],
    ])("refuses the transfer function %i of high dynamic range", async (transfer, name) => {
      const bytes = await withChunks({ cICP: Buffer.of(9, transfer, 0, 1) });
      expect(await messageOf(readPicture(bytes, { name: "a.png" }))).toBe(
        `FormatError: a.png cannot be read as a picture: it is of high dynamic range (${name}) and has to be converted to sRGB first; download it again or remove it.`,
      );
    });
  });

  it.each([8, 10] as const)(
    "converts an AVIF file of %i bits by its nclx box",
    async (bitdepth) => {
      const values = Array.from({ length: 16 * 16 }, () => [200, 60, 30]).flat();
      const file = await raw(values, 16, 16, 3).avif({ lossless: true, bitdepth }).toBuffer();
      const box = file.indexOf("nclx");
      const tagged = (primaries: number, transfer: number) => {
        const copy = Buffer.from(file);
        copy.writeUInt16BE(primaries, box + 4);
        copy.writeUInt16BE(transfer, box + 6);
        return copy;
      };
      const light = [200, 60, 30].map(linearOf);
      for (const [bytes, want] of [
        [file, [200, 60, 30]],
        [tagged(2, 2), [200, 60, 30]],
        [tagged(1, 1), [200, 60, 30]],
        [tagged(12, 13), srgbOf(light, p3)],
        [tagged(1, 8), [200, 60, 30].map((value) => encoded(value / 255))],
      ] as const) {
        const pixels = await decodePicture(bytes, "a.avif", shape(1, 1), cover);
        for (const [i, value] of want.entries())
          expect(Math.abs(pixels[i]! - value)).toBeLessThanOrEqual(1.5);
      }
      await expect(readPicture(tagged(9, 16))).rejects.toThrow(/of high dynamic range \(PQ\)/);
      await expect(readPicture(tagged(99, 13))).rejects.toThrow(/the primaries 99 and/);
    },
  );

  it("makes the grey that withChannels makes", async () => {
    const red = await raw(Array.from({ length: 4 }, () => [255, 0, 0]).flat(), 2, 2, 3)
      .png()
      .toBuffer();
    const [value] = await decodePicture(red, "red", shape(1, 1, 1), cover);
    // ITU-R BT.601, as in Pillow.
    expect(value).toBe(76);
    expect(withChannels(await readPicture(red), 1).pixels[0]).toBe(76);
  });

  it("converts CMYK to sRGB", async () => {
    const printed = await sharp({ create: { width: 8, height: 8, channels: 3, background: "red" } })
      .toColourspace("cmyk")
      .jpeg()
      .toBuffer();
    expect((await sharp(printed).metadata()).space).toBe("cmyk");
    const [red, green, blue] = await decodePicture(printed, "p.jpg", shape(1, 1), cover);
    expect(red).toBeGreaterThan(190);
    expect(Math.max(green!, blue!)).toBeLessThan(70);
  });

  it("applies EXIF orientation", async () => {
    const lying = raw([10, 20], 2, 1, 1).withExif({ IFD0: {} }).withMetadata({ orientation: 6 });
    expect(await decode(lying.png(), shape(2, 1, 1))).toEqual([10, 20]);
  });

  it("takes the first frame of an animation", async () => {
    const frames = await Promise.all([png(255), png(0)]);
    const animated = await sharp(frames as Buffer[], { join: { animated: true } })
      .webp({ lossless: true })
      .toBuffer();
    expect((await sharp(animated).metadata()).pages).toBe(2);
    const pixels = await decodePicture(animated, "a.webp", shape(1, 1), cover);
    expect([...pixels]).toEqual([255, 0, 0]);
  });
});

describe("fitPicture", () => {
  it("fits pixels as decodePicture fits a file", async () => {
    const pixels = Uint8Array.from({ length: 6 * 4 * 3 }, (_, i) => (i * 37) % 256);
    const picture = { pixels, width: 6, height: 4, channels: 3 } as const;
    const file = await sharp(pixels, { raw: { width: 6, height: 4, channels: 3 } })
      .png()
      .toBuffer();
    for (const of of [shape(2, 2), shape(5, 3), shape(4, 6), shape(3, 3, 1)]) {
      const fitted = await fitPicture(picture, of, cover);
      expect([...fitted]).toEqual([...(await decodePicture(file, "f.png", of, cover))]);
    }
  });
});

describe("decodePicture of a damaged file", () => {
  const attempt = (bytes: Uint8Array) =>
    messageOf(decodePicture(bytes, "pictures/a.png", shape(2, 2), cover));

  it("names the file and the reason", async () => {
    const text = new TextEncoder().encode("just a text");
    expect(await attempt(text)).toMatch(
      /^FormatError: pictures\/a\.png cannot be read as a picture: .*; download it again or remove it\.$/,
    );
    expect(await attempt(new Uint8Array())).toBe(
      "FormatError: pictures/a.png is empty; download it again or remove it.",
    );
    const pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n";
    expect(await attempt(new TextEncoder().encode(pointer))).toContain("git lfs pull");
  });

  it("refuses a PNG file of a few bytes that promises many pixels, before it decodes any", async () => {
    const file = await sharp({ create: { width: 8, height: 8, channels: 3, background: "red" } })
      .png()
      .toBuffer();
    file.writeUInt32BE(15_000, 16);
    file.writeUInt32BE(15_000, 20);
    file.writeUInt32BE(crc32(file.subarray(12, 29)), 29);
    await expect(readPicture(file)).rejects.toThrow(
      /its header promises 225000000 pixels, more than \d+ bytes can hold/,
    );
  });

  it("refuses other files that promise too much, before it decodes any", async () => {
    const of = (width: number, height: number) =>
      sharp({ create: { width, height, channels: 3, background: "red" } });
    const webp = await of(16_000, 1_100).webp({ lossless: true, effort: 0 }).toBuffer();
    expect(webp.length).toBeLessThan(100);
    await expect(readPicture(webp)).rejects.toThrow(
      "its header promises 17600000 pixels, more than",
    );
    const wide = await of(70_000, 1).png().toBuffer();
    await expect(readPicture(wide)).rejects.toThrow(
      "it has 70000×1 pixels, but only sides up to 65535",
    );
    expect((await readPicture(await of(60_000, 1).png().toBuffer())).width).toBe(60_000);
  });

  it("refuses a truncated file", async () => {
    const noise = Uint8Array.from({ length: 64 * 64 * 3 }, (_, i) => (i * i * 31) % 251);
    const whole = sharp(noise, { raw: { width: 64, height: 64, channels: 3 } });
    for (const file of [await whole.clone().jpeg().toBuffer(), await whole.png().toBuffer()]) {
      await expect(
        decodePicture(file.subarray(0, file.length / 2), "cut", shape(8, 8), cover),
      ).rejects.toThrow(FormatError);
    }
  });

  it.each([false, true])(
    "refuses a JPEG that lost its end but not its end mark (progressive: %s)",
    async (progressive) => {
      const noise = Uint8Array.from({ length: 64 * 64 * 3 }, (_, i) => (i * i * 31) % 251);
      const file = await raw([...noise], 64, 64, 3)
        .jpeg({ progressive })
        .toBuffer();
      const half = Buffer.concat([file.subarray(0, file.length / 2), file.subarray(-2)]);
      const decoded = (bytes: Uint8Array) =>
        messageOf(decodePicture(bytes, "a.jpg", shape(8, 8), cover));
      expect(await decoded(half)).toContain("premature end of data segment");
      // Bytes between the segments, as some cameras write them, cost no pixels.
      const odd = Buffer.concat([file.subarray(0, 20), Buffer.alloc(5), file.subarray(20)]);
      expect(await decoded(odd)).toBe("no error");
    },
  );

  it.each([{}, { progressive: true }, { chromaSubsampling: "4:4:4" }])(
    "refuses a JPEG in which a part of the data was overwritten (%j)",
    async (options) => {
      const values = Array.from({ length: 64 * 64 * 3 }, (_, i) => 128 + 90 * Math.sin(i * i));
      const file = await raw(values, 64, 64, 3).jpeg(options).toBuffer();
      const decoded = (bytes: Uint8Array) =>
        messageOf(decodePicture(bytes, "a.jpg", shape(8, 8), cover));
      const overwritten = (byte: (i: number) => number) =>
        file.map((value, i) => (i > file.length * 0.45 && i < file.length * 0.9 ? byte(i) : value));
      expect(await decoded(overwritten(() => 0))).toContain("cannot be read as a picture");
      expect(await decoded(overwritten((i) => (i * 7919) % 255))).toContain("cannot be read as");
    },
  );

  it("reads whole JPEGs of all kinds", async () => {
    const kinds = [{}, { progressive: true }, { mozjpeg: true }, { chromaSubsampling: "4:4:4" }];
    for (const [width, height] of [
      [1, 1],
      [17, 33],
      [64, 40],
    ] as const) {
      for (const channels of [1, 3] as const) {
        for (const value of [() => 200, (i: number) => (i * 7919) % 251]) {
          const values = Array.from({ length: width * height * channels }, (_, i) => value(i));
          for (const kind of kinds) {
            const file = await raw(values, width, height, channels).jpeg(kind).toBuffer();
            expect(await messageOf(decodePicture(file, "a", shape(8, 8), cover))).toBe("no error");
          }
        }
      }
    }
  });
});
