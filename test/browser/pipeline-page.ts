/** Draws inside a page for pipeline.test.ts, with a folder that `patchwise train` wrote. */
import type { NdArray } from "../../src/engine/arrays/ndarray.ts";
import type { WebDevice } from "../../src/engine/runtime/ort-session-web.ts";
import { webBackend } from "../../src/engine/runtime/ort-web.ts";
import {
  type DownloadProgress,
  finished,
  type GenerateRequest,
  modelCache,
  openPipelineUrl,
  type OpenUrlOptions,
} from "../../src/pipelines/index.ts";
import { openDiffusersFolder } from "../../src/pipelines/open/diffusers.ts";
import { imagePipeline } from "../../src/pipelines/pipeline.ts";
import { urlFolder } from "../../src/weights/sources/folder-url.ts";
import type { Picture } from "../../src/pictures/picture.ts";
import { modelBytes } from "../../src/training/index.ts";
import { urlSource } from "../../src/weights/sources/url.ts";
import { defineImageElement, openInWorker, trainInWorker } from "../../src/web/index.ts";

/** Values [H · W · C] of each picture. */
export async function draw(
  folder: string,
  device: WebDevice,
  worker: boolean,
  request: GenerateRequest,
  options?: Pick<OpenUrlOptions, "promptTokens" | "textEncoders" | "vae" | "tokenizers">,
): Promise<number[][]> {
  const pipeline = await openPipelineUrl(folder, {
    ...options,
    backend: webBackend({
      device,
      wasmPaths: "/ort/",
      ...(worker && { worker: () => new Worker(`/worker-${device}.js`, { type: "module" }) }),
    }),
  });
  try {
    const pictures = await finished(pipeline.generate(request));
    return pictures.map(({ pixels }) => [...pixels]);
  } finally {
    await pipeline.dispose();
  }
}

/** Draws with a folder in diffusers' layout whose weights are read by ranges, as those above 256 MiB are: the pixels, and the bytes of each file. */
export async function drawByRanges(folder: string, request: GenerateRequest) {
  const loaded: Record<string, number> = {};
  const counted: typeof fetch = async (address, options) => {
    const response = await fetch(address, options);
    if (options?.method !== "HEAD") {
      const { pathname } = new URL(new Request(address, options).url);
      const length = Number(response.headers.get("content-length"));
      loaded[pathname] = (loaded[pathname] ?? 0) + length;
    }
    return response;
  };
  const model = await openDiffusersFolder(urlFolder(folder, { fetch: counted }, 0), {});
  const pipeline = imagePipeline(model, webBackend({ device: "wasm", wasmPaths: "/ort/" }));
  try {
    const [picture] = await finished(pipeline.generate(request));
    return { pixels: [...picture!.pixels], loaded };
  } finally {
    await pipeline.dispose();
  }
}

/** Values [frames · H · W · C] of the clips of a request: of its text alone, and around a first frame. */
export async function drawClips(
  folder: string,
  request: GenerateRequest & { readonly width: number; readonly height: number },
  first: readonly number[],
): Promise<number[][]> {
  const backend = webBackend({ device: "wasm", wasmPaths: "/ort/" });
  const pipeline = await openPipelineUrl(folder, { backend });
  try {
    const { width, height } = request;
    const image = { width, height, channels: 3 as const, pixels: Uint8Array.from(first) };
    const clips: number[][] = [];
    for (const given of [{}, { image }]) {
      const [drawn] = await finished(pipeline.generate({ ...request, ...given }));
      clips.push([...drawn!.clip!.pixels]);
    }
    return clips;
  } finally {
    await pipeline.dispose();
  }
}

/** Opens a folder twice with a cache, and returns what was downloaded each time, what is kept, and how much of it was deleted. */
export async function openTwice(folder: string) {
  const cache = modelCache("test");
  const backend = webBackend({ device: "wasm" });
  return watchingDownloads(async (asked) => {
    const told: DownloadProgress[] = [];
    const onProgress = (progress: DownloadProgress) => void told.push(progress);
    const open = async () => {
      const pipeline = await openPipelineUrl(folder, { backend, fetch: cache.fetch, onProgress });
      await pipeline.dispose();
      return asked.splice(0);
    };
    const downloads = [await open(), await open()];
    const kept = await cache.list();
    return { downloads, told, kept, deleted: await cache.delete(folder), left: await cache.list() };
  });
}

