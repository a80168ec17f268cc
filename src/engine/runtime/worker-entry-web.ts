/** The entry point of the Web Workers that worker-web.ts starts. It receives its settings first, and then requests. */
import { openWebExecutor, type WebRuntimeSettings } from "./ort-session-web.ts";
import { type Request, serveExecutor } from "./worker-protocol.ts";

/** The part of a worker's global scope that is used here. */
interface WorkerScope {
  postMessage(message: unknown, transfer: ArrayBuffer[]): void;
  addEventListener(
    type: "message",
    listener: (event: { readonly data: unknown }) => void,
    options?: { once: boolean },
  ): void;
}

const scope = globalThis as unknown as WorkerScope;

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
      (plan) => openWebExecutor(settings, plan),
    );
  },
  { once: true },
);
