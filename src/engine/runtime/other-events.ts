/** Turns of the event loop between long computations. */

/**
 * Waits until timers, signals, messages and, in a page, painting had their turn. A promise alone does not let them in.
 *
 * Pages have no `setImmediate`, and delay the timers of tabs in the background, but not messages.
 */
export function otherEvents(): Promise<void> {
  return new Promise((resolve) => {
    if ("setImmediate" in globalThis) {
      setImmediate(resolve);
      return;
    }
    const { port1, port2 } = new MessageChannel();
    port1.addEventListener("message", () => {
      port1.close();
      resolve();
    });
    port1.start();
    port2.postMessage(undefined);
  });
}
