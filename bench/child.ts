/** Runs a contender as a child process, with the line protocol in `contender.ts`. */
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import type { StepResult } from "./contender.ts";
import { processorMs, watchMemory } from "./memory.ts";

export interface Launch {
  readonly command: string;
  readonly args: readonly string[];
  readonly env: NodeJS.ProcessEnv;
}

export interface Child {
  readonly settings: string;
  /** One step, and the processor time of the process and its children in it, in ms; null if unknown. */
  step(): Promise<StepResult & { readonly processorMs: number | null }>;
  /** The peak memory so far in MB, as measured by `watchMemory`. */
  peakMb(): number | null;
  /** The same with the resident pages of mapped files. */
  peakTotalMb(): number | null;
  /** Ends the process. */
  kill(): void;
}

const answerLimitMs = 10 * 60_000;
const keptErrorLength = 2000;

/**
 * Starts a contender and waits for its setup.
 *
 * @returns the running child, or the reason why its engine is absent
 * @throws Error with the end of its stderr if it dies or does not answer within ten minutes
 */
export async function startChild(launch: Launch): Promise<Child | string> {
  const child = spawn(launch.command, launch.args, { env: launch.env, stdio: "pipe" });
  const pid = child.pid ?? 0;
  const memory = watchMemory(pid);
  child.once("close", () => memory.end());
  let stderr = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr = (stderr + text).slice(-keptErrorLength);
  });
  const failed = new Promise<never>((_, reject) => {
    child.once("error", reject);
    child.once("close", (code, signal) => {
      reject(new Error(`it ended with ${signal ?? `code ${code}`}: ${stderr.trim()}`));
    });
  });
  // A failure rejects the pending answer, if there is one.
  failed.catch(() => undefined);
  child.stdin.on("error", () => undefined);
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();

  async function answer<T>(): Promise<T> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        child.kill("SIGKILL");
        reject(new Error(`it gave no answer within ${answerLimitMs / 60_000} minutes`));
      }, answerLimitMs);
    });
    const line = lines.next().then(({ done, value }) => (done ? failed : value));
    try {
      return JSON.parse(await Promise.race([line, failed, late])) as T;
    } finally {
      clearTimeout(timer);
    }
  }
  const ask = <T>(request: string): Promise<T> => {
    child.stdin.write(`${request}\n`);
    return answer<T>();
  };

  const ready = await answer<{ settings: string } | { absent: string }>().catch(
    (error: unknown) => {
      // A running child would keep the harness from exiting.
      child.kill("SIGKILL");
      throw error;
    },
  );
  if ("absent" in ready) {
    child.kill();
    return ready.absent;
  }
  return {
    settings: ready.settings,
    async step() {
      const before = processorMs(pid);
      const result = await ask<StepResult>("step");
      const after = processorMs(pid);
      return {
        ...result,
        processorMs: before === null || after === null ? null : after - before,
      };
    },
    peakMb: () => memory.peakMb(),
    peakTotalMb: () => memory.peakTotalMb(),
    kill: () => void child.kill("SIGKILL"),
  };
}
