/** Programs in worker threads of Node: the caller's event loop stays free while they run. */
import { Worker } from "node:worker_threads";
import { DeviceError } from "../errors.ts";
import type { Executor, Plan } from "./executor.ts";
import type { NodeDevice } from "./ort-session-node.ts";
import { openRemote, type Remote, type Response } from "./worker-protocol.ts";

/** Opens a plan in a worker thread of its own. */
export function openInWorker(device: NodeDevice, plan: Plan): Promise<Executor> {
  return openRemote(() => startWorker(device), plan);
}

function startWorker(device: NodeDevice): Remote {
  const worker = new Worker(new URL("./worker-entry-node.js", import.meta.url), {
    workerData: { device },
  });
  // A worker that waits must not keep the process alive; one that runs is kept by its listener.
  const died = new Promise<never>((_, reject) => {
    worker.once("error", reject);
    worker.once("exit", (code) =>
      reject(new DeviceError(`The worker of a program on ${device} ended with code ${code}.`)),
    );
  });
  return {
    died,
    port: {
      post: (message, transfer) => worker.postMessage(message, transfer),
      listen: (onMessage) => worker.on("message", (message: Response) => onMessage(message)),
    },
    terminate: async () => {
      await worker.terminate();
    },
  };
}
