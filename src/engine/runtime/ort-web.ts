/** ONNX Runtime in the browser, with WebGPU or with WebAssembly on the CPU. */
import type * as Ort from "onnxruntime-common";
import { castArray, type DType } from "../arrays/ndarray.ts";
import { DeviceError } from "../errors.ts";
import { type Graph, leafName } from "../graph/graph.ts";
import type { Backend, WeightSource } from "./backend.ts";
import type { Executor, Mount, OpenExecutor, Plan } from "./executor.ts";
import {
  openWebExecutor,
  type WebDevice,
  webDevices,
  type WebRuntimeSettings,
} from "./ort-session-web.ts";
import { either, kinds, requireOptions } from "../options.ts";
import { gathersOf } from "../passes/reads.ts";
import { withFetchedRows } from "./fetched-rows.ts";
import { fusedAttentionWorks } from "./fused-attention.ts";
import { compileProgram } from "./program.ts";
import { isFloat8 } from "../arrays/convert.ts";
import {
  fileWeight,
  isInPlace,
  type ReadFile,
  readWeight,
  type StoredWeight,
} from "./stored-weight.ts";
import { openRemote, type Remote, type Response } from "./worker-protocol.ts";

export interface WebBackendOptions {
  /** `webgpu`, which is the fastest where there is a GPU, or `wasm`, which runs on the CPU in every browser. */
  readonly device: WebDevice;
  /**
   * The URL of the folder with onnxruntime-web's `ort-wasm-*` files, which are too large for the bundle. The folder of the bundle by
   * default.
   */
  readonly wasmPaths?: string | URL;
  /**
   * Number of threads for CPU work; by default the number of cores on a cross-origin isolated page, and 1 elsewhere. The setting of
   * the first program on a page applies to all.
   */
  readonly threads?: number;
  /** Contents of the files with weights, by the name in their `path`. */
  readonly files?: WebFiles;
  /**
   * Runs each program in a Web Worker, so that the page stays responsive and a run can be aborted. Where a bundler does not find the
   * worker's script, pass a function that starts it from `patchwise/engine/web/worker-wasm` or `/worker-webgpu`.
   */
  readonly worker?: boolean | StartWebWorker;
}

/**
 * Creates a backend for one device of this browser. State stays on the GPU between runs.
 *
 * @example
 * const program = await webBackend({ device: "webgpu", wasmPaths: "/ort/" }).compile(graph);
 * const { y } = await program.run({ x });
 * @throws UsageError for an option that does not exist; DeviceError if the device does not exist; `compile` throws it if the browser does not support the device
 */
export function webBackend(options: WebBackendOptions): Backend {
  requireOptions<WebBackendOptions>("webBackend", options, {
    device: kinds.text,
    wasmPaths: kinds.address,
    threads: kinds.count,
    files: kinds.callback,
    worker: either(kinds.flag, kinds.callback),
  });
  const { device, wasmPaths, threads, files = () => undefined, worker = false } = options;
  if (!webDevices.includes(device)) {
    throw new DeviceError(
      `The device ${device as string} does not exist in a browser; expected one of ${webDevices.join(", ")}.`,
    );
  }
  // Asked for when a program is compiled: a server that renders pages makes backends too, but has no address of its own.
  const settings = (): WebRuntimeSettings => ({
    device,
    ...(wasmPaths !== undefined && { wasmPaths: new URL(wasmPaths, location.href).href }),
    ...(threads !== undefined && { threads }),
  });
  const open: OpenExecutor = worker
    ? (plan) => openInWebWorker(settings(), plan, worker === true ? undefined : worker)
    : async (plan) => openWebExecutor(await builds[device](), settings(), plan);
  const trustsAttention = async () =>
    device !== "webgpu" || (attentionOfGpu ??= fusedAttentionWorks(open));
  return {
    device,
    compile: (whole, compileOptions = {}) =>
      withFetchedRows(whole, compileOptions, async (graph, given) => {
        const half = device === "webgpu" ? await requireAdapter(graph) : true;
        const { weights, mount } = await prepareWeights(graph, given.weights, files, half);
        return compileProgram(graph, { ...given, weights }, open, mount, trustsAttention);
      }),
  };
}

/**
 * The builds of ONNX Runtime, loaded on first use: the one for WebAssembly alone has half the size of the one that also supports
 * WebGPU.
 */
const builds: { readonly [D in WebDevice]: () => Promise<typeof Ort> } = {
  webgpu: () => import("onnxruntime-web/webgpu"),
  wasm: () => import("onnxruntime-web/wasm"),
};

/** The adapter of the page, which is requested once. */
let attentionOfGpu: Promise<boolean> | undefined;

interface Adapter {
  readonly features: ReadonlySet<string>;
}

/**
 * Requests the adapter of the page.
 *
 * @returns whether it computes in float16
 * @throws DeviceError if there is no adapter, or if it does not support a dtype of the graph
 */
