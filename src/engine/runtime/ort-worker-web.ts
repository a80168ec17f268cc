/**
 * What a Web Worker of `ort-web.ts` does: it receives its settings first, and then requests. Each device has an entry of its own
 * (`ort-worker-wasm.ts`, `ort-worker-webgpu.ts`) that imports one build of ONNX Runtime statically, since bundlers make one
 * file of a worker and could not split it.
 */
import type * as Ort from "onnxruntime-common";
import { openWebExecutor, type WebRuntimeSettings } from "./ort-session-web.ts";
import { type Request, serveExecutor } from "./worker-protocol.ts";

/** The part of a worker's global scope that is used here. */
interface WorkerScope {
  readonly name?: string;
  postMessage(message: unknown, transfer: ArrayBuffer[]): void;
  addEventListener(
    type: "message",
    listener: (event: { readonly data: unknown }) => void,
    options?: { once: boolean },
  ): void;
}

/** Serves the page that started this worker. */
export function serveWebWorker(ort: typeof Ort): void {
  const scope = globalThis as unknown as WorkerScope;
  // Threads of ONNX Runtime load this script again where it is in the same file, and have messages of their own.
  if (scope.name === "em-pthread") return;
  scope.addEventListener(
    "message",
    ({ data }) => {
      const settings = data as WebRuntimeSettings;
      serveExecutor(
        {
          post: (message, transfer) => scope.postMessage(message, [...transfer]),
          listen: (onMessage) =>
            scope.addEventListener("message", (event) => onMessage(event.data as Request)),
        },
        (plan) => openWebExecutor(ort, settings, plan),
      );
    },
    { once: true },
  );
}
