/** ONNX Runtime in the browser, with WebGPU or with WebAssembly on the CPU. */
import type * as Ort from "onnxruntime-common";
import type { DType } from "../arrays/ndarray.ts";
import { DeviceError } from "../errors.ts";
import type { Graph } from "../graph/graph.ts";
import type { Backend } from "./backend.ts";
import type { OpenExecutor } from "./executor.ts";
import {
  openWebExecutor,
  type WebDevice,
  webDevices,
  type WebRuntimeSettings,
} from "./ort-session-web.ts";
import { fusedAttentionWorks } from "./fused-attention.ts";
import { compileProgram } from "./program.ts";
import { prepareWeights, type WebFiles } from "./weights-web.ts";
import { openInWebWorker, type StartWebWorker } from "./worker-web.ts";

export interface WebBackendOptions {
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
 * @throws DeviceError if the device does not exist; `compile` throws it if the browser does not support the device
 */
export function webBackend(options: WebBackendOptions): Backend {
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
    async compile(graph, compileOptions = {}) {
      if (device === "webgpu") await requireAdapter(graph);
      const { weights, mount } = await prepareWeights(graph, compileOptions.weights, files);
      return compileProgram(graph, { ...compileOptions, weights }, open, mount, trustsAttention);
    },
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

/** @throws DeviceError if there is no adapter, or if it does not support a dtype of the graph */
async function requireAdapter(graph: Graph): Promise<void> {
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
  const lacking: DType[] = ["float64", "bfloat16"];
  if (!adapter.features.has("shader-f16")) lacking.push("float16");
  for (const { op, scope, outputs } of graph.nodes) {
    const output = outputs.find(({ dtype }) => lacking.includes(dtype));
    if (!output) continue;
    throw new DeviceError(
      `WebGPU cannot compute in ${output.dtype} here, as ${op}${scope ? ` (at ${scope})` : ""} would; cast to float32, or use the device wasm.`,
    );
  }
}
