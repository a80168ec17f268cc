import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import sharp from "sharp";
import { afterAll, describe, expect, it, vi } from "vitest";
import { PatchwiseError, UsageError } from "../../src/engine/errors.ts";
import { clipOfPictures, frameDelays, picturesOfClip } from "../../src/pictures/clip.ts";
import { clipFormat, encodeClip, readClip, writeClip } from "../../src/pictures/clip-file-node.ts";
import { readPictureMetadata, writePicture } from "../../src/pictures/file-node.ts";
import type { Picture } from "../../src/pictures/picture.ts";
import { crc32, pngOfChunks } from "../../src/pictures/png.ts";
import { pngChunks } from "../../src/pictures/png-node.ts";

const scratch = mkdtempSync(path.join(tmpdir(), "patchwise-clips-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

/** Frames of a square that moves, of plain colours that GIF keeps. */
const frames: Picture[] = Array.from({ length: 5 }, (_, frame) => {
  const pixels = new Uint8Array(12 * 8 * 3).fill(255);
  for (let y = 2; y < 5; y++) {
    for (let x = frame; x < frame + 3; x++) pixels.set([255, 0, 0], (y * 12 + x) * 3);
  }
  return { width: 12, height: 8, channels: 3, pixels };
});
const clip = clipOfPictures(frames);
const metadata = {
  prompt: "a square",
  seed: 1,
  steps: 2,
  guidance: 1,
  sampler: "euler",
  width: 12,
  height: 8,
  model: "it",
  version: "0",
};

it.each(["webp", "gif"] as const)(
  "a %s file gives back the frames and the rate",
  async (format) => {
    const file = path.join(scratch, `square.${format}`);
    await writeClip(file, clip, 12.5, metadata);
    const read = await readClip(file);
    expect(read.clip).toEqual(clip);
    expect(read.fps).toBeCloseTo(12.5, 1);
    const { pages, loop } = await sharp(file).metadata();
    expect([pages, loop]).toEqual([5, 0]);
  },
);

it("a WebP file says how it was drawn", async () => {
  const file = path.join(scratch, "told.webp");
  await writeClip(file, clip, 10, metadata);
  expect(await readPictureMetadata(file)).toMatchObject({ prompt: "a square", steps: 2 });
});

describe("an animated PNG", () => {
  const chunks = (png: Uint8Array) => {
    const found: { type: string; data: Uint8Array; valid: boolean }[] = [];
    const view = new DataView(png.buffer, png.byteOffset, png.length);
    for (let at = 8; at < png.length;) {
      const end = at + 8 + view.getUint32(at);
      const type = new TextDecoder().decode(png.subarray(at + 4, at + 8));
      const valid = crc32(png.subarray(at + 4, end)) === view.getUint32(end);
      found.push({ type, data: png.subarray(at + 8, end), valid });
      at = end + 4;
    }
    return found;
  };

  it("has every frame, numbered, and shows the first to programs that know no animation", async () => {
    const png = await encodeClip(clip, { format: "apng", fps: 3 });
    const found = chunks(png);
    expect(found.every(({ valid }) => valid)).toBe(true);
    expect(found.map(({ type }) => type)).toEqual([
      "IHDR",
      "acTL",
      "fcTL",
      "IDAT",
      ...Array.from({ length: 4 }, () => ["fcTL", "fdAT"]).flat(),
      "IEND",
    ]);
    const number = (data: Uint8Array, at: number, bytes: number) =>
      data.subarray(at, at + bytes).reduce((sum, byte) => sum * 256 + byte, 0);
    const sequence = found
      .filter(({ type }) => type === "fcTL" || type === "fdAT")
      .map(({ data }) => number(data, 0, 4));
    expect(sequence).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8]);
    const delays = found
      .filter(({ type }) => type === "fcTL")
      .map(({ data }) => number(data, 20, 2));
    expect(delays).toEqual([333, 334, 333, 333, 334]);
    const first = await sharp(png).raw().toBuffer();
    expect(new Uint8Array(first)).toEqual(frames[0]!.pixels);
  });

  it("has frames that are PNG pictures by themselves", async () => {
    const found = chunks(await encodeClip(clip, { format: "apng", fps: 3 }));
    const still = chunks(
      new Uint8Array(await encodeClip(clipOfPictures([frames[4]!]), { format: "apng", fps: 3 })),
    );
    const last = found.findLast(({ type }) => type === "fdAT")!;
    expect(last.data.subarray(4)).toEqual(still.find(({ type }) => type === "IDAT")!.data);
  });
});

