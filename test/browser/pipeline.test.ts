import { mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { finished, type GenerateRequest } from "../../src/pipelines/index.ts";
import { smallModels, writeSmallSplit } from "../support/flux-folders.ts";
import { tinySD3, writeSD3Folder } from "../support/sd3/parts.ts";
import { openPipeline, type OpenPipelineOptions } from "../../src/pipelines/index-node.ts";
import { type BrowserPage, openPage } from "../support/browser.ts";
import { tinyTextNetwork } from "../support/tiny-model.ts";
import { writeTrained, writeTrainedOnTokens } from "../support/trained-folder.ts";
import { writeWanFolder } from "../support/wan.ts";
import type * as pageModule from "./pipeline-page.ts";

const root = path.resolve(import.meta.dirname, "../..");
const folder = mkdtempSync(path.join(tmpdir(), "patchwise-page-"));
const shipped = path.join(root, "models", "emoji");
/** A model with enough tokens for the tiles of fused attention on GPUs; the bundled one takes a minute on a software GPU. */
const small = path.join(folder, "small");
/** A model of discrete codes, where a single differing choice would be visible. */
const tokens = path.join(folder, "tokens");
/** With SD3-medium's names and parts, at a reduced width. */
const sd3 = path.join(folder, "sd3");
/** With Wan2.1's names and parts, at a reduced width. */
const wan = path.join(folder, "wan");
/** FLUX.2 [klein] at a reduced width in ComfyUI's folders, as GGUF and as safetensors. */
const klein = path.join(folder, "klein");
const folders: Readonly<Record<string, string>> = {
  "/shipped/": shipped,
  "/small/": small,
  "/tokens/": tokens,
  "/sd3/": sd3,
  "/wan/": wan,
  "/klein/": klein,
};

// Chromium compiles the shaders of a GPU made of software slowly.
vi.setConfig({ testTimeout: 120_000 });

let page: BrowserPage<typeof pageModule>;

beforeAll(async () => {
  await writeTrained(small, { ...tinyTextNetwork, size: [32, 32] });
  await writeTrainedOnTokens(tokens);
  await writeSD3Folder(sd3, tinySD3);
  await writeWanFolder(wan);
  await writeSmallSplit(path.join(klein, "gguf"), smallModels.klein, { gguf: true });
  await writeSmallSplit(path.join(klein, "plain"), smallModels.klein);
  page = await openPage(
    path.join(import.meta.dirname, "pipeline-page.ts"),
    {
      "/worker-wasm.js": path.join(root, "src/engine/runtime/ort-worker-wasm.ts"),
      "/worker-webgpu.js": path.join(root, "src/engine/runtime/ort-worker-webgpu.ts"),
      "/web-worker.js": path.join(root, "src/web/worker.ts"),
    },
    folders,
  );
});
afterAll(async () => {
  await page?.close();
  rmSync(folder, { recursive: true });
});

/** Few enough for a GPU made of software. */
const words = { promptTokens: 16 };

async function drawnInNode(
  model: string,
  request: GenerateRequest,
  options?: OpenPipelineOptions,
): Promise<number[][]> {
  const pipeline = await openPipeline(model, options);
  const pictures = await finished(pipeline.generate(request));
  await pipeline.dispose();
  return pictures.map(({ pixels }) => [...pixels]);
}

describe("a model folder at a URL, in Chromium", () => {
  it.each([
    [
      "/sd3/",
      "wasm",
      "in the page",
      { prompt: "a red cat", width: 64, height: 64, steps: 3 },
      words,
    ],
    [
      "/sd3/",
      "webgpu",
      "in the page",
      { prompt: "a red cat", width: 32, height: 32, steps: 1, guidance: 1 },
      words,
    ],
    ["/shipped/", "wasm", "in the page", { prompt: "red apple", seed: 3, steps: 4, count: 2 }],
    ["/shipped/", "wasm", "in a worker", { prompt: "red heart", seed: 4, steps: 2 }],
    ["/small/", "wasm", "in the page", { prompt: "a red cat", steps: 3 }],
    ["/tokens/", "wasm", "in the page", { class: "dog", steps: 4, seed: 2, count: 2 }],
    ["/tokens/", "webgpu", "in the page", { class: "dog", steps: 2 }],
    ["/small/", "webgpu", "in the page", { prompt: "a red cat", steps: 3 }],
  ] as const)(
    "%s draws on %s %s what Node draws",
    async (url, device, place, request, options?) => {
      const drawn = await page.call("draw", url, device, place === "in a worker", request, options);
      const expected = await drawnInNode(folders[url]!, request, options);
      expect(drawn.map((values) => values.length)).toEqual(expected.map((values) => values.length));
      const apart = drawn.flatMap((values, i) =>
        values.map((value, j) => Math.abs(value - expected[i]![j]!)),
      );
      // Devices add in other orders, so that a value near a half may be rounded either way.
      expect(Math.max(...apart)).toBeLessThanOrEqual(1);
    },
  );

  it.each([
    ["gguf", "flux2.gguf", "qwen_3_4b.gguf"],
    ["plain", "flux2.safetensors", "qwen_3_4b.safetensors"],
  ])("the file of a network draws with its other parts, %s", async (form, file, encoder) => {
    const at = `/klein/${form}`;
    const request = { prompt: "a red cat", seed: 3, width: 32, height: 32, steps: 1 };
    const given = { ...words, textEncoders: [`${at}/text_encoders/${encoder}`] };
    const options = { ...given, vae: `${at}/vae/ae.safetensors` };
    const network = `${at}/diffusion_models/${file}`;
    const [drawn] = await page.call("draw", network, "wasm", false, request, options);
    const [expected] = await drawnInNode(path.join(klein, form), request, words);
    const apart = drawn!.map((value, i) => Math.abs(value - expected![i]!));
    expect(Math.max(...apart)).toBeLessThanOrEqual(1);
    await expect(page.call("draw", network, "wasm", false, request, given)).rejects.toThrow(
      "lacks the autoencoder (flux2-vae.safetensors)",
    );
  });

  it("is downloaded once where a cache keeps it, and its progress is told", async () => {
    const { downloads, told, kept, deleted, left } = await page.call("openTwice", "/small/");
    const files = [...new Set(downloads[0])];
    expect(files).toContain("/small/model.safetensors");
    expect(downloads).toEqual([files, []]);
    expect(kept.map(({ url }) => new URL(url).pathname).toSorted()).toEqual(files.toSorted());
    for (const { url, bytes } of kept) {
      const { size } = statSync(path.join(small, path.basename(url)));
      expect(bytes).toBe(size);
      const last = told.findLast(({ file }) => url.endsWith(file));
      expect(last).toMatchObject({ loaded: size, total: size });
    }
    expect([deleted, left]).toEqual([files.length, []]);
  });

  it("is kept in parts where it is read in parts", async () => {
    const file = path.join(small, "model.safetensors");
    const parts = [
      [0, 8],
      [8, 1000],
      [2000, 500],
    ] as const;
    const { reads, kept, deleted } = await page.call(
      "readTwice",
      "/small/model.safetensors",
      parts,
    );
    const content = readFileSync(file);
    const bytes = parts.map(([offset, length]) => [...content.subarray(offset, offset + length)]);
    // One request more asks for the size.
    expect(reads).toEqual([
      { bytes, asked: parts.length + 1 },
      { bytes, asked: 0 },
    ]);
    expect(kept.map(({ url, bytes: size }) => [new URL(url).pathname, size])).toEqual([
      ["/small/model.safetensors", 1 + 8 + 1000 + 500],
    ]);
    expect(deleted).toBe(1);
  });

  it("draws with the pipeline of patchwise/web what Node draws, and its steps can be inspected", async () => {
    const request = { prompt: "a red cat", steps: 2, seed: 4 };
    const { pixels, told, row } = await page.call("drawInWorker", "/small/", request);
    expect(told).toEqual([1, 2]);
    expect(row.reduce((a, b) => a + b, 0)).toBeCloseTo(1, 5);
    const [expected] = await drawnInNode(small, request);
    const apart = pixels.map((value, i) => Math.abs(value - expected![i]!));
    expect(Math.max(...apart)).toBeLessThanOrEqual(1);
  });

  it("draws in an element, and anew when its prompt changes", async () => {
    const prompts = ["a red cat", "a blue dog"];
    const { drawn, label } = await page.call("drawInElement", "/small/", prompts);
    expect(label).toBe("a blue dog");
    for (const [i, prompt] of prompts.entries()) {
      const [expected] = await drawnInNode(small, { prompt, steps: 2, seed: 4 });
      const apart = drawn[i]!.map((value, j) => Math.abs(value - expected![j]!));
      expect(Math.max(...apart)).toBeLessThanOrEqual(1);
    }
  });

  it("trains in a worker", async () => {
    const { losses, files, finished: isFinished } = await page.call("trainInOne", 8);
    expect(losses).toHaveLength(8);
    expect(isFinished).toBe(true);
    expect(files.toSorted()).toEqual(["model.json", "model.safetensors"]);
  });

  it("names the file of ONNX Runtime that is not served, and the option for its address", async () => {
    await expect(page.call("drawWithout", "/small/")).rejects.toThrow(
      /DeviceError: ONNX Runtime could not load ort-wasm-simd-threaded\.wasm \(.+\/nowhere\/.+\); serve this file .+ and give the address of their folder as wasmPaths\./,
    );
  });

  it("names the address of a missing model", async () => {
    await expect(page.call("draw", "/gone", "wasm", false, {})).rejects.toThrow(
      "/gone/ has neither a model.json",
    );
  });
});

it("a Wan draws the same clips of a text and around a first frame in a page as in Node", async () => {
  const request = { prompt: "a red heart", frames: 5, width: 32, height: 16, steps: 2, seed: 1 };
  const first = Array.from({ length: 32 * 16 * 3 }, (_, i) => (i * 7) % 251);
  const image = { width: 32, height: 16, channels: 3 as const, pixels: Uint8Array.from(first) };
  await using pipeline = await openPipeline(wan);
  const clips = await page.call("drawClips", "/wan/", request, first);
  for (const [i, given] of [{}, { image }].entries()) {
    const [drawn] = await finished(pipeline.generate({ ...request, ...given }));
    const here = [...drawn!.clip!.pixels];
    const there = clips[i]!;
    expect(there.length).toBe(here.length);
    const apart = there.reduce((most, value, k) => Math.max(most, Math.abs(value - here[k]!)), 0);
    expect(apart).toBeLessThanOrEqual(1);
  }
  expect(clips[1]!.slice(0, first.length)).toEqual(first);
  expect(clips[0]!.slice(0, first.length)).not.toEqual(first);
});
