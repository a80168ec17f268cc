/**
 * Programs in separate processes, so that the caller's event loop stays free while they run.
 *
 * These are processes and not threads, because Node can end a thread only between two calls into native code and crashes
 * otherwise, and because a crash of the runtime is then limited to its own process.
 */
import { fork } from "node:child_process";
import { DeviceError } from "../errors.ts";
import { moduleFile } from "../package-node.ts";
import type { Executor, Plan } from "./executor.ts";
import type { NodeDevice } from "./ort-session-node.ts";
import { openRemote, type Remote, type Response } from "./worker-protocol.ts";

/** Opens a plan in a separate process. */
export function openInWorker(device: NodeDevice, plan: Plan): Promise<Executor> {
  return openRemote(() => startWorker(device), plan);
}

function startWorker(device: NodeDevice): Remote {
  // "advanced" serialization preserves typed arrays.
  const child = fork(moduleFile("engine/runtime/worker-entry-node"), [device], {
    serialization: "advanced",
  });
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
  // An idle worker must not keep this process alive, but one that still has to answer must.
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