async function requireAdapter(graph: Graph): Promise<boolean> {
  const { gpu } = navigator as { gpu?: { requestAdapter(): Promise<Adapter | null> } };
  if (!gpu) {
    throw new DeviceError(
      "This browser has no WebGPU: open the page over https in a browser that has it, or use the device wasm.",
    );
  }
  const adapter = await gpu.requestAdapter();
  if (!adapter) {
    throw new DeviceError(
      "The browser offers no WebGPU adapter: turn on hardware acceleration, or use the device wasm.",
    );
  }
  const lacking: DType[] = ["float64", "bfloat16", "float8_e4m3fn", "float8_e5m2"];
  const half = adapter.features.has("shader-f16");
  if (!half) lacking.push("float16");
  for (const { op, scope, outputs } of graph.nodes) {
    const output = outputs.find(({ dtype }) => lacking.includes(dtype));
    if (!output) continue;
    throw new DeviceError(
      `WebGPU cannot compute in ${output.dtype} here, as ${op}${scope ? ` (at ${scope})` : ""} would; cast to float32, or use the device wasm.`,
    );
  }
  return half;
}

/** Finds the content of a file by the `path` of a stored weight. */
export type WebFiles = (name: string) => Blob | Uint8Array<ArrayBuffer> | undefined;

/**
 * Makes weights readable by ONNX Runtime in a browser. Weights in bfloat16, float64 and 8-bit floats are converted to float32,
 * because its builds have no kernels that read them, and so are quantized ones. Where the device cannot compute in float16, so are
 * tables in float16 whose rows are looked up: the device would otherwise read float16 from them, which it cannot.
 *
 * @param half whether the device computes in float16
 * @returns the weights, and a function that mounts the files behind them
 * @throws DeviceError if `files` lacks a file whose weights have to be converted
 */
async function prepareWeights(
  graph: Graph,
  weights: WeightSource = () => undefined,
  files: WebFiles,
  half: boolean,
): Promise<{ weights: WeightSource; mount: (paths: readonly string[]) => Mount }> {
  const prepared = new Map<string, StoredWeight>();
  const converted = new Map<string, Blob>();
  const readFile: ReadFile = async (target, path, offset) => {
    const range = contentOf(path, files).slice(offset, offset + target.length);
    target.set(range instanceof Blob ? new Uint8Array(await range.arrayBuffer()) : range);
  };
  for (const parameter of graph.parameters) {
    const name = leafName(parameter);
    const stored = weights(name);
    if (!stored) continue;
    const isTable = gathersOf(parameter, graph).length > 0;
    const readable = (dtype: DType) =>
      dtype === parameter.dtype ||
      !(
        dtype === "bfloat16" ||
        dtype === "float64" ||
        isFloat8(dtype) ||
        (dtype === "float16" && isTable && !half)
      );
    if (isInPlace(stored, readable)) {
      prepared.set(name, stored);
      continue;
    }
    const array = await readWeight(stored, readFile);
    const kept = array.dtype === "int8" || readable(array.dtype);
    const { data, dtype, shape } = kept ? array : castArray(array, "float32");
    const path = `${name} as ${dtype}`;
    converted.set(path, new Blob([data as Uint8Array<ArrayBuffer>]));
    prepared.set(name, fileWeight(path, 0, dtype, shape));
  }
  return {
    weights: (name) => prepared.get(name),
    mount: (paths) => mountFiles(paths, (path) => converted.get(path) ?? files(path)),
  };
}

function mountFiles(paths: readonly string[], files: WebFiles): Mount {
  return {
    files: Object.fromEntries(paths.map((path, i) => [`file${i}`, path])),
    contents: Object.fromEntries(paths.map((path, i) => [`file${i}`, contentOf(path, files)])),
  };
}

function contentOf(path: string, files: WebFiles): Blob | Uint8Array<ArrayBuffer> {
  const content = files(path);
  if (content) return content;
  throw new DeviceError(
    `The weights are in the file ${path}, which the backend was not given; pass it with the option \`files\`.`,
  );
}

/** Starts a module worker that runs the entry of the backend's device. */
export type StartWebWorker = () => Worker;

/** Opens a plan in a separate Web Worker. */
function openInWebWorker(
  settings: WebRuntimeSettings,
  plan: Plan,
  start: StartWebWorker = starts[settings.device],
): Promise<Executor> {
  return openRemote(() => connectWorker(start(), settings), plan);
}

/** Bundlers recognize workers by this form, with the address written out. */
const starts: { readonly [D in WebDevice]: StartWebWorker } = {
  wasm: () => new Worker(new URL("./ort-worker-wasm.js", import.meta.url), { type: "module" }),
  webgpu: () => new Worker(new URL("./ort-worker-webgpu.js", import.meta.url), { type: "module" }),
};

function connectWorker(worker: Worker, settings: WebRuntimeSettings): Remote {
  const died = new Promise<never>((_, reject) => {
    worker.addEventListener("error", ({ message }) =>
      reject(
        new DeviceError(
          `The worker of a program on ${settings.device} failed${message ? `: ${message}` : " to load its script; its server has to serve the package's files as they stand (docs/apps.md has a line for Vite 6 and 7)"}.`,
        ),
      ),
    );
  });
  worker.postMessage(settings, []);
  return {
    died,
    port: {
      post: (message, transfer) => worker.postMessage(message, [...transfer]),
      listen: (onMessage) =>
        worker.addEventListener("message", ({ data }: MessageEvent<Response>) => onMessage(data)),
    },
    terminate: async () => worker.terminate(),
  };
}
