/** Messages from a process to the one that started it with `fork`. */

/**
 * Sends a message. One that the other process can no longer hear is dropped, and is no error: that process has ended, which the event
 * "disconnect" reports a moment later.
 */
export function tellParent(message: object): void {
  if (process.connected) process.send?.(message, undefined, undefined, () => {});
}
