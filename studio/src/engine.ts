/** The page's side of its workers: one for each device that draws, and one that trains. */
import { type Caller, callerOf } from "../../src/web/calls.ts";
import { type WorkerPipeline, workerPipeline } from "../../src/web/worker-pipeline.ts";
import type { WebServices, WorkerBackend } from "../../src/web/services.ts";
import type { DownloadProgress } from "../../src/weights/sources/url.ts";
import type { ModelInfo, ModelList } from "../../src/server/wire.ts";
import { hasServer, modelList } from "./server/api.ts";
import { settings } from "./settings.ts";
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
  /** True if the server draws, in place of the page. */
  readonly remote: boolean;
  /** The device of the page itself. */
  readonly device: Device;
  /** The models, LoRAs and limits of the server; undefined until it has answered. */
  readonly served: ModelList | undefined;
  readonly hasWebGpu: boolean;
  readonly facts: ModelFacts | undefined;
  readonly downloads: Downloads | undefined;
  readonly status: "closed" | "opening" | "open";
  /** Bytes that have arrived, of the file that is downloaded. */
  readonly progress: DownloadProgress | undefined;
  readonly problem: string | undefined;
}

export const model = store<ModelState>({
  remote: hasServer,
  device: "wasm",
  served: undefined,
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
    if (hasServer) {
      const served = await modelList();
      model.patch({ served });
      // An address or an earlier visit may name a model of another server.
      const { model: name } = settings.get();
      if (!served.models.some((each) => each.name === name)) settings.patch({ model: "" });
    }
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

/** The server's model of a name, or its first. @throws Error if there is none */
export async function servedModel(name: string): Promise<ModelInfo> {
  let served = model.get().served;
  if (!served?.models.some((each) => each.name === name)) {
    // It may have been trained in the meantime.
    served = await modelList();
    model.patch({ served });
  }
  const found = name === "" ? served.models[0] : served.models.find((each) => each.name === name);
  if (found) return found;
  throw new Error(`The server has no model “${name}”; choose another.`);
}

/** Chooses a model of the server, with its own settings. */
export async function chooseModel(name: string): Promise<void> {
  const { defaults } = await servedModel(name);
  const { steps, sampler, guidance, width, height } = defaults;
  settings.patch({ model: name, steps, sampler, guidance, width, height, frames: 0, class: "" });
}

/** The description of the model that draws, for the form. */
export type FormModel = Pick<
  ModelInfo,
  "name" | "condition" | "classes" | "samplers" | "sizes" | "guidable" | "clips"
> & { readonly width: number; readonly height: number; readonly frames?: number | undefined };

/** The model that draws with the settings of the form; undefined until something is known of it. */
export function formModel({ remote, served, facts }: ModelState): FormModel | undefined {
  if (!remote) {
    const condition = facts?.takesPrompts ? "text" : facts?.classes ? "class" : "none";
    return facts && { ...facts, condition, clips: false };
  }
  const { model: name } = settings.get();
  const info = served?.models.find((each) => each.name === name) ?? served?.models[0];
  return info && { ...info, ...info.defaults };
}

/** Lets the server draw, or a device of the page. */
export async function choosePlace(place: Device | "server"): Promise<void> {
  model.patch({ remote: place === "server" });
  if (place !== "server") await chooseDevice(place);
}

/** Changes the device; its pipeline is opened by the next drawing. */
async function chooseDevice(device: Device): Promise<void> {
  const status = opened.has(device) ? "open" : "closed";
  model.patch({ device, status, problem: undefined });
  model.patch({ downloads: await downloadSizes(device) });
}
