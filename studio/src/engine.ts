/** The page's side of its workers: one for each device that draws, and one that trains. */
import { type Caller, callerOf } from "../../src/web/calls.ts";
import { type WorkerPipeline, workerPipeline } from "../../src/web/worker-pipeline.ts";
import type { WebServices, WorkerBackend } from "../../src/web/services.ts";
import type { DownloadProgress } from "../../src/weights/sources/url.ts";
import { store } from "./store.ts";
import type { ModelFacts, StudioServices } from "./worker/services.ts";

export type Device = WorkerBackend["device"];
type Services = WebServices & StudioServices;

const here = new URL("./", location.href);
const modelAddress = new URL("models/emoji/", here).href;
export const wordsAddress = new URL("models/words/", here).href;
const runtimeFolder = new URL("ort/", here).href;

/** The file that a device downloads before its first picture. */
const runtimeFiles: Readonly<Record<Device, string>> = {
  wasm: "ort-wasm-simd-threaded.wasm",
  webgpu: "ort-wasm-simd-threaded.asyncify.wasm",
};
const modelFiles = ["model.safetensors", "tokenizer.json", "model.json"];

export const threads = crossOriginIsolated ? navigator.hardwareConcurrency : 1;

export function backendOf(device: Device): WorkerBackend {
  return { device, wasmPaths: runtimeFolder };
}

export function startWorker(): Caller<Services> {
  const worker = new Worker(new URL("./worker/worker.ts", import.meta.url), { type: "module" });
  return callerOf<Services>(worker);
}

/** Reads and writes files, and describes models; it never computes a network. */
let helper: Caller<Services> | undefined;
export function helperWorker(): Caller<Services> {
  return (helper ??= startWorker());
}

export interface Downloads {
  readonly runtime: number;
  readonly model: number;
}

/** Bytes that a device and the model take to download. */
async function downloadSizes(device: Device): Promise<Downloads> {
  const sizeOf = async (url: string) => {
    const response = await fetch(url, { method: "HEAD" });
    return Number(response.headers.get("content-length") ?? 0);
  };
  const [runtime, ...model] = await Promise.all([
    sizeOf(runtimeFolder + runtimeFiles[device]),
    ...modelFiles.map((file) => sizeOf(modelAddress + file)),
  ]);
  return { runtime, model: model.reduce((a, b) => a + b, 0) };
}

export interface ModelState {
  readonly device: Device;
  readonly hasWebGpu: boolean;
  readonly facts: ModelFacts | undefined;
  readonly downloads: Downloads | undefined;
  readonly status: "closed" | "opening" | "open";
  /** Bytes that have arrived, of the file that is downloaded. */
  readonly progress: DownloadProgress | undefined;
  readonly problem: string | undefined;
}

export const model = store<ModelState>({
  device: "wasm",
  hasWebGpu: "gpu" in navigator,
  facts: undefined,
  downloads: undefined,
  status: "closed",
  progress: undefined,
  problem: undefined,
});

/** Reads what can be known of the model before it is downloaded. */
export async function describeModel(): Promise<void> {
  try {
    const facts = await helperWorker().call("describe", { address: modelAddress });
    model.patch({ facts });
    model.patch({ downloads: await downloadSizes(model.get().device) });
  } catch (error) {
    model.patch({ problem: (error as Error).message });
  }
}

const opened = new Map<Device, Promise<WorkerPipeline>>();

/** The pipeline of the chosen device, which is downloaded and opened the first time. */
export function openPipeline(): Promise<WorkerPipeline> {
  const { device } = model.get();
  const known = opened.get(device);
  if (known) return known;
  const opening = open(device);
  opened.set(device, opening);
  opening.catch(() => opened.delete(device));
  return opening;
}

async function open(device: Device): Promise<WorkerPipeline> {
  const caller = startWorker();
  model.patch({ status: "opening", problem: undefined });
  try {
    const { pipeline, name } = await caller.call(
      "open",
      { address: modelAddress, backend: backendOf(device), cached: typeof caches !== "undefined" },
      { onNote: (progress) => model.patch({ progress }) },
    );
    model.patch({ status: "open", progress: undefined });
    return workerPipeline(caller, pipeline, name);
  } catch (error) {
    caller.close();
    model.patch({ status: "closed", progress: undefined, problem: (error as Error).message });
    throw error;
  }
}

/** Changes the device; its pipeline is opened by the next drawing. */
export async function chooseDevice(device: Device): Promise<void> {
  const status = opened.has(device) ? "open" : "closed";
  model.patch({ device, status, problem: undefined });
  model.patch({ downloads: await downloadSizes(device) });
}
