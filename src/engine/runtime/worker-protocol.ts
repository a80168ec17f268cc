/**
 * An executor on the other side of a message channel: the protocol between a program and the worker that runs it, which is the same
 * for processes in Node and Web Workers in the browser.
 */
import { DeviceError, FormatError, PatchwiseError, ShapeError, UsageError } from "../errors.ts";
import type { NdArray } from "../arrays/ndarray.ts";
import type { Executor, OpenExecutor, Plan } from "./executor.ts";

type Arrays = Readonly<Record<string, NdArray>>;

export type Request =
  | { readonly kind: "open"; readonly plan: Plan }
  | { readonly kind: "run"; readonly inputs: Arrays }
  | { readonly kind: "readState" }
  | { readonly kind: "writeState"; readonly values: Arrays }
  | { readonly kind: "dispose" };

export type Response = { readonly kind: "done"; readonly arrays: Arrays } | Failure;

export interface Failure {
  readonly kind: "failed";
  readonly name: string;
  readonly message: string;
}

/** One side of a channel. The other side answers each request once, in order. */
export interface Port<Out, In> {
  post(message: Out, transfer: readonly ArrayBuffer[]): void;
  /** Calls back for every message until the channel is closed. */
  listen(onMessage: (message: In) => void): void;
}

/** Answers requests with an executor in this thread. */
export function serveExecutor(port: Port<Response, Request>, open: OpenExecutor): void {
  let executor: Executor | undefined;
  const answer = async (request: Request): Promise<Arrays> => {
    if (request.kind === "open") {
      executor = await open(request.plan);
      return {};
    }
    if (!executor) throw new PatchwiseError("A worker was used before its program was opened.");
    if (request.kind === "run") return executor.run(request.inputs);
    if (request.kind === "readState") return executor.readState();
    if (request.kind === "writeState") await executor.writeState(request.values);
    else await executor.dispose();
    return {};
  };
  port.listen((request) => {
    answer(request).then(
      (arrays) => port.post({ kind: "done", arrays }, buffersOf(arrays)),
      (error: unknown) => port.post(failure(error), []),
    );
  });
}

/** A worker and its channel. */
export interface Remote {
  readonly port: Port<Request, Response>;
  /** Ends the worker immediately. */
  readonly terminate: () => Promise<void>;
  /** Rejects if the worker ends without being asked to. */
  readonly died: Promise<never>;
}

/**
 * Opens a plan in a worker. Aborting a run ends the worker, and the next run starts another. A program with state cannot continue,
 * because its state is lost.
 */
export async function openRemote(start: () => Remote, plan: Plan): Promise<Executor> {
  let connection: Connection | undefined = await connect(start, plan);
  /** Returns the worker, or a new one if an abort has ended it. */
  const connected = async (): Promise<Connection> => {
    if (!connection && plan.state.length > 0) {
      throw new PatchwiseError(
        "An aborted run ended the worker that held this program's state; compile the graph again.",
      );
    }
    connection ??= await connect(start, plan);
    return connection;
  };
  const abandoned = (signal: AbortSignal, { terminate }: Connection) => {
    let onAbort = () => {};
    const rejection = new Promise<never>((_, reject) => {
      onAbort = () => {
        connection = undefined;
        terminate().then(() => reject(signal.reason as Error), reject);
      };
      signal.addEventListener("abort", onAbort, { once: true });
    });
    return { rejection, forget: () => signal.removeEventListener("abort", onAbort) };
  };
  return {
    async run(inputs, signal) {
      const remote = await connected();
      signal?.throwIfAborted();
      const answer = remote.ask({ kind: "run", inputs });
      if (!signal) return answer;
      const { rejection, forget } = abandoned(signal, remote);
      try {
        return await Promise.race([answer, rejection]);
      } finally {
        forget();
      }
    },
    readState: async () => (await connected()).ask({ kind: "readState" }),
    async writeState(values) {
      await (await connected()).ask({ kind: "writeState", values });
    },
    async dispose() {
      await connection?.ask({ kind: "dispose" });
      await connection?.terminate();
      connection = undefined;
    },
  };
}

interface Connection {
  readonly ask: (request: Request) => Promise<Record<string, NdArray>>;
  readonly terminate: () => Promise<void>;
}

async function connect(start: () => Remote, plan: Plan): Promise<Connection> {
  const { port, terminate, died } = start();
  died.catch(() => undefined);
  const waiting: ((response: Response) => void)[] = [];
  port.listen((response) => waiting.shift()?.(response));
  const ask = async (request: Request): Promise<Record<string, NdArray>> => {
    const answered = new Promise<Response>((resolve) => waiting.push(resolve));
    port.post(request, []);
    const response = await Promise.race([answered, died]);
    if (response.kind === "failed") throw revive(response);
    return response.arrays;
  };
  try {
    await ask({ kind: "open", plan });
  } catch (error) {
    await terminate();
    throw error;
  }
  return { ask, terminate };
}

/** Converts an error to a message that can be sent. */
export function failure(error: unknown): Failure {
  const { name, message } = error instanceof Error ? error : new Error(String(error));
  return { kind: "failed", name, message };
}

/** Restores an error with the class that was thrown on the other side. */
export function revive({ name, message }: Failure): Error {
  const errors = [PatchwiseError, UsageError, ShapeError, FormatError, DeviceError];
  const known = errors.find((type) => type.name === name);
  return known ? new known(message) : Object.assign(new Error(message), { name });
}

/** Returns the buffers that can be transferred instead of copied: those that are used by one array only. */
function buffersOf(arrays: Arrays): ArrayBuffer[] {
  const buffers = Object.values(arrays).map(({ data }) => data.buffer as ArrayBuffer);
  return [...new Set(buffers)];
}
