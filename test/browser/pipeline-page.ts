/** Draws inside a page for pipeline.test.ts, with a folder that `patchwise train` wrote. */
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

/** Values [H · W · C] of each picture. */
export async function draw(
  folder: string,
  device: WebDevice,
  worker: boolean,
  request: GenerateRequest,
  options?: Pick<OpenUrlOptions, "promptTokens">,
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

/** Opens a folder twice with a cache, and returns what was downloaded each time, what is kept, and how much of it was deleted. */
export async function openTwice(folder: string) {
  const cache = modelCache("test");
  const backend = webBackend({ device: "wasm" });
  const asked: string[] = [];
  const { fetch } = globalThis;
  globalThis.fetch = (given, init) => {
    const { method, url } = new Request(given, init);
    if (method === "GET") asked.push(new URL(url).pathname);
    return fetch(given, init);
  };
  try {
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
  } finally {
    globalThis.fetch = fetch;
  }
}

/** Draws in a worker that looks for ONNX Runtime's files where there are none. */
export async function drawWithout(folder: string): Promise<void> {
  const worker = () => new Worker("/worker-wasm.js", { type: "module" });
  const backend = webBackend({ device: "wasm", wasmPaths: "/nowhere/", worker });
  const pipeline = await openPipelineUrl(folder, { backend });
  await finished(pipeline.generate({ prompt: "a red cat" }));
}