it("an animated PNG gives back the frames and the rate", async () => {
  const file = path.join(scratch, "square.png");
  await writeClip(file, clip, 12.5);
  const read = await readClip(file);
  expect(read.clip).toEqual(clip);
  expect(read.fps).toBeCloseTo(12.5, 9);
});

it("an animated PNG of parts of the canvas is composed as its frames say", async () => {
  // A red canvas of 3×1, then a green pixel at 1 which goes again, then half of a blue one at 2 over the red.
  const still = (pixels: readonly number[], width: number) =>
    sharp(Uint8Array.from(pixels), { raw: { width, height: 1, channels: 4 } })
      .png()
      .toBuffer();
  const parts = [
    {
      png: await still([255, 0, 0, 255, 255, 0, 0, 255, 255, 0, 0, 255], 3),
      left: 0,
      dispose: 0,
      blend: 0,
    },
    { png: await still([0, 255, 0, 255], 1), left: 1, dispose: 2, blend: 0 },
    { png: await still([0, 0, 255, 128], 1), left: 2, dispose: 0, blend: 1 },
  ];
  const header = [...pngChunks(parts[0]!.png, "it")][0]!;
  let sequence = 0;
  const chunks = parts.flatMap(({ png, left, dispose, blend }, i) => {
    const control = new DataView(new ArrayBuffer(26));
    control.setUint32(0, sequence++);
    control.setUint32(4, i === 0 ? 3 : 1);
    control.setUint32(8, 1);
    control.setUint32(12, left);
    control.setUint16(20, 1);
    control.setUint16(22, 0);
    control.setUint8(24, dispose);
    control.setUint8(25, blend);
    const data = [...pngChunks(png, "it")].filter(({ type }) => type === "IDAT");
    const rows = data.map((chunk) =>
      i === 0
        ? chunk
        : { type: "fdAT", data: Uint8Array.from([0, 0, 0, sequence++, ...chunk.data]) },
    );
    return [{ type: "fcTL", data: new Uint8Array(control.buffer) }, ...rows];
  });
  const animation = { type: "acTL", data: Uint8Array.from([0, 0, 0, 3, 0, 0, 0, 0]) };
  const end = { type: "IEND", data: new Uint8Array(0) };
  const file = path.join(scratch, "parts.png");
  writeFileSync(file, pngOfChunks([header, animation, ...chunks, end]));
  const read = await readClip(file);
  expect(read.fps).toBe(100);
  const red = [255, 0, 0];
  expect(picturesOfClip(read.clip).map(({ pixels }) => [...pixels])).toEqual([
    [...red, ...red, ...red],
    [...red, 0, 255, 0, ...red],
    [...red, ...red, 127, 0, 128],
  ]);
  writeFileSync(file, pngOfChunks([header, animation, end]));
  await expect(readClip(file)).rejects.toThrow("a part of its frames is missing");
  const sized = (width: number, height: number) => {
    const data = new Uint8Array(header.data);
    const view = new DataView(data.buffer);
    view.setUint32(0, width);
    view.setUint32(4, height);
    return { type: "IHDR", data };
  };
  const padding = { type: "tEXt", data: new Uint8Array(100_000) };
  for (const [size, more, message] of [
    [sized(10_000, 10_000), [], "its header promises 100000000 pixels"],
    [sized(20_000, 5_000), [padding], "3 frames of 20000×5000 do not fit in memory"],
    [sized(1, 1), [], "a frame is larger than the picture"],
  ] as const) {
    writeFileSync(file, pngOfChunks([size, animation, ...more, ...chunks, end]));
    await expect(readClip(file)).rejects.toThrow(message);
  }
});

it("of an empty file is refused", async () => {
  for (const name of ["empty.webp", "empty.gif", "empty.png"]) {
    const file = path.join(scratch, name);
    writeFileSync(file, "");
    await expect(readClip(file)).rejects.toThrow(`${name} is empty`);
  }
});

