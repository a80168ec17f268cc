import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { withCleanTokens } from "../../src/diffusion/inpainting.ts";
import { ndarray } from "../../src/engine/arrays/ndarray.ts";
import { UsageError } from "../../src/engine/errors.ts";
import { openPipeline } from "../../src/pipelines/open/open-node.ts";
import { finished, type Pipeline } from "../../src/pipelines/pipeline.ts";
import type { GenerateRequest } from "../../src/pipelines/settings.ts";
import { type Clip, clipOfPictures, picturesOfClip } from "../../src/pictures/clip.ts";
import { readClip } from "../../src/pictures/clip-file-node.ts";
import { readPictureMetadata, writePicture } from "../../src/pictures/file-node.ts";
import type { Picture } from "../../src/pictures/picture.ts";
import { oneSentence, patchwise } from "../support/cli.ts";
import { writeWanFolder } from "../support/wan.ts";

const folder = mkdtempSync(path.join(tmpdir(), "patchwise-frames-"));
let pipeline: Pipeline;
beforeAll(async () => {
  await writeWanFolder(folder);
  pipeline = await openPipeline(folder, {});
});
afterAll(async () => {
  await pipeline.dispose();
  rmSync(folder, { recursive: true, force: true });
});

/** A picture whose pixels are a pattern of its own. */
function pattern(number: number, width = 32, height = 16): Picture {
  const pixels = Uint8Array.from(
    { length: width * height * 3 },
    (_, i) => (i * 7 + number * 53) % 251,
  );
  return { width, height, channels: 3, pixels };
}

const request = { prompt: "a red heart", frames: 9, width: 32, height: 16, steps: 2, seed: 1 };

async function clipOf(more: GenerateRequest): Promise<Clip> {
  const [drawn] = await finished(pipeline.generate({ ...request, ...more }));
  return drawn!.clip!;
}

describe("a clip around given frames", () => {
  it("keeps a first and a last frame exactly, and draws the others towards them", async () => {
    const [first, last] = [pattern(1), pattern(2)];
    const free = picturesOfClip(await clipOf({}));
    const led = picturesOfClip(await clipOf({ image: first }));
    const between = picturesOfClip(await clipOf({ image: first, lastImage: last }));
    expect(led[0]!.pixels).toEqual(first.pixels);
    expect(between[0]!.pixels).toEqual(first.pixels);
    expect(between[8]!.pixels).toEqual(last.pixels);
    // What is given changes what is drawn.
    expect(led[4]!.pixels).not.toEqual(free[4]!.pixels);
    expect(between[4]!.pixels).not.toEqual(led[4]!.pixels);
  });

  it("goes on from a clip, whose frames are the first", async () => {
    const begun = clipOfPictures([3, 4, 5, 6, 7].map((each) => pattern(each)));
    const clip = await clipOf({ extend: begun });
    expect(clip.frames).toBe(9);
    expect(clip.pixels.subarray(0, begun.pixels.length)).toEqual(begun.pixels);
  });

  it("that loops ends with its first frame, which is left out, for each seed its own", async () => {
    const led = await clipOf({ image: pattern(1), lastImage: pattern(1) });
    const loop = await clipOf({ image: pattern(1), loop: true });
    expect(loop.frames).toBe(8);
    expect(loop.pixels).toEqual(led.pixels.subarray(0, loop.pixels.length));
    const free = await finished(pipeline.generate({ ...request, frames: 9, loop: true, count: 2 }));
    const firsts = await finished(pipeline.generate({ ...request, frames: 1, count: 2 }));
    for (const [i, { clip, seed, pixels }] of free.entries()) {
      expect([clip!.frames, seed]).toEqual([8, i + 1]);
      expect(pixels).toEqual(firsts[i]!.pixels);
    }
  });

  it.each<[string, GenerateRequest, string]>([
    [
      "a first frame of another size",
      { image: pattern(1, 16) },
      "The frames of image have 16×16 pixels, but the clip has 32×16",
    ],
    [
      "a last frame of another size",
      { lastImage: pattern(1, 64) },
      "The frames of lastImage have 64×16",
    ],
    [
      "a clip whose frames do not fill latents",
      { extend: clipOfPictures([pattern(1), pattern(2), pattern(3)]) },
      "has 3 frames, but after the first, ",
    ],
    [
      "frames that leave nothing to draw",
      { frames: 5, image: pattern(1), lastImage: pattern(2) },
      "leaves nothing to draw",
    ],
    ["one frame that is given", { frames: 1, image: pattern(1) }, "leaves nothing to draw"],
    [
      "two beginnings",
      { image: pattern(1), extend: clipOfPictures([pattern(1)]) },
      "Both image and extend",
    ],
    [
      "a loop with another end",
      { loop: true, lastImage: pattern(1) },
      "A loop ends with its first frame",
    ],
    ["a strength", { image: pattern(1), strength: 0.5 }, "so strength has no effect"],
    ["a mask", { image: pattern(1), mask: pattern(1) }, "so mask has no effect"],
    [
      "a clip without frames",
      { extend: { ...clipOfPictures([pattern(1)]), frames: 0 } },
      "extend must be a clip",
    ],
  ])("refuses %s", (_, more, message) => {
    expect(() => pipeline.settings({ ...request, ...more })).toThrow(UsageError);
    expect(() => pipeline.settings({ ...request, ...more })).toThrow(message);
  });

  it("has the size of what is given", () => {
    const { width, height } = pipeline.settings({
      prompt: "x",
      extend: clipOfPictures([pattern(1, 64, 48)]),
    });
    expect([width, height]).toEqual([64, 48]);
  });
});

