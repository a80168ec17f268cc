/** Child processes, which do a part of the work and may end at any time. */
import { type ChildProcess, fork } from "node:child_process";
import { moduleFile } from "../package-node.ts";

/** A process that takes messages of one type. */
export interface Child<Sent> {
  /** One that has just ended takes no message; its end is reported by itself. */
  send(message: Sent): void;
  /** Ends it at once; resolves when it has ended. Its end is not reported. */
  end(): Promise<void>;
}

/**
 * Starts a process.
 *
 * @param module its entry point, such as "server/drawing-process"
 * @param gone called once if the process ends otherwise than by `end`
 */
export function startChild<Sent extends object>(
  module: string,
  heard: (message: unknown) => void,
  gone: (how: string) => void,
): Child<Sent> {
  // "advanced" serialization preserves bytes.
  const child: ChildProcess = fork(moduleFile(module), { serialization: "advanced" });
  let isOver = false;
  const report = (how: string) => {
    if (!isOver) gone(how);
    isOver = true;
  };
  child.on("message", (message) => {
    if (!isOver) heard(message);
  });
  child.on("error", ({ message }) => report(message));
  child.once("exit", (code, signal) => report(signal ?? `exit code ${code}`));
  return {
    send(message) {
      if (child.connected) child.send(message, () => {});
    },
    async end() {
      isOver = true;
      if (child.exitCode !== null || child.signalCode !== null) return;
      const exited = new Promise<void>((resolve) => child.once("exit", () => resolve()));
      child.kill("SIGKILL");
      await exited;
    },
  };
}
