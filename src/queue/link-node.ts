/** Whether a connection to NATS is there, and calls that are repeated until it is. */
import { setTimeout } from "node:timers/promises";
import type { NatsConnection } from "@nats-io/transport-node";
import { PatchwiseError } from "../engine/errors.ts";
import { untilAborted } from "./until-aborted-node.ts";

/** Milliseconds between two attempts. */
export const PAUSE = 500;

/** The answer to a call that does not wait for a server that is away. */
export class QueueAwayError extends PatchwiseError {
  override readonly name = "QueueAwayError";

  constructor(url: string, options?: ErrorOptions) {
    super(`The queue at ${url} cannot be reached now; try again in a few seconds.`, options);
  }
}

/** A connection as those see it who wait for it. */
export interface Link {
  /**
   * Repeats a call for as long as the server is away or does not answer.
   *
   * @throws what the call throws for any other reason, and the reason of `signal`
   */
  readonly persist: <T>(call: () => Promise<T>, signal?: AbortSignal) => Promise<T>;
  /**
   * Makes a call once. If the connection is lost meanwhile, it may have had its effect.
   *
   * @throws QueueAwayError if the server is away or does not answer, and what the call throws for any other reason
   */
  readonly attempt: <T>(call: () => Promise<T>) => Promise<T>;
  /** Returns true if the server is there. */
  readonly isUp: () => boolean;
}

/**
 * Follows a connection until it is closed.
 *
 * @param url the server's address, for messages
 * @param told called when the connection is lost and when it is back
 */
export function linkOf(
  connection: NatsConnection,
  url: string,
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
    untilAborted(
      new Promise<T | void>((resolve, reject) => {
        const change = () => resolve();
        waiting.add(change);
        void call.then(resolve, reject).finally(() => waiting.delete(change));
      }),
      signal,
    );

  return {
    isUp: () => isUp,
    async attempt<T>(call: () => Promise<T>) {
      if (!isUp) throw new QueueAwayError(url);
      const answer = call().then(
        (value) => ({ value }),
        (cause: unknown) => {
          throw isPassing(cause) ? new QueueAwayError(url, { cause }) : cause;
        },
      );
      const ended = await unlessChanged(answer, undefined);
      if (ended) return ended.value;
      throw new QueueAwayError(url);
    },
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

/** Returns true for the error of a stream that discards new messages since it has as many as it takes. */
export function isFull(error: unknown): boolean {
  return (error as { code?: unknown }).code === 10_077;
}

/** Returns true for the error of a message or value that had to follow another one than the last. */
export function isOutdated(error: unknown): boolean {
  return (error as { code?: unknown }).code === 10_071;
}

/** Returns true for an error that says nothing against trying again. */
export function isPassing(error: unknown): boolean {
  const { name, message, status, cause } = error as Error & { status?: number };
  // A stream that takes no more says so with 503, too.
  if (isFull(error)) return false;
  // JetStream answers 503 while it starts, and tells those who wait for messages that it ends, or that another server of its cluster leads.
  if (
    passing.has(name) ||
    status === 503 ||
    /\b503\b|disconnect|timeout|heartbeats missed|server shutdown|leadership change/i.test(message)
  )
    return true;
  return cause !== undefined && isPassing(cause);
}
