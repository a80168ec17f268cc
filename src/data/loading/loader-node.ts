/**
 * Loads batches for training in a worker thread. The training loop spends seconds inside native calls, so the
 * worker decodes ahead of it.
 */
import { Worker } from "node:worker_threads";
import { PatchwiseError } from "../../engine/errors.ts";
import { moduleFile } from "../../engine/package-node.ts";
import { type Failure, revive } from "../../engine/runtime/worker-protocol.ts";
import { type Batch, EXAMPLE_BYTES, type Loader, type Rows, type Skipped } from "./batch-reader.ts";
import { pictureLayout } from "./batches.ts";
import type { DataConfig } from "../config.ts";
import type { FramesShape } from "../../pictures/picture.ts";
import { type LatentCache, latentLayout } from "../latents/latents.ts";

export interface LoaderOptions {
  /** The config of the data set. */
  readonly data: DataConfig;
  /** The shape to which pictures are converted. */
  readonly shape: FramesShape;
  /** Pictures per batch. */
  readonly batch: number;
  /** The seed of order and mirroring, a whole number from 0. */
  readonly seed: number;
  /** The only rows of each batch to read; all unless given. */
  readonly rows?: Rows | undefined;
  /** Index of the first batch. */
  readonly from: number;
  /** Loads these latents instead of pictures. */
  readonly latents?: LatentCache | undefined;
}

/** The data that the worker receives at its start. */
export interface LoaderSettings extends LoaderOptions {
  /** The number of batches to prefetch. */
  readonly ahead: number;
  readonly cache: number;
}

/** A message to the worker: one more batch may be made, or stop. */
export type ToLoader = "taken" | "close";

export type FromLoader =
  | {
      readonly kind: "open";
      readonly info: Loader["info"];
      readonly survey: Loader["survey"];
      readonly memory: number;
    }
  | { readonly kind: "batch"; readonly batch: Batch; readonly skipped: readonly Skipped[] }
  | Failure;

type Ready = Extract<FromLoader, { kind: "batch" }>;

/** Bytes of the loader's thread, with the libraries that decode pictures. */
export const loaderThreadBytes = 128 * 2 ** 20;

const CACHE_BYTES = 2 ** 30;
const AHEAD_BYTES = 2 ** 28;
const MAX_AHEAD = 16;

/**
 * Opens a data set in a worker thread, which starts decoding at once.
 *
 * @throws UsageError or FormatError as `openData` does
 */
export async function openLoader(options: LoaderOptions): Promise<Loader> {
  const { shape, batch, latents } = options;
  const { bytes } = latents ? latentLayout(latents) : pictureLayout(shape);
  const exampleBytes = latents?.mirrored ? 2 * bytes : bytes;
  const batchBytes = batch * bytes;
  const ahead = Math.min(MAX_AHEAD, Math.max(2, Math.floor(AHEAD_BYTES / batchBytes)));
  const settings: LoaderSettings = {
    ...options,
    ahead,
    cache: CACHE_BYTES,
  };
  // If only the worker had loaded this native library, it would be unloaded at the worker's end while its
  // threads still run.
  await import("sharp");
  const thread = startThread(settings);
  const opened = await thread.receive();
  if (opened.kind !== "open")
    throw new PatchwiseError("The loader's thread did not open the data.");
  const skipped: Skipped[] = [];
  const cached = Math.min(CACHE_BYTES, opened.info.count * (exampleBytes + EXAMPLE_BYTES));
  return {
    info: opened.info,
    survey: opened.survey,
    memory: cached + (ahead + 1) * batchBytes + opened.memory,
    async next() {
      const ready = (await thread.receive()) as Ready;
      thread.send("taken");
      skipped.push(...ready.skipped);
      return ready.batch;
    },
    skipped: () => [...skipped],
    close: () => thread.close(),
  };
}

interface Thread {
  /** Waits for the next message of the worker, which answers requests in order. */
  receive(): Promise<Exclude<FromLoader, Failure>>;
  send(message: ToLoader): void;
  close(): Promise<void>;
}

function startThread(settings: LoaderSettings): Thread {
  const worker = new Worker(moduleFile("data/loading/loader-worker-node"), {
    workerData: settings,
  });
  const arrived: Exclude<FromLoader, Failure>[] = [];
  const waiting: {
    readonly resolve: (message: Exclude<FromLoader, Failure>) => void;
    readonly reject: (error: Error) => void;
  }[] = [];
  let ended: Error | undefined;
  let closing = false;

  // A prefetching thread must not keep the process alive, but one that is awaited must.
  const hold = () => worker[closing || waiting.length > 0 ? "ref" : "unref"]();
  const end = (error: Error) => {
    ended ??= error;
    for (const { reject } of waiting.splice(0)) reject(ended);
  };
  const exited = new Promise<void>((resolve) => worker.once("exit", () => resolve()));
  worker.on("message", (message: FromLoader) => {
    if (message.kind === "failed") end(revive(message));
    else {
      const next = waiting.shift();
      if (next) next.resolve(message);
      else arrived.push(message);
    }
    hold();
  });
  worker.once("error", (cause) =>
    end(new PatchwiseError(`The loader's thread failed: ${cause.message}`, { cause })),
  );
  worker.once("exit", () => end(new PatchwiseError("The loader's thread has ended.")));
  return {
    receive: () =>
      new Promise((resolve, reject) => {
        const message = arrived.shift();
        if (message) resolve(message);
        else if (ended) reject(ended);
        else {
          waiting.push({ resolve, reject });
          hold();
        }
      }),
    send: (message) => worker.postMessage(message, []),
    async close() {
      end(new PatchwiseError("The loader is closed; open another one."));
      arrived.length = 0;
      closing = true;
      hold();
      worker.postMessage("close" satisfies ToLoader, []);
      await exited;
    },
  };
}
