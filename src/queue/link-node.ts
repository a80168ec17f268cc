/** Whether a connection to NATS is there, and calls that are repeated until it is. */
import { setTimeout } from "node:timers/promises";
import type { NatsConnection } from "@nats-io/transport-node";

/** Milliseconds between two attempts. */
export const PAUSE = 500;

/** A connection as those see it who wait for it. */
export interface Link {
  /**
   * Repeats a call for as long as the server is away or does not answer.
   *
   * @throws what the call throws for any other reason, and the reason of `signal`
   */
  readonly persist: <T>(call: () => Promise<T>, signal?: AbortSignal) => Promise<T>;
}

/**
 * Follows a connection until it is closed.
 *
 * @param told called when the connection is lost and when it is back
 */
export function linkOf(
  connection: NatsConnection,
  told: (event: "lost" | "back") => void = () => {},
): Link {
  let isUp = true;
  /** Those who wait for the connection to be lost or to be back. */
  const waiting = new Set<() => void>();
  const changed = (up: boolean) => {
    isUp = up;
    for (const each of waiting) each();
  };
  const follow = async () => {
    for await (const { type } of connection.status()) {
      if (type === "disconnect" && isUp && !connection.isClosed()) {
        changed(false);
        told("lost");
      }
      if (type === "reconnect") {
        changed(true);
        told("back");
      }
    }
  };
  void follow().then(() => changed(false));

  /** Waits for a call until it ends, the connection is lost or back, or a signal comes. */
  const unlessChanged = <T>(call: Promise<T>, signal: AbortSignal | undefined): Promise<T | void> =>
    new Promise<T | void>((resolve, reject) => {
      const change = () => resolve();
      const stop = () => reject(signal!.reason as Error);
      waiting.add(change);
      signal?.addEventListener("abort", stop, { once: true });
      void call.then(resolve, reject).finally(() => {
        waiting.delete(change);
        signal?.removeEventListener("abort", stop);
      });
    });

  return {
    async persist<T>(call: () => Promise<T>, signal?: AbortSignal) {
      for (;;) {
        signal?.throwIfAborted();
        if (isUp || connection.isClosed()) {
          // What is sent while the server is away is dropped by the client, and would be answered by a time limit only.
          const answer = call().then(
            (value) => ({ value }),
            (error: unknown) => {
              if (connection.isClosed() || !isPassing(error)) throw error;
            },
          );
          const ended = await unlessChanged(answer, signal);
          if (ended) return ended.value;
        }
        await unlessChanged(setTimeout(PAUSE), signal);
      }
    },
  };
}

/** Errors of a server that is away, starts or is busy. */
const passing = new Set(["TimeoutError", "RequestError", "ConnectionError", "NoRespondersError"]);

/** Returns true for an error that says nothing against trying again. */
function isPassing(error: unknown): boolean {
  const { name, message, status, cause } = error as Error & { status?: number };
  // JetStream answers 503 while it starts.
  if (passing.has(name) || status === 503 || /\b503\b|disconnect|timeout/i.test(message))
    return true;
  return cause !== undefined && isPassing(cause);
}
