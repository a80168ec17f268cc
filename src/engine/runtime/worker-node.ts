/**
 * Programs in processes of their own: the caller's event loop stays free while they run.
 *
 * Processes, not threads: Node ends a thread only between two calls into native code, and dies with
 * it when it is ended inside of one; and what a runtime does to its process stays there.
 */
import { fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { DeviceError } from "../errors.ts";
import type { Executor, Plan } from "./executor.ts";
import type { NodeDevice } from "./ort-session-node.ts";
import { openRemote, type Remote, type Response } from "./worker-protocol.ts";

/** Opens a plan in a process of its own. */
export function openInWorker(device: NodeDevice, plan: Plan): Promise<Executor> {
  return openRemote(() => startWorker(device), plan);
}

function startWorker(device: NodeDevice): Remote {
  const extension = import.meta.url.endsWith(".ts") ? "ts" : "js";
  const entry = fileURLToPath(new URL(`./worker-entry-node.${extension}`, import.meta.url));
  // "advanced" passes typed arrays as they are.
  const child = fork(entry, [device], { serialization: "advanced" });
  const exited = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  const died = new Promise<never>((_, reject) => {
    child.once("error", reject);
    child.once("exit", (code, signal) =>
      reject(
        new DeviceError(
          `The worker process of a program on ${device} ended by itself (${signal ?? `exit code ${code}`}).`,
        ),
      ),
    );
  });
  // A worker that waits must not keep this process alive; one that owes an answer must.
  const hold = (owes: boolean) => {
    child[owes ? "ref" : "unref"]();
    child.channel?.[owes ? "ref" : "unref"]();
  };
  return {
    died,
    port: {
      post: (message) => {
        hold(true);
        child.send(message);
      },
      listen: (onMessage) =>
        child.on("message", (message) => {
          hold(false);
          onMessage(message as Response);
        }),
    },
    terminate: async () => {
      hold(true);
      child.kill("SIGKILL");
      await exited;
    },
  };
}
