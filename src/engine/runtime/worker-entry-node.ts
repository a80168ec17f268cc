/** The worker thread's side of worker-node.ts. */
import { parentPort, workerData } from "node:worker_threads";
import { type NodeDevice, openNodeExecutor } from "./ort-session-node.ts";
import { type Request, serveExecutor } from "./worker-protocol.ts";

const { device } = workerData as { device: NodeDevice };
const port = parentPort!;

serveExecutor(
  {
    post: (message, transfer) => port.postMessage(message, transfer),
    listen: (onMessage) => port.on("message", (message: Request) => onMessage(message)),
  },
  (plan) => openNodeExecutor(device, plan),
);
