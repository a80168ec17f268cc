/** Pipelines and trainings in a Web Worker, with the interface that they have without one. */
import { UsageError } from "../engine/errors.ts";
import { kinds, type OptionKinds, requireKind, requireOptions } from "../engine/options.ts";
import type { WebDevice } from "../engine/runtime/ort-session-web.ts";
import type { DownloadProgress } from "../pipelines/index.ts";
import type { TrainingCheckpoint, TrainingEvent } from "../training/loop.ts";
import type { TrainModelResult } from "../training/train-model.ts";
import { type Caller, callerOf } from "./calls.ts";
import {
  requireWorkers,
  type SentTraining,
  type WebServices,
  type WorkerBackend,
} from "./services.ts";
import { workerPipeline, type WorkerPipeline } from "./worker-pipeline.ts";

export interface WorkerOptions {
  /** "wasm" by default. */
  readonly device?: WebDevice | undefined;
  /** Number of threads of the CPU; by default the cores on a cross-origin isolated page, and 1 elsewhere. */
  readonly threads?: number | undefined;
  /** Address of the folder with onnxruntime-web's `ort-wasm-*` files; that of the bundle by default. */
  readonly wasmPaths?: string | URL | undefined;
  /** Starts the worker from `patchwise/web/worker`, where a bundler does not find its script. */
  readonly worker?: (() => Worker) | undefined;
}

export interface OpenWorkerOptions extends WorkerOptions {
  /** True if the model's files are kept in the Cache API, so that they are downloaded once; true by default where there is one. */
  readonly cache?: boolean | undefined;
  /** Called while the files of the model are downloaded. */
  readonly onProgress?: ((progress: DownloadProgress) => void) | undefined;
  /** Ends the opening with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

const workerKinds: OptionKinds<OpenWorkerOptions> = {
  device: kinds.text,
  threads: kinds.count,
  wasmPaths: kinds.address,
  worker: kinds.callback,
  cache: kinds.flag,
  onProgress: kinds.callback,
  signal: kinds.abortSignal,
};

/**
 * Opens a model in a worker, so that neither reading its weights nor drawing keeps the page from answering.
 *
 * @param model the address of its folder, as for `openPipelineUrl`
 * @example
 * const pipeline = await openInWorker("/models/emoji/", { device: "webgpu" });
 * const [picture] = await finished(pipeline.generate({ prompt: "a red heart", seed: 7 }));
 * @throws UsageError for an option that does not exist; PatchwiseError if a file cannot be loaded; DeviceError if there is no such device
 */
export async function openInWorker(
  model: string | URL,
  options: OpenWorkerOptions = {},
): Promise<WorkerPipeline> {
  requireOptions<OpenWorkerOptions>("openInWorker", options, workerKinds);
  const { cache = typeof caches !== "undefined", onProgress, signal } = options;
  const caller = startWorker(options);
  try {
    const given = {
      address: new URL(model, location.href).href,
      backend: backendOf(options),
      cached: cache,
    };
    const { pipeline, name } = await caller.call("open", given, { onNote: onProgress, signal });
    return workerPipeline(caller, pipeline, name);
  } catch (error) {
    caller.close();
    throw error;
  }
}

/** Options of `trainInWorker`: those of `trainModel` that can be sent to a worker. */
export type TrainInWorkerOptions = Pick<SentTraining, "pictures" | "classes"> &
  Omit<SentTraining, "backend" | "checkpointSteps" | "pictures" | "classes"> &
  WorkerOptions & {
    /** Called for each event of the training: steps with their loss, validations, checkpoints and warnings. */
    readonly onEvent?: ((event: TrainingEvent) => void) | undefined;
    /** Is given a checkpoint every so many steps. */
    readonly checkpoint?:
      | {
          /** Steps between checkpoints, a whole number from 1. */
          readonly steps: number;
          /** Keeps a checkpoint. */
          readonly save: (checkpoint: TrainingCheckpoint) => void;
        }
      | undefined;
    /** Ends the training after the current step; the result has what was trained so far. */
    readonly signal?: AbortSignal | undefined;
  };

/**
 * Trains on pictures in memory as `trainModel` does, in a worker.
 *
 * @example const model = await trainInWorker({ pictures, steps: 500, batch: 16, onEvent });
 * @throws UsageError as `trainModel` does
 */
export async function trainInWorker(
  given: TrainInWorkerOptions,
): Promise<Omit<TrainModelResult, "tokenizer">> {
  requireKind("trainInWorker: the options", given, kinds.object);
  const { onEvent, checkpoint, signal, device, threads, wasmPaths, worker, ...options } = given;
  const place = { device, threads, wasmPaths, worker };
  const caller = startWorker(place);
  try {
    const sent = {
      ...options,
      backend: backendOf(place),
      checkpointSteps: checkpoint?.steps,
    } as SentTraining;
    return await caller.call("train", sent, {
      // Aborting ends the training after the current step, which is no error.
      ...(signal && { signal: unthrowing(signal) }),
      onNote: (note) =>
        "event" in note ? onEvent?.(note.event) : checkpoint?.save(note.checkpoint),
    });
  } finally {
    caller.close();
  }
}

/** A signal that aborts when another does, unless that was aborted from the start. */
function unthrowing(signal: AbortSignal): AbortSignal {
  if (!signal.aborted) return signal;
  throw new UsageError("The signal was aborted before the training began; give one that is not.");
}

function startWorker({ worker }: WorkerOptions): Caller<WebServices> {
  requireWorkers();
  // Bundlers recognize workers by this form, with the address written out.
  const start =
    worker ?? (() => new Worker(new URL("./worker.js", import.meta.url), { type: "module" }));
  return callerOf<WebServices>(start());
}

function backendOf({ device = "wasm", threads, wasmPaths }: WorkerOptions): WorkerBackend {
  return {
    device,
    ...(threads !== undefined && { threads }),
    ...(wasmPaths !== undefined && { wasmPaths: new URL(wasmPaths, location.href).href }),
  };
}