describe.each(["mp4", "webm"] as const)("a film in %s", (format) => {
  const installed = spawnSync("ffmpeg", ["-version"]).status === 0;
  const file = path.join(scratch, `square.${format}`);

  it("has the frames and the rate, or one sentence says that ffmpeg is missing", async () => {
    const written = await writeClip(file, clip, 12.5).then(
      () => readClip(file),
      (error: Error) => error.message,
    );
    const missing = `${file} needs ffmpeg, which is not installed; install it, or give a name that ends in .webp, .gif or .png.`;
    const film = { fps: 12.5, clip: { frames: 5, width: 12, height: 8, channels: 3 } };
    expect(installed ? written : { written }).toMatchObject(
      installed ? film : { written: missing },
    );
    const shown = typeof written === "string" ? clip : written.clip;
    const far = shown.pixels.filter((value, i) => Math.abs(value - clip.pixels[i]!) > 100);
    // Colours have a quarter of the resolution.
    expect(far.length).toBeLessThan(clip.pixels.length / 20);
    writeFileSync(file, "no film");
    await expect(readClip(file)).rejects.toThrow(PatchwiseError);
  });

  it("is no playlist, which names other files", async () => {
    const [film, list] = [`real.${format}`, `list.${format}`].map((name) =>
      path.join(scratch, name),
    );
    await writeClip(film!, clip, 10).catch(() => {});
    writeFileSync(list!, `ffconcat version 1.0\nfile real.${format}\n`);
    await expect(readClip(list!)).rejects.toThrow(
      installed ? "ffmpeg cannot read" : "needs ffmpeg",
    );
  });

  it("needs an ffmpeg in the path", async () => {
    vi.stubEnv("PATH", scratch);
    const writing = writeClip(path.join(scratch, `none.${format}`), clip, 10);
    await expect(writing).rejects.toThrow(
      "needs ffmpeg, which is not installed; install it, or give a name",
    );
    vi.unstubAllEnvs();
  });
});

it("a folder of pictures is a clip in the order of their numbers", async () => {
  const folder = path.join(scratch, "frames");
  mkdirSync(folder);
  for (const [i, frame] of frames.entries()) {
    await writePicture(path.join(folder, `frame-${i + 8}.png`), frame);
  }
  writeFileSync(path.join(folder, "notes.txt"), "not a frame");
  expect(await readClip(folder)).toEqual({ clip, fps: undefined });
});

it("a picture is a clip of one frame", async () => {
  const file = path.join(scratch, "still.png");
  await writePicture(file, frames[0]!);
  expect((await readClip(file)).clip).toEqual(clipOfPictures([frames[0]!]));
  expect(picturesOfClip(clip)[3]!.pixels).toEqual(frames[3]!.pixels);
});

it("delays add up to the length of the clip", () => {
  for (const [fps, unit] of [
    [24, 1],
    [29.97, 1],
    [12, 10],
    [1000, 1],
  ] as const) {
    const delays = frameDelays(100, fps, unit);
    const sum = delays.reduce((total, delay) => total + delay, 0);
    expect(Math.abs(sum - 100_000 / fps)).toBeLessThanOrEqual(unit / 2);
  }
});

describe("refusals", () => {
  const empty = path.join(scratch, "empty");
  mkdirSync(empty);

  it.each<[string, () => unknown, string]>([
    [
      "a name without animation",
      () => clipFormat("x.jpg"),
      "x.jpg, because this format holds no animation",
    ],
    ["a rate of 0", () => frameDelays(3, 0, 1), "A clip of 0 frames a second"],
    ["a rate that GIF cannot show", () => frameDelays(3, 120, 10), "at most 100"],
    ["no frames", () => clipOfPictures([]), "at least one frame"],
    [
      "frames of several sizes",
      () => clipOfPictures([frames[0]!, { ...frames[1]!, width: 8, height: 12 }]),
      "frame 2 is 8×12 and the first is 12×8",
    ],
    ["an empty folder", () => readClip(empty), "has no picture to be a frame"],
    [
      "a file that is not there",
      () => readClip(path.join(scratch, "none.gif")),
      "Cannot read the clip",
    ],
  ])("%s", async (_, attempt, message) => {
    const failing = (async () => attempt())();
    await expect(failing).rejects.toThrow(UsageError);
    await expect(failing).rejects.toThrow(message);
  });
});
