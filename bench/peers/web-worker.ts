/**
 * Implements the parts of the browser's `Worker` and `navigator.hardwareConcurrency` that jax-js and tfjs use on Node's
 * threads. Both compute on several threads only if these exist.
 */
import { resolveObjectURL } from "node:buffer";
import { Worker as Thread } from "node:worker_threads";

const prelude = `
const { parentPort } = require("node:worker_threads");
globalThis.self = globalThis;
globalThis.postMessage = (message) => parentPort.postMessage(message);
parentPort.on("message", (data) => self.onmessage({ data }));
`;

class WebWorker {
  onmessage: ((event: { data: unknown }) => void) | undefined;
  onerror: ((error: Error) => void) | undefined;
  #thread: Thread | undefined;
  #waiting: unknown[] = [];

  constructor(url: string | URL) {
    const source = resolveObjectURL(String(url));
    if (source === undefined) throw new Error(`Expected the URL of a blob, got ${String(url)}.`);
    void source.text().then((text) => this.#start(text));
  }

  #start(source: string): void {
    const thread = new Thread(prelude + source, { eval: true });
    thread.on("message", (data) => this.onmessage?.({ data }));
    thread.on("error", (error) => this.onerror?.(error));
    for (const message of this.#waiting) thread.postMessage(message, []);
    this.#thread = thread;
  }

  postMessage(message: unknown): void {
    if (this.#thread === undefined) this.#waiting.push(message);
    else this.#thread.postMessage(message, []);
  }

  terminate(): void {
    void this.#thread?.terminate();
  }
}

/** Must be called before the engine is imported, which looks for workers when it loads. */
export function provideWebWorkers(threads: number): void {
  Object.defineProperty(globalThis, "Worker", { value: WebWorker, configurable: true });
  Object.defineProperty(globalThis, "navigator", {
    value: { hardwareConcurrency: threads },
    configurable: true,
  });
}
