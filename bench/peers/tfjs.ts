/**
 * TensorFlow.js with its best settings in Node: the WebAssembly backend with SIMD and threads. It supports threads
 * only in browsers (https://github.com/tensorflow/tfjs/issues/3830). This file adds what is missing in Node while the
 * backend starts: its worker and the module inside it are blobs, which Node's Worker does not accept.
 */
import { createRequire } from "node:module";
import type * as osModule from "node:os";
import type * as workerThreadsModule from "node:worker_threads";
import type * as tfModule from "@tensorflow/tfjs";

export type Tf = typeof tfModule;

interface WasmBackend {
  setThreadsCount(threads: number): void;
  getThreadsCount(): number;
}

/** Sets up the globals that the module, extracted from its bundle, expects in a browser; the module is the worker's data. */
const prelude = `
const threads = require("worker_threads");
const files = require("fs");
Object.assign(globalThis, {
  require$$0: files,
  require$$1: require("path"),
  require$$3: require("perf_hooks"),
  require$$4: require("os"),
  commonjsGlobal: globalThis,
  __dirname: ".",
});
URL.createObjectURL = () => "the module";
URL.revokeObjectURL = () => undefined;
const { readFileSync } = files;
files.readFileSync = (file, ...rest) =>
  file === "the module" ? threads.workerData : readFileSync(file, ...rest);
`;

export async function loadTf(threads: number): Promise<{ tf: Tf; settings: string }> {
  // Only the CommonJS builds let us replace the paths of their files.
  const require = createRequire(import.meta.url);
  const tf = require("@tensorflow/tfjs") as Tf;
  const wasm =
    require("@tensorflow/tfjs-backend-wasm/dist/tf-backend-wasm.es2017.js") as WasmBackend;
  tf.enableProdMode();
  tf.env().set("WASM_HAS_MULTITHREAD_SUPPORT", true);
  const restore = provideThreads(require, threads);
  wasm.setThreadsCount(threads);
  await tf.setBackend("wasm");
  await tf.ready();
  restore();
  return {
    tf,
    settings: `@tensorflow/tfjs ${tf.version.tfjs}, ${tf.getBackend()} backend, SIMD, ${wasm.getThreadsCount()} threads`,
  };
}

/** Enables the backend to start its threads; returns a function that undoes the changes. */
function provideThreads(require: NodeJS.Require, threads: number): () => void {
  const os = require("node:os") as typeof osModule;
  const workerThreads = require("node:worker_threads") as typeof workerThreadsModule;
  const original = { cpus: os.cpus, Worker: workerThreads.Worker, Blob: globalThis.Blob };
  const sources: string[] = [];

  globalThis.Blob = class extends original.Blob {
    constructor(parts?: ConstructorParameters<typeof Blob>[0], options?: BlobPropertyBag) {
      super(parts, options);
      sources.push((parts as string[]).join(""));
    }
  };
  workerThreads.Worker = class extends original.Worker {
    constructor() {
      const [module, worker] = sources;
      super(`${prelude}${worker}`, { eval: true, workerData: module });
    }
  };
  // The backend uses at most half of the processors.
  os.cpus = () => Array.from({ length: 2 * threads }, () => original.cpus()[0]!);

  return () => {
    globalThis.Blob = original.Blob;
    workerThreads.Worker = original.Worker;
    os.cpus = original.cpus;
  };
}
