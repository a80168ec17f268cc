import type { ImageModelV4 } from "@ai-sdk/provider";
import { generateImage } from "ai";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { imageModel } from "../../src/pipelines/ai-sdk-node.ts";
import { openPipeline } from "../../src/pipelines/open/open-node.ts";
import { finished, type Pipeline } from "../../src/pipelines/pipeline.ts";
import { readPicture } from "../../src/pictures/decode-node.ts";
import { toPng } from "../../src/pictures/png.ts";

describe("an image model of the AI SDK", () => {
  let pipeline: Pipeline;
  beforeAll(async () => {
    vi.stubGlobal("AI_SDK_LOG_WARNINGS", false);
    pipeline = await openPipeline("emoji");
  });
  afterAll(() => pipeline.dispose());

  const prompt = "a red heart";
  const providerOptions = { patchwise: { steps: 2 } };
  const call = { n: 1, size: undefined, aspectRatio: undefined, seed: 7, files: undefined };
  const options = { ...call, mask: undefined, prompt, providerOptions };

  it("draws the same pictures as the pipeline by generateImage, and tells their seeds", async () => {
    const model = imageModel(pipeline, { specificationVersion: "v3" });
    const drawn = await generateImage({
      model,
      prompt,
      providerOptions,
      n: 2,
      seed: 7,
      size: "64x64",
      aspectRatio: "1:1",
    });
    const expected = await finished(pipeline.generate({ prompt, steps: 2, count: 2, seed: 7 }));
    for (const [i, { uint8Array, mediaType }] of drawn.images.entries()) {
      expect(mediaType).toBe("image/png");
      expect((await readPicture(uint8Array)).pixels).toEqual(expected[i]!.pixels);
    }
    const told = [7, 8].map((seed) => ({ seed, width: 64, height: 64 }));
    expect(drawn.providerMetadata["patchwise"]).toEqual({ images: told });
    expect(drawn.warnings).toMatchObject([{ type: "unsupported", feature: "aspectRatio" }]);
    expect(drawn.responses).toMatchObject([{ modelId: "emoji" }]);
  });

  it("starts from a picture, and keeps what the mask does not cover", async () => {
    const model: ImageModelV4 = imageModel(pipeline);
    const [start] = await finished(pipeline.generate({ prompt, steps: 2 }));
    const png = await toPng(start!);
    const file = { type: "file", mediaType: "image/png", data: png } as const;
    const half = new Uint8Array(64 * 64).fill(255, 64 * 32);
    const white = { width: 64, height: 64, channels: 1, pixels: half } as const;
    const mask = { ...file, data: Buffer.from(await toPng(white)).toString("base64") };
    const { images } = await model.doGenerate({ ...options, files: [file], mask });
    const drawn = await readPicture(images[0] as Uint8Array);
    const kept = 64 * 32 * 3;
    expect(drawn.pixels.subarray(0, kept)).toEqual(start!.pixels.subarray(0, kept));
    expect(drawn.pixels.subarray(kept)).not.toEqual(start!.pixels.subarray(kept));
  });

  it("draws another picture each time where no seed is given", async () => {
    const seeds = new Set<number>();
    for (let i = 0; i < 2; i++) {
      const { providerMetadata } = await imageModel(pipeline).doGenerate({
        ...options,
        seed: undefined,
      });
      seeds.add(providerMetadata.patchwise.images[0]!.seed);
    }
    expect(seeds.size).toBe(2);
  });

  it.each([
    [{ size: "64 by 64" as "64x64" }, 'size is "64 by 64"; give width and height in pixels'],
    [
      { files: [{ type: "url", url: "https://example.org/cat.png" } as const] },
      "the picture to start from was given as the address https://example.org/cat.png; give its bytes.",
    ],
    [
      { mask: { type: "file", mediaType: "text/plain", data: "" } as const },
      "the mask is of the type text/plain; give an image, such as image/png.",
    ],
    [
      { providerOptions: { patchwise: { numSteps: 3 } } },
      'There is no option "numSteps"; did you mean steps?',
    ],
  ])("refuses %o", async (given, message) => {
    const drawing = imageModel(pipeline).doGenerate({ ...options, ...given });
    await expect(drawing).rejects.toThrow(message);
  });

  it("ends when the signal is aborted", async () => {
    const abortSignal = AbortSignal.abort(new Error("enough"));
    await expect(imageModel(pipeline).doGenerate({ ...options, abortSignal })).rejects.toThrow(
      "enough",
    );
  });
});
