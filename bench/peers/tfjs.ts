/**
 * TensorFlow.js at its best settings in Node: the WebAssembly backend with SIMD and threads. It offers threads
 * in browsers alone (https://github.com/tensorflow/tfjs/issues/3830); what is missing in Node is done here while
 * the backend starts: its worker and the module inside it come as blobs, which Node's Worker does not take.
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

/** What the module, cut out of its bundle, finds around itself in a browser; the module is the worker's data. */
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
  // The CommonJS builds: only they can be told where to find things.
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

/** Lets the backend start its threads; gives back a function that undoes it. */
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
  // The backend takes at most half of the processors.
  os.cpus = () => Array.from({ length: 2 * threads }, () => original.cpus()[0]!);

  return () => {
    globalThis.Blob = original.Blob;
    workerThreads.Worker = original.Worker;
    os.cpus = original.cpus;
  };
}
