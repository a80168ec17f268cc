/** Public clients of npm, unchanged, against a running server; OpenAI's own has a file of its own. */
import { createOpenAI } from "@ai-sdk/openai";
import { generateImage } from "ai";
import { StableDiffusionApi } from "a1111-webui-api";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { readPicture } from "../../src/pictures/decode-node.ts";
import { openPipeline } from "../../src/pipelines/open/open-node.ts";
import { finished, type Pipeline } from "../../src/pipelines/pipeline.ts";
import type { Job } from "../../src/server/wire.ts";
import { testServer, type TestServer } from "./support.ts";

vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });

let server: TestServer;
let pipeline: Pipeline;

beforeAll(async () => {
  vi.stubGlobal("AI_SDK_LOG_WARNINGS", false);
  [server, pipeline] = await Promise.all([testServer(), openPipeline("emoji")]);
});
afterAll(async () => {
  await server.close();
  await pipeline.dispose();
});

describe("a1111-webui-api", () => {
  it("draws, draws from the picture, and asks for models, samplers, options and progress", async () => {
    const api = new StableDiffusionApi({ baseUrl: server.url });
    const drawn = await api.txt2img({
      prompt: "red heart",
      steps: 2,
      cfg_scale: 1,
      width: 64,
      height: 64,
      seed: 7,
      sampler_name: "Euler",
    });
    const pixels = await drawn.image.removeAlpha().raw().toBuffer();
    const [alone] = await finished(
      pipeline.generate({ prompt: "red heart", steps: 2, guidance: 1, seed: 7, sampler: "euler" }),
    );
    expect(new Uint8Array(pixels)).toEqual(alone!.pixels);
    const redrawn = await api.img2img({
      init_images: [sharp(await drawn.image.png().toBuffer())],
      prompt: "blue heart",
      denoising_strength: 0.5,
      steps: 2,
      seed: 7,
      width: 64,
      height: 64,
    });
    expect(await redrawn.image.metadata()).toMatchObject({ width: 64, height: 64 });
    expect(await api.getSdModels()).toMatchObject([{ model_name: "emoji" }]);
    expect((await api.getSamplers()).map(({ name }) => name)).toContain("Euler a");
    expect(await api.getOptions()).toMatchObject({ sd_model_checkpoint: "emoji" });
    expect(await api.getProgress()).toMatchObject({ progress: 0 });
  });
});

describe("the AI SDK with @ai-sdk/openai", () => {
  it("draws what the pipeline draws by generateImage", async () => {
    const provider = createOpenAI({ baseURL: `${server.url}/v1`, apiKey: "none" });
    const { image } = await generateImage({
      model: provider.image("emoji"),
      prompt: "a dog",
      size: "64x64",
    });
    // This client sends no seed, so the server chose one.
    const { jobs } = await server.get<{ jobs: Job[] }>("/api/jobs?limit=1");
    const { seed, steps } = jobs[0]!.settings;
    const [alone] = await finished(pipeline.generate({ prompt: "a dog", steps, seed }));
    expect((await readPicture(image.uint8Array)).pixels).toEqual(alone!.pixels);
  });
});
