/** ONNX Runtime in the browser: WebGPU, and WebAssembly on the CPU. */
import { DeviceError } from "../errors.ts";
import type { Backend } from "./backend.ts";
import type { Mount, OpenExecutor } from "./executor.ts";
import {
  openWebExecutor,
  type WebDevice,
  webDevices,
  type WebRuntimeSettings,
} from "./ort-session-web.ts";
import { compileProgram } from "./program.ts";
import { openInWebWorker, type StartWebWorker } from "./worker-web.ts";

export interface WebBackendOptions {
  /**
   * URL of the folder that serves onnxruntime-web's `ort-wasm-*` files, which are large and
   * therefore not in the bundle. Unless given, they are expected beside the bundle.
   */
  readonly wasmPaths?: string | URL;
  /** Threads for CPU work: as many as there are cores on a cross-origin isolated page, else 1. The first program on a page decides. */
  readonly threads?: number;
  /** Contents of the files that weights lie in, by the name that their `path` holds. */
  readonly files?: (name: string) => Blob | Uint8Array | undefined;
  /**
   * Run each program in a Web Worker of its own: the page stays free, and aborting a run stops it.
   * A function starts the worker where a bundler does not find its module by itself.
   */
  readonly worker?: boolean | StartWebWorker;
}

/**
 * A backend on one device of this browser. State stays on the GPU from run to run.
 *
 * @example
 * const program = await webBackend("webgpu", { wasmPaths: "/ort/" }).compile(graph);
 * const { y } = await program.run({ x });
 * @throws DeviceError when there is no such device; `compile` throws it when the browser lacks the device
 */
export function webBackend(device: WebDevice = "webgpu", options: WebBackendOptions = {}): Backend {
  if (!webDevices.includes(device)) {
    throw new DeviceError(
      `The device ${String(device)} does not exist in a browser; expected one of ${webDevices.join(", ")}.`,
    );
  }
  const { wasmPaths, threads, files = () => undefined, worker = false } = options;
  const settings: WebRuntimeSettings = {
    device,
    ...(wasmPaths !== undefined && { wasmPaths: new URL(wasmPaths, location.href).href }),
    ...(threads !== undefined && { threads }),
  };
  const open: OpenExecutor = worker
    ? (plan) => openInWebWorker(settings, plan, worker === true ? undefined : worker)
    : (plan) => openWebExecutor(settings, plan);
  return {
    device,
    compile: (graph, compileOptions = {}) =>
      compileProgram(graph, compileOptions, open, (paths) => mountContents(paths, files)),
  };
}

/** A browser has no folders, so that files are called by their number. */
function mountContents(
  paths: readonly string[],
  contentsOf: (name: string) => Blob | Uint8Array | undefined,
): Mount {
  const contents = paths.map((path) => {
    const data = contentsOf(path);
    if (data) return data;
    throw new DeviceError(
      `Weights lie in the file ${path}, which the backend was not given; hand it over by the option files.`,
    );
  });
  return {
    files: Object.fromEntries(paths.map((path, i) => [`file${i}`, path])),
    contents: Object.fromEntries(contents.map((data, i) => [`file${i}`, data])),
  };
}
