/**
 * Ctrl-C and the signals that end a process. A handler runs only when the event loop turns, which tracing, compiling and each run of
 * a program hold up; without one the system ends the process at once. So there is a handler only while there is something to keep.
 */
import type { ProgressWriter } from "./progress.ts";
import { writeLine } from "./terminal.ts";

const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

export interface SignalGuard {
  /** From here on a signal aborts the work, which then keeps what it has. A second signal ends the process at once. */
  hold(): void;
  /** From here on a signal ends the process at once. */
  release(): void;
}

/**
 * Runs work that a signal aborts while it holds the guard; at first it does not.
 *
 * @param stopped what is said in place of the error of work that the signal ended
 * @param progress the line that ends with the work
 */
export async function untilSignal(
  work: (signal: AbortSignal, guard: SignalGuard) => Promise<void>,
  { stopped, progress }: { readonly stopped?: string; readonly progress?: ProgressWriter },
): Promise<void> {
  const controller = new AbortController();
  const off = () => {
    for (const signal of signals) process.off(signal, stop);
  };
  const stop = () => {
    off();
    controller.abort();
  };
  let held = false;
  let releasing: NodeJS.Immediate | undefined;
  const guard = {
    // A handler that is removed and added again would miss the signals in between.
    hold() {
      clearImmediate(releasing);
      if (held || controller.signal.aborted) return;
      held = true;
      for (const signal of signals) process.on(signal, stop);
    },
    // Signals that are already there are handled first, when the event loop turns.
    release() {
      clearImmediate(releasing);
      releasing = setImmediate(() => {
        held = false;
        off();
      });
    },
  };
  try {
    await work(controller.signal, guard);
  } catch (error) {
    if (stopped === undefined || !controller.signal.aborted) throw error;
    progress?.end();
    writeLine(process.stderr, stopped);
    process.exitCode = 130;
  } finally {
    progress?.end();
    clearImmediate(releasing);
    off();
  }
}
