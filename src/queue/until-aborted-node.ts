/** Waiting that a signal ends. */
import { setMaxListeners } from "node:events";

/** Waits for work, but no longer than until a signal, whose reason is then thrown. */
export function untilAborted<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return work;
  // Many wait for one signal, which Node would take for a leak.
  setMaxListeners(0, signal);
  return new Promise((resolve, reject) => {
    const stop = () => reject(signal.reason as Error);
    if (signal.aborted) stop();
    signal.addEventListener("abort", stop, { once: true });
    void work.then(resolve, reject).finally(() => signal.removeEventListener("abort", stop));
  });
}
