/** Memory back at once, where the garbage collector would let hundreds of megabytes lie until it runs. */

let nowhere: MessagePort | undefined;

/** Frees arrays that nothing will read again; they have no elements from then on. */
export function release(arrays: readonly ArrayBufferView<ArrayBuffer>[]): void {
  const buffers = new Set(arrays.map(({ buffer }) => buffer));
  // A transfer takes the memory from its owner, and what nobody receives is freed.
  nowhere ??= closedPort();
  nowhere.postMessage(null, [...buffers]);
}

function closedPort(): MessagePort {
  const { port1, port2 } = new MessageChannel();
  port2.close();
  return port1;
}
