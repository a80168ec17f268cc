/** Programs in Web Workers, so that the page stays responsive while they run. */
import { DeviceError } from "../errors.ts";
import type { Executor, Plan } from "./executor.ts";
import type { WebDevice, WebRuntimeSettings } from "./ort-session-web.ts";
import { openRemote, type Remote, type Response } from "./worker-protocol.ts";

/** Starts a module worker that runs the entry of the backend's device. */
export type StartWebWorker = () => Worker;

/** Opens a plan in a separate Web Worker. */
export function openInWebWorker(
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
          `The worker of a program on ${settings.device} failed${message ? `: ${message}` : " to load its script"}.`,
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
