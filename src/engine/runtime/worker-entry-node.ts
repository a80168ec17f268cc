/** The entry point of the processes that ort-node.ts starts. */
import { type NodeDevice, openNodeExecutor } from "./ort-session-node.ts";
import { tellParent } from "./parent-node.ts";
import { type Request, serveExecutor } from "./worker-protocol.ts";

const device = process.argv[2] as NodeDevice;

serveExecutor(
  {
    post: tellParent,
    listen: (onMessage) => process.on("message", (message) => onMessage(message as Request)),
  },
  (plan) => openNodeExecutor(device, plan),
);
// A worker ends with the process that it works for.
process.once("disconnect", () => process.exit());
