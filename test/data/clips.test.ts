import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { dataSchema } from "../../src/data/config.ts";
import { directLoader } from "../../src/data/loading/batch-reader.ts";
import { pictureLayout } from "../../src/data/loading/batches.ts";
import { pictureSet } from "../../src/data/memory.ts";
import { animated, inMotion, type MotionName } from "../../src/data/motions.ts";
import { openData } from "../../src/data/open-node.ts";
import { UsageError } from "../../src/engine/errors.ts";
import { clipOfPictures } from "../../src/pictures/clip.ts";
import { writeClip } from "../../src/pictures/clip-file-node.ts";
import { writePicture } from "../../src/pictures/file-node.ts";
import type { Picture } from "../../src/pictures/picture.ts";

const scratch = mkdtempSync(path.join(tmpdir(), "patchwise-clip-data-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

/** A grey picture of one value; frame i of a clip has the value 10·i. */
function plain(value: number, side = 4): Picture {
  const pixels = new Uint8Array(side * side * 3).fill(value);
  return { width: side, height: side, channels: 3, pixels };
}
const clipOf = (frames: number) =>
  clipOfPictures(Array.from({ length: frames }, (_, i) => plain(10 * i)));

const shape = { width: 4, height: 4, channels: 3, frames: 3 } as const;
/** The value of each frame of pixels. */
const valuesOf = (pixels: Uint8Array) => [...pixels].filter((_, i) => i % 48 === 0);

describe("a folder of clips", () => {
  const folder = path.join(scratch, "clips");
  const open = (more = {}) =>
    openData(dataSchema.parse({ kind: "clips", path: folder, ...more }), shape);

  it("has animated files, folders of numbered frames and stills, with their captions", async () => {
    mkdirSync(path.join(folder, "walk"), { recursive: true });
    await writeClip(path.join(folder, "run.webp"), clipOf(6), 10);
    await writeClip(path.join(folder, "sit.png"), clipOf(3), 5);
    await writePicture(path.join(folder, "still.jpg"), plain(90));
    for (let i = 0; i < 4; i++) {
      await writePicture(path.join(folder, "walk", `f${8 + i}.png`), plain(10 * i + 5));
    }
    for (const name of ["run", "sit", "still", "walk"]) {
      writeFileSync(path.join(folder, `${name}.txt`), `to ${name}\n`);
    }
    const data = await open();
    const examples = await Promise.all(
      Array.from({ length: data.count }, (_, index) => data.example(index)),
    );
    const found = examples.map(({ captions, pixels }) => [captions[0], valuesOf(pixels)]);
    expect(Object.fromEntries(found)).toEqual({
      "to run": [0, 10, 20, 30, 40, 50],
      "to sit": [0, 10, 20],
      "to still": [90],
      "to walk": [5, 15, 25, 35],
    });
    await data.close();
  });

  it("is sampled by rate and stride", async () => {
    const runs = async (more: object) => {
      const data = await open(more);
      const all = await Promise.all(Array.from({ length: data.count }, (_, i) => data.example(i)));
      return valuesOf(all.find(({ captions }) => captions[0] === "to run")!.pixels);
    };
    expect(await runs({ fps: 5 })).toEqual([0, 20, 40]);
    expect(await runs({ stride: 3 })).toEqual([0, 30]);
    expect(await runs({ fps: 5, stride: 2 })).toEqual([0, 40]);
  });

  it("is no data for a model of stills, and empty folders hold no clips", async () => {
    const config = dataSchema.parse({ kind: "clips", path: folder });
    const still = { width: 4, height: 4, channels: 3 } as const;
    await expect(openData(config, still)).rejects.toThrow("set picture.frames");
    const empty = dataSchema.parse({ kind: "clips", path: mkdtempSync(path.join(scratch, "e")) });
    await expect(openData(empty, shape)).rejects.toThrow(UsageError);
  });

  it("gives batches of parts that depend on the seed and the position alone", async () => {
    const data = await open();
    const batches = async (seed: number, from: number) => {
      const layout = pictureLayout(shape);
      const loader = directLoader(data, { layout, batch: 4, seed, flip: false, from });
      return [await loader.next(), await loader.next()];
    };
    const [first, second] = await batches(1, 0);
    const [again] = await batches(1, 1);
    expect(again).toEqual(second);
    expect(await batches(1, 0)).toEqual([first, second]);
    for (const batch of [first!, second!]) {
      for (const [row, length] of [...batch.lengths!].entries()) {
        const values = valuesOf(batch.pixels.subarray(row * 144, (row + 1) * 144));
        const caption = batch.captions![row];
        expect(length).toBe(caption === "to still" ? 1 : 3);
        const step = caption === "to still" ? 0 : 10;
        expect(values).toEqual([values[0], values[0]! + step, values[0]! + 2 * step]);
      }
    }
    const starts = await Promise.all(
      Array.from({ length: 6 }, async (_, seed) => {
        const [batch] = await batches(seed, 0);
        const row = batch!.captions!.indexOf("to run");
        return batch!.pixels[row * 144]!;
      }),
    );
    expect(new Set(starts).size).toBeGreaterThan(1);
  });
});

describe("pictures in motion", () => {
  /** White with a black pixel above the middle. */
  const side = 9;
  const dotted = new Uint8Array(side * side).fill(255);
  dotted[2 * side + 4] = 0;
  const size = { width: side, height: side, channels: 1, frames: 8 } as const;
  const framesOf = (name: MotionName, still = dotted) => {
    const clip = inMotion(still, size, name);
    return Array.from({ length: 8 }, (_, i) => clip.subarray(i * side ** 2, (i + 1) * side ** 2));
  };
  /** The mean place of what is dark, from the middle, and how dark it is. */
  const dark = (frame: Uint8Array) => {
    let [sum, x, y] = [0, 0, 0];
    for (const [i, value] of frame.entries()) {
      sum += 255 - value;
      x += (255 - value) * ((i % side) - 4);
      y += (255 - value) * (Math.floor(i / side) - 4);
    }
    return { sum, x: x / sum, y: y / sum };
  };

  it("move as their words say", () => {
    const bounce = framesOf("bounce").map((frame) => dark(frame).y);
    expect(bounce[4]! - bounce[0]!).toBeCloseTo(-0.6 * 4.5, 0);
    const slide = framesOf("slide").map((frame) => dark(frame).x);
    expect(slide[2]!).toBeCloseTo(0.3 * 4.5, 0);
    expect(slide[6]!).toBeCloseTo(-0.3 * 4.5, 0);
    const spin = framesOf("spin").map(dark);
    // A quarter turn clockwise takes what is above to the right.
    expect(spin[2]!.x).toBeCloseTo(0.7 * 2, 0);
    expect(Math.abs(spin[2]!.y)).toBeLessThan(0.3);
    const fade = framesOf("fade").map((frame) => dark(frame).sum);
    expect(fade[0]).toBe(255);
    expect(fade[4]).toBe(0);
    expect(framesOf("stay").map((frame) => [...frame])).toEqual(
      Array.from({ length: 8 }, () => [...dotted]),
    );
    const square = Uint8Array.from({ length: side ** 2 }, (_, i) =>
      Math.max(Math.abs((i % side) - 4), Math.abs(Math.floor(i / side) - 4)) <= 2 ? 0 : 255,
    );
    const zoom = framesOf("zoom", square).map((frame) => dark(frame).sum);
    expect(zoom[4]! / zoom[0]!).toBeGreaterThan(2.5);
    expect(new Set(framesOf("shake").map((frame) => frame.join())).size).toBe(3);
  });

  it("are each picture in each motion, with the words in front of its captions", async () => {
    const stills = pictureSet([
      { ...plain(10), caption: "red heart" },
      { ...plain(20), caption: ["cat", "kitten"] },
    ]);
    const data = animated(stills, ["spin", "stay"], shape);
    expect(data.count).toBe(4);
    const captions = await Promise.all([0, 1, 2, 3].map((i) => data.example(i)));
    expect(captions.map((each) => each.captions)).toEqual([
      ["spinning red heart"],
      ["spinning cat", "spinning kitten"],
      ["still red heart"],
      ["still cat", "still kitten"],
    ]);
    expect(captions.map(({ pixels }) => valuesOf(pixels))).toEqual([
      [10, 10, 10],
      [20, 20, 20],
      [10, 10, 10],
      [20, 20, 20],
    ]);
    expect(data.nameOf(3)).toBe("picture 1, still");
  });

  it("without captions are classes by motion", async () => {
    const labelled = pictureSet([
      { ...plain(1), label: "cat" },
      { ...plain(2), label: "dog" },
    ]);
    const data = animated(labelled, ["spin", "fade"], shape);
    expect(data.classes).toEqual(["cat spinning", "cat fading", "dog spinning", "dog fading"]);
    expect((await data.example(3)).label).toBe(3);
    const bare = animated(pictureSet([plain(1)]), ["spin", "fade"], shape);
    expect(bare.classes).toEqual(["spinning", "fading"]);
    expect((await bare.example(1)).label).toBe(1);
  });
});
