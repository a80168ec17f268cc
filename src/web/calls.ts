/**
 * Calls of functions in a worker: each has an answer, may tell of its progress before, and can be aborted. Arguments, progress and
 * answers are what `structuredClone` copies.
 */
import { DeviceError } from "../engine/errors.ts";
import { type Failure, failure, revive } from "../engine/runtime/worker-protocol.ts";

type Message =
  | { readonly kind: "call"; readonly id: number; readonly name: string; readonly given: unknown }
  | { readonly kind: "abort"; readonly id: number };

type Answer = { readonly id: number } & (
  | { readonly kind: "note"; readonly note: unknown }
  | { readonly kind: "done"; readonly result: unknown }
  | Failure
);

/** A function that a worker offers. */
export interface Served<Input = never, Result = unknown, Note = unknown> {
  (given: Input, options: ServedOptions<Note>): Promise<Result>;
}

export interface ServedOptions<Note = unknown> {
  /** Aborted when the caller aborts. */
  readonly signal: AbortSignal;
  /** Tells the caller of progress. */
  readonly note: (note: Note) => void;
}

/** The functions of a worker by name. */
export type Services = Readonly<Record<string, Served>>;

/** One side of a channel: a `Worker`, or the global scope inside of one. */
export interface Channel {
  postMessage(message: unknown, transfer: ArrayBuffer[]): void;
  addEventListener(type: "message", listener: (event: { readonly data: unknown }) => void): void;
}

/** Answers calls with these functions. */
export function serve(channel: Channel, services: Services): void {
  const running = new Map<number, AbortController>();
  channel.addEventListener("message", ({ data }) => {
    const message = data as Message;
    const { id } = message;
    if (message.kind === "abort") {
      running.get(id)?.abort();
      return;
    }
    const stopping = new AbortController();
    running.set(id, stopping);
    const post = (answer: Answer) => channel.postMessage(answer, []);
    const note = (each: unknown) => post({ id, kind: "note", note: each });
    services[message.name]!(message.given as never, { signal: stopping.signal, note })
      .then(
        (result) => post({ id, kind: "done", result }),
        (error: unknown) => post({ id, ...failure(error) }),
      )
      .finally(() => running.delete(id));
  });
}

export interface CallOptions<Note> {
  readonly signal?: AbortSignal | undefined;
  readonly onNote?: ((note: Note) => void) | undefined;
}

type Given<F> = F extends Served<infer G, infer _R, infer _N> ? G : never;
type Noted<F> = F extends (given: never, options: ServedOptions<infer N>) => unknown ? N : never;
type Returned<F> = F extends (...given: never[]) => Promise<infer R> ? R : never;

/** Calls functions of a worker. */
export interface Caller<S> {
  /** @throws the error of the function; the signal's reason if it was aborted; DeviceError if the worker's script cannot run */
  call<N extends keyof S & string>(
    name: N,
    given: Given<S[N]>,
    options?: CallOptions<Noted<S[N]>>,
  ): Promise<Returned<S[N]>>;
  /** Ends the worker; calls that run fail. */
  close(): void;
}

interface Waiting {
  readonly onNote: (note: never) => void;
  readonly resolve: (result: never) => void;
  readonly reject: (error: unknown) => void;
}

/** @param worker that calls `serve` with functions of the type `S` */
export function callerOf<S>(worker: Worker): Caller<S> {
  const waiting = new Map<number, Waiting>();
  let next = 0;
  const end = (message: string) => {
    for (const { reject } of waiting.values()) reject(new DeviceError(message));
    waiting.clear();
  };
  worker.addEventListener("message", ({ data }: MessageEvent<Answer>) => {
    const { id } = data;
    const call = waiting.get(id);
    if (data.kind === "note") {
      call?.onNote(data.note as never);
      return;
    }
    waiting.delete(id);
    if (data.kind === "done") call?.resolve(data.result as never);
    else call?.reject(revive(data));
  });
  worker.addEventListener("error", ({ message }) =>
    end(
      `The worker failed${message ? `: ${message}` : " to load its script; its server has to serve the package's files as they stand (docs/apps.md)"}; load the page again.`,
    ),
  );
  return {
    call: (name, given, { signal, onNote = () => {} } = {}) =>
      new Promise((resolve, reject) => {
        signal?.throwIfAborted();
        const id = next++;
        const abort = () => worker.postMessage({ kind: "abort", id } satisfies Message, []);
        const settled = () => signal?.removeEventListener("abort", abort);
        signal?.addEventListener("abort", abort, { once: true });
        waiting.set(id, {
          onNote,
          resolve: (result) => {
            settled();
            resolve(result);
          },
          reject: (error) => {
            settled();
            reject(signal?.aborted ? (signal.reason as Error) : (error as Error));
          },
        });
        worker.postMessage({ kind: "call", id, name, given } satisfies Message, []);
      }),
    close() {
      worker.terminate();
      end("The worker was closed before it had answered; open another one.");
    },
  };
}
