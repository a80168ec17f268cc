import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { FormatError, UsageError } from "../../src/engine/errors.ts";
import { openPipeline } from "../../src/pipelines/open/open-node.ts";
import { finished, type Pipeline } from "../../src/pipelines/pipeline.ts";
import type { GenerateRequest } from "../../src/pipelines/settings.ts";
import { picturesOfClip } from "../../src/pictures/clip.ts";
import { readClip } from "../../src/pictures/clip-file-node.ts";
import { readPictureMetadata } from "../../src/pictures/file-node.ts";
import { oneSentence, patchwise } from "../support/cli.ts";
import { writeVAE } from "../support/model-folders.ts";
import { writeWanFolder } from "../support/wan.ts";

const folder = mkdtempSync(path.join(tmpdir(), "patchwise-wan-"));
let pipeline: Pipeline;
beforeAll(async () => {
  await writeWanFolder(folder);
  pipeline = await openPipeline(folder, {});
});
afterAll(async () => {
  await pipeline.dispose();
  rmSync(folder, { recursive: true, force: true });
});

const request = { prompt: "a red heart", frames: 5, width: 32, height: 16, steps: 3, seed: 1 };

describe("a Wan in diffusers' folder", () => {
  it("draws a clip of a text, whose first frame is the picture", async () => {
    const [drawn] = await finished(pipeline.generate(request));
    const { clip, ...still } = drawn!;
    expect(clip).toMatchObject({ frames: 5, width: 32, height: 16, channels: 3 });
    expect(picturesOfClip(clip!)[0]!.pixels).toEqual(still.pixels);
    expect(new Set(picturesOfClip(clip!).map(({ pixels }) => pixels.join())).size).toBe(5);
  });

  it("draws the same clip for the same seed, alone and among others, and another for another text", async () => {
    const of = async (more: GenerateRequest) =>
      (await finished(pipeline.generate({ ...request, ...more }))).map(({ clip }) => clip!.pixels);
    const [first] = await of({});
    const both = await of({ seed: 0, count: 2 });
    // Batches of other sizes are added up in another order.
    const apart = Math.max(...first!.map((x, i) => Math.abs(x - both[1]![i]!)));
    expect(apart).toBeLessThanOrEqual(1);
    expect((await of({ prompt: "a blue star" }))[0]).not.toEqual(first);
  });

  it("draws a still picture as a clip of one frame", async () => {
    const [drawn] = await finished(pipeline.generate({ ...request, frames: 1 }));
    expect(drawn!.clip!.frames).toBe(1);
  });

  it("has the length and the rate of the published model unless told otherwise", () => {
    const { frames, fps } = pipeline.settings({ prompt: "x", width: 32, height: 16 });
    expect([frames, fps]).toEqual([81, 16]);
  });

  it.each<[string, GenerateRequest, string]>([
    ["frames that do not fill latents", { frames: 4 }, "it draws 4 at a time; give 5 frames"],
    ["no frames", { frames: 0 }, "frames must be a whole number of at least 1"],
    ["more frames than positions", { frames: 4097 }, "its positions end at 4093"],
    ["a rate of 0", { fps: 0 }, "fps must be a number of frames a second above 0"],
    ["sides that latents do not divide", { width: 24 }, "must be multiples of 16"],
  ])("refuses %s", (_, more, message) => {
    expect(() => pipeline.settings({ ...request, ...more })).toThrow(UsageError);
    expect(() => pipeline.settings({ ...request, ...more })).toThrow(message);
  });

  it("with a second transformer is refused", async () => {
    const index = path.join(folder, "model_index.json");
    const text = readFileSync(index, "utf8");
    const second = { transformer_2: ["diffusers", "WanTransformer3DModel"] };
    writeFileSync(index, JSON.stringify({ ...(JSON.parse(text) as object), ...second }));
    const opening = openPipeline(folder, {});
    await expect(opening).rejects.toThrow(FormatError);
    await expect(opening).rejects.toThrow("describes two transformers");
    writeFileSync(index, text);
  });
});

describe("patchwise generate", () => {
  const shared = ["generate", "a red heart", "--model", folder, "--steps", "2", "--seed", "1"];
  const size = ["--width", "32", "--height", "16", "--frames", "5"];

  it("writes a clip that says how it was drawn, and its frames side by side", async () => {
    const out = path.join(folder, "heart.webp");
    const { code, out: printed } = patchwise([
      ...shared,
      ...size,
      "--fps",
      "8",
      "--out",
      out,
      "--grid",
    ]);
    expect([code, printed.trim().split("\n").slice(-2)]).toEqual([
      0,
      [out, path.join(folder, "heart-grid.webp")],
    ]);
    const { clip, fps } = await readClip(out);
    expect([clip.frames, clip.width, clip.height, fps]).toEqual([5, 32, 16, 8]);
    const [drawn] = await finished(pipeline.generate({ ...request, steps: 2 }));
    expect(clip.pixels).toEqual(drawn!.clip!.pixels);
    expect(await readPictureMetadata(out)).toMatchObject({ frames: 5, fps: 8, seed: 1 });
    expect((await readClip(path.join(folder, "heart-grid.webp"))).clip.width).toBe(5 * 34 - 2);
  });

  it("refuses a name that holds no animation before it opens the model", () => {
    const { code, err } = patchwise([...shared, ...size, "--model", "none", "--out", "heart.jpg"]);
    expect(code).not.toBe(0);
    expect(err).toMatch(oneSentence);
    expect(err).toContain("heart.jpg, because this format holds no animation");
  });
});

it("a Latte draws a clip whose frames an autoencoder of pictures decodes", async () => {
  const vae = path.join(folder, "picture-vae");
  await writeVAE(vae);
  const weights = path.resolve(import.meta.dirname, "../fixtures/latte/weights.safetensors");
  await using latte = await openPipeline(weights, { vae, heads: 4 });
  const asked = { class: 3, steps: 2, seed: 1 };
  const [drawn] = await finished(latte.generate(asked));
  expect(drawn!.clip).toMatchObject({ frames: 5, width: 16, height: 16 });
  expect(() => latte.settings({ ...asked, frames: 7 })).toThrow("it was trained for 5 only");
});

it.each<GenerateRequest>([{ frames: 4 }, { fps: 4 }, { window: 4 }, { sharedNoise: 1 }])(
  "a still model refuses %o",
  async (more) => {
    await using still = await openPipeline("emoji", {});
    const [name] = Object.keys(more);
    const message = `emoji draws still pictures, which have no ${name}; leave ${name} out.`;
    expect(() => still.settings({ prompt: "a heart", ...more })).toThrow(message);
  },
);
