/** What the worker of `patchwise/web` does for a page: it opens models, draws, and trains. */
import { DeviceError, UsageError } from "../engine/errors.ts";
import { webBackend, type WebBackendOptions } from "../engine/runtime/ort-web.ts";
import {
  type DownloadProgress,
  type DrawnPicture,
  type GenerateRequest,
  type GenerateSettings,
  type GenerateStep,
  type InspectOptions,
  modelCache,
  openPipelineUrl,
  type Pipeline,
  type StepInspection,
} from "../pipelines/index.ts";
import type { Picture } from "../pictures/picture.ts";
import type { TrainingCheckpoint, TrainingEvent } from "../training/loop.ts";
import {
  trainModel,
  type TrainModelOptions,
  type TrainingPictures,
  type TrainModelResult,
} from "../training/train-model.ts";
import type { Served } from "./calls.ts";

/** The settings of a backend inside the worker. */
export type WorkerBackend = Pick<WebBackendOptions, "device" | "threads" | "wasmPaths">;

export interface OpenGiven {
  /** Absolute address of the model's folder. */
  readonly address: string;
  readonly backend: WorkerBackend;
  /** True if the files are kept in the Cache API. */
  readonly cached: boolean;
}

/** A request as it is sent. */
export type SentRequest = Omit<GenerateRequest, "signal" | "onProgress">;

interface OfPipeline {
  readonly pipeline: number;
}
interface OfDrawing {
  readonly drawing: number;
}
interface OfStep extends OfDrawing {
  readonly step: number;
}

export interface SentStep {
  readonly step: number;
  readonly steps: number;
}

type Next =
  | { readonly done: false; readonly value: SentStep }
  | { readonly done: true; readonly value: readonly DrawnPicture[] };

/** Options of a training that can be sent. */
export type SentTraining = SentPictures &
  Omit<TrainModelOptions, NotSent | keyof SentPictures> & {
    readonly backend: WorkerBackend;
    /** The settings of the optimizer; AdamW with a learning rate of 1e-3 by default. */
    readonly optimizer?: Exclude<TrainModelOptions["optimizer"], { readonly init: unknown }>;
    /** Steps between checkpoints that are told; none unless given. */
    readonly checkpointSteps?: number | undefined;
  };

type SentPictures = Extract<TrainingPictures, { readonly pictures: unknown }>;

/** Options with functions in them, which no message holds. */
type NotSent =
  | "backend"
  | "onEvent"
  | "signal"
  | "checkpoint"
  | "reduce"
  | "words"
  | "optimizer"
  | "data"
  | "shape";

export type TrainingNote =
  | { readonly event: TrainingEvent }
  | { readonly checkpoint: TrainingCheckpoint };

export interface WebServices extends Record<string, Served> {
  readonly open: Served<
    OpenGiven,
    { readonly pipeline: number; readonly name: string },
    DownloadProgress
  >;
  readonly settings: Served<OfPipeline & { readonly request: SentRequest }, GenerateSettings>;
  readonly begin: Served<OfPipeline & { readonly request: SentRequest }, OfDrawing>;
  readonly next: Served<OfDrawing, Next>;
  readonly preview: Served<OfStep, readonly Picture[]>;
  readonly inspect: Served<OfStep & { readonly options: InspectOptions }, StepInspection>;
  readonly end: Served<OfDrawing, void>;
  readonly dispose: Served<OfPipeline, void>;
  readonly train: Served<SentTraining, Omit<TrainModelResult, "tokenizer">, TrainingNote>;
}

/** Drawings whose steps can still be looked into. */
const KEPT_DRAWINGS = 24;

interface Drawing extends OfPipeline {
  readonly generation: AsyncGenerator<GenerateStep, readonly DrawnPicture[]>;
  readonly stopping: AbortController;
  readonly steps: GenerateStep[];
}

/** Functions for `serve`. */
export function webServices(): WebServices {
  const pipelines = new Map<number, Pipeline>();
  /** Oldest first. */
  const drawings = new Map<number, Drawing>();
  let count = 0;
  const pipelineOf = ({ pipeline }: OfPipeline): Pipeline => {
    const found = pipelines.get(pipeline);
    if (found) return found;
    throw new UsageError("The pipeline was disposed, so it draws no more; open it again.");
  };
  const stepOf = ({ drawing, step }: OfStep): GenerateStep => {
    const found = drawings.get(drawing)?.steps[step - 1];
    if (found) return found;
    throw new UsageError(
      `Step ${step} is no longer kept: only those of the last ${KEPT_DRAWINGS} drawings are; draw it again.`,
    );
  };
  return {
    async open({ address, backend, cached }, { note, signal }) {
      const pipeline = await openPipelineUrl(address, {
        backend: webBackend(backend),
        ...(cached && { fetch: modelCache().fetch }),
        onProgress: note,
        signal,
      });
      pipelines.set(++count, pipeline);
      return { pipeline: count, name: pipeline.name };
    },
    settings: async ({ request, ...of }) => pipelineOf(of).settings(request),
    async begin({ request, pipeline }) {
      const stopping = new AbortController();
      const { signal } = stopping;
      const generation = pipelineOf({ pipeline }).generate({ ...request, signal });
      drawings.set(++count, { pipeline, generation, stopping, steps: [] });
      for (const old of [...drawings.keys()].slice(0, -KEPT_DRAWINGS)) drawings.delete(old);
      return { drawing: count };
    },
    async next({ drawing }, { signal }) {
      const { generation, stopping, steps } = drawings.get(drawing)!;
      signal.addEventListener("abort", () => stopping.abort(), { once: true });
      const next = await generation.next();
      if (next.done) return { done: true, value: next.value };
      steps.push(next.value);
      const { step, steps: all } = next.value;
      return { done: false, value: { step, steps: all } };
    },
    preview: (of) => stepOf(of).preview(),
    inspect: ({ options, ...of }) => stepOf(of).inspect(options),
    async end({ drawing }) {
      const found = drawings.get(drawing);
      found?.stopping.abort();
      await found?.generation.return([]);
    },
    async dispose({ pipeline }) {
      for (const [id, each] of drawings) if (each.pipeline === pipeline) drawings.delete(id);
      await pipelineOf({ pipeline }).dispose();
      pipelines.delete(pipeline);
    },
    async train({ backend, checkpointSteps, ...options }, { note, signal }) {
      const { tokenizer: _, ...result } = await trainModel({
        ...(options as unknown as TrainModelOptions),
        backend: webBackend(backend),
        signal,
        onEvent: (event) => note({ event }),
        ...(checkpointSteps !== undefined && {
          checkpoint: {
            steps: checkpointSteps,
            save: async (checkpoint) => note({ checkpoint }),
          },
        }),
      });
      return result;
    },
  };
}

/** @throws DeviceError outside a worker */
export function requireWorkers(): void {
  if (typeof Worker !== "undefined") return;
  throw new DeviceError(
    "There are no Web Workers here; in Node, use openPipeline of patchwise/pipelines/node with worker: true.",
  );
}
