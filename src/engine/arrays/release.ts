/** Frees the memory of arrays at once. */
let nowhere: MessagePort | undefined;

/**
 * Frees arrays that nothing will read again. They have no elements from then on. Without this, hundreds of megabytes would stay
 * until the garbage collector runs.
 */
export function release(arrays: readonly ArrayBufferView<ArrayBuffer>[]): void {
  const buffers = new Set(arrays.map(({ buffer }) => buffer));
  // A transfer takes the memory from its owner, and is freed because nobody receives it.
  nowhere ??= closedPort();
  nowhere.postMessage(null, [...buffers]);
}

function closedPort(): MessagePort {
  const { port1, port2 } = new MessageChannel();
  port2.close();
  return port1;
}