it("a still model refuses frames to draw around", async () => {
  await using still = await openPipeline("emoji", {});
  for (const more of [
    { lastImage: pattern(1) },
    { loop: true },
    { extend: clipOfPictures([pattern(1)]) },
  ]) {
    const [name] = Object.keys(more);
    expect(() => still.settings({ prompt: "a heart", ...more })).toThrow(
      `which have no ${name}; leave it out`,
    );
  }
});

it("a network sees given tokens without noise at the time of no noise", async () => {
  const x = ndarray("float32", [1, 1, 4], [5, 6, 7, 8]);
  const known = ndarray("float32", [1, 1, 4], [1, 2, 0, 0]);
  const mask = ndarray("float32", [1, 1, 4], [0, 0, 1, 1]);
  const timesAt = ({ time }: { readonly time: number }) => ndarray("float32", [1, 2], [0, time]);
  const seen: unknown[] = [];
  const network = withCleanTokens(
    async (shown, level, told) => {
      seen.push([...shown.data], [...told!["t"]!.data], level.time, told!["y"]);
      return shown;
    },
    known,
    { mask, timesAt },
  );
  await network(x, { time: 700, alpha: 0.3, sigma: 0.7 }, { y: known });
  expect(seen).toEqual([[1, 2, 7, 8], [0, 700], 700, known]);
});

describe("patchwise generate", () => {
  const shared = ["generate", "a red heart", "--model", folder, "--steps", "1", "--seed", "1"];

  it("draws from a first to a last frame, and goes on from the file it wrote", async () => {
    const at = (name: string) => path.join(folder, name);
    await writePicture(at("first.png"), pattern(1));
    await writePicture(at("last.png"), pattern(2));
    const out = at("between.webp");
    const ends = ["--image", at("first.png"), "--last-image", at("last.png")];
    expect(patchwise([...shared, "--frames", "9", ...ends, "--out", out]).code).toBe(0);
    const { clip } = await readClip(out);
    const frames = picturesOfClip(clip);
    expect([frames[0]!.pixels, frames[8]!.pixels]).toEqual([pattern(1).pixels, pattern(2).pixels]);
    const inLibrary = await clipOf({ steps: 1, image: pattern(1), lastImage: pattern(2) });
    expect(clip.pixels).toEqual(inLibrary.pixels);
    expect(await readPictureMetadata(out)).toMatchObject({ frames: 9, aroundFrames: true });
    const again = patchwise(["generate", "--from-image", out, "--model", folder]);
    expect(again.err).toMatch(oneSentence);
    expect(again.err).toContain("was drawn around given frames");

    const longer = at("longer.webp");
    expect(
      patchwise([...shared, "--frames", "17", "--extend", out, "--loop", "--out", longer]).code,
    ).toBe(0);
    const extended = (await readClip(longer)).clip;
    expect(extended.frames).toBe(16);
    expect(extended.pixels.subarray(0, clip.pixels.length)).toEqual(clip.pixels);
  });
});
