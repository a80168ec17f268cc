/** The Web Worker's side of worker-web.ts: first told its settings, then asked to run programs. */
import { openWebExecutor, type WebRuntimeSettings } from "./ort-session-web.ts";
import { type Request, serveExecutor } from "./worker-protocol.ts";

/** What a worker's global scope offers of all that a window's does. */
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