/** Reads parts of a file twice through a cache, as large weights are read: the requests of each time, the bytes, and what is kept. */
export function readTwice(address: string, parts: readonly (readonly [number, number])[]) {
  const cache = modelCache("parts");
  return watchingDownloads(async (asked) => {
    const read = async () => {
      const source = await urlSource(new URL(address, location.href), { fetch: cache.fetch });
      const bytes: number[][] = [];
      for (const [offset, length] of parts) bytes.push([...(await source.read(offset, length))]);
      return { bytes, asked: asked.splice(0).length };
    };
    const reads = [await read(), await read()];
    return { reads, kept: await cache.list(), deleted: await cache.delete() };
  });
}

/** Lists the paths that are downloaded meanwhile. */
async function watchingDownloads<T>(use: (asked: string[]) => Promise<T>): Promise<T> {
  const asked: string[] = [];
  const { fetch } = globalThis;
  globalThis.fetch = (given, init) => {
    const { method, url } = new Request(given, init);
    if (method === "GET") asked.push(new URL(url).pathname);
    return fetch(given, init);
  };
  try {
    return await use(asked);
  } finally {
    globalThis.fetch = fetch;
  }
}

/** Draws as `patchwise/web` does, in a worker: the values of the picture, the steps that were told, and a row of its attention. */
export async function drawInWorker(folder: string, request: GenerateRequest) {
  const pipeline = await openInWorker(folder, workerOptions);
  const told: number[] = [];
  const drawing = pipeline.generate({ ...request, onProgress: ({ step }) => void told.push(step) });
  let row: number[] = [];
  for (;;) {
    const next = await drawing.next();
    if (next.done) {
      await pipeline.dispose();
      return { pixels: [...next.value[0]!.pixels], told, row };
    }
    const { conditional } = await next.value.inspect({ taps: ["blocks.0.attn.probabilities"] });
    const [{ shape, data }] = Object.values(conditional.taps) as [NdArray];
    row = Array.from(data as Float32Array).slice(0, shape.at(-1));
  }
}

const workerOptions = {
  wasmPaths: "/ort/",
  worker: () => new Worker("/web-worker.js", { type: "module" }),
};

/** Draws by the element, and again after its prompt has changed: the values of both pictures. */
export async function drawInElement(folder: string, prompts: readonly string[]) {
  defineImageElement(workerOptions);
  const element = document.createElement("patchwise-image");
  const drawn: number[][] = [];
  for (const [name, value] of Object.entries({ model: folder, steps: "2", seed: "4" })) {
    element.setAttribute(name, value);
  }
  for (const prompt of prompts) {
    const picture = new Promise<Picture>((resolve, reject) => {
      element.addEventListener("load", (event) => resolve((event as CustomEvent<Picture>).detail), {
        once: true,
      });
      element.addEventListener(
        "error",
        (event) => reject((event as unknown as CustomEvent<Error>).detail),
        { once: true },
      );
    });
    element.setAttribute("prompt", prompt);
    document.body.append(element);
    drawn.push([...(await picture).pixels]);
  }
  return { drawn, label: element.shadowRoot!.querySelector("canvas")!.getAttribute("aria-label") };
}

/** Trains in a worker for some steps: the losses and the names of the model's files. */
export async function trainInOne(steps: number) {
  const pictures = [0, 255].map((value) => ({
    width: 8,
    height: 8,
    channels: 3 as const,
    pixels: new Uint8Array(192).fill(value),
  }));
  const losses: number[] = [];
  const model = await trainInWorker({
    ...workerOptions,
    pictures,
    network: { hidden: 32, depth: 1, heads: 2, patch: 4 },
    steps,
    batch: 4,
    onEvent: (event) => event.kind === "step" && losses.push(event.lossOfStep),
  });
  return { losses, files: Object.keys(modelBytes(model)), finished: model.finished };
}

/** Draws in a worker that looks for ONNX Runtime's files where there are none. */
export async function drawWithout(folder: string): Promise<void> {
  const worker = () => new Worker("/worker-wasm.js", { type: "module" });
  const backend = webBackend({ device: "wasm", wasmPaths: "/nowhere/", worker });
  const pipeline = await openPipelineUrl(folder, { backend });
  await finished(pipeline.generate({ prompt: "a red cat" }));
}
