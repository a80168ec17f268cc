/**
 * The steps of a training, the same for `patchwise train` and `trainModel`, in Node and in a page.
 *
 * A step depends on the settings and its number alone: random keys are forked by the number, and batches are found by it.
 * So an interrupted training that resumes ends in the same weights, bit for bit, as one that ran through.
 */
import type { Survey } from "../data/dataset.ts";
import type { Batch, Loader, Skipped } from "../data/loading/batch-reader.ts";
import type { LatentDraw, LatentEvent } from "../data/latents/latents.ts";
import { scalar } from "../engine/arrays/ndarray.ts";
import { type Graph, leafName } from "../engine/graph/graph.ts";
import type { Tensor } from "../engine/graph/tensor.ts";
import { fork, type RandomKey, randomKey } from "../engine/random/random.ts";
import type { Backend, WeightSource } from "../engine/runtime/backend.ts";
import { otherEvents } from "../engine/runtime/other-events.ts";
import type { ImageCodec } from "../models/coders/image-codec.ts";
import type { RunConfig } from "./config/config.ts";
import type { ImageShape } from "../models/default-sizes.ts";
import { closing } from "../weights/sources/closing.ts";
import { besideTraining, type Warning } from "./beside.ts";
import { agreed, type Collective, ownRows, rowsOf } from "./collective/collective.ts";
import { type MeetingTrainer, openTrainer } from "./collective/ranked-trainer.ts";
import { leastMemory, memoryOf, requireMemory } from "./memory.ts";
import { isDue, isSampled, wantsSamples } from "./due.ts";
import { allFinite, notFinite } from "./finite.ts";
import { configuredStep, stepsOf } from "./configured-step.ts";
import type { FixedType } from "./fixed-weights.ts";
import { type Optimizer, rateAt, type Tree } from "./optimizers.ts";
import { type Arrays, emaPrefix } from "./step.ts";
import type { ReduceGradients, TrainerState } from "./trainer.ts";

/** The pictures that a training learns from, as the network sees them. */
export interface DataSource {
  readonly info: Loader["info"];
  readonly survey?: Survey | undefined;
  /** The shape of one example: pixels, latents or codes. */
  readonly image: ImageShape;
  /** Turns latents or codes back into pictures, with the scale and shift in use; undefined for pixels. */
  readonly coder: ImageCodec | undefined;
}

/** The batches of a training. */
export interface Batches {
  readonly loader: Loader;
  /** Batches of other pictures, always in the same order. */
  readonly validation: Loader | undefined;
  /** True if these are pictures that are trained on; false by default. */
  readonly own?: boolean;
  /** Describes the examples of batches that hold latents or codes in place of pixels. */
  readonly latents: LatentDraw | undefined;
  /** Bytes that making batches takes beside the loaders' own memory. */
  readonly overhead: number;
}

/** A length of training. */
export interface Trained {
  readonly steps: number;
  readonly images: number;
}

/** Measurements on pictures that were not trained on. */
export type Measures = { readonly loss: number } & Readonly<Record<string, number>>;

/** The thing that a training learns: all weights of a network, a LoRA beside fixed weights, or an autoencoder. */
export interface Task {
  readonly kind: "model" | "LoRA" | "autoencoder";
  /** A float scalar, computed from what `inputs` returns. */
  readonly loss: Tensor;
  /** The weights to train, by name. */
  readonly trained: Tree;
  /** Draws or reads the first values of the trained weights anew each time, because they are too large to keep. */
  initial(): Promise<Arrays>;
  /** The weights that are not trained. */
  readonly fixed: WeightSource;
  /** How products with them are computed; float32 unless given. */
  readonly fixedType?: FixedType;
  /** Sentences about the data that the training begins with. */
  readonly warnings?: readonly string[];
  /** Prompts or classes that samples show. */
  readonly sampled?: readonly string[] | undefined;
  /** The number of parameters to report. */
  readonly parameters: number;
  /** The multiply-adds of one image's forward pass. */
  multiplyAdds(): number;
  /** The inputs of the loss for a batch. Random choices depend on the key alone. */
  inputs(batch: Batch, key: RandomKey, latents: LatentDraw | undefined): Arrays;
  /** Reads the validation pictures and closes their loader; returns a function that measures averaged weights on them. */
  validator(
    loader: Loader,
    latents: LatentDraw | undefined,
  ): Promise<(averages: Arrays) => Promise<Measures>>;
}

/** An event of a training, for progress displays. */
export type TrainingEvent =
  | LatentEvent
  | {
      readonly kind: "start";
      /** Steps that were done before. */
      readonly step: number;
      readonly what: Task["kind"];
      /** The number of trained parameters. */
      readonly parameters: number;
      readonly pictures: number;
      /** The name of the data set. */
      readonly data: string;
      /** The most bytes that the process will take. */
      readonly memory: number;
    }
  | ({ readonly kind: "step" } & StepReport)
  | {
      readonly kind: "validation";
      readonly step: number;
      readonly loss: number;
      /** True if it was measured on pictures that are trained on, because there are no others. */
      readonly own: boolean;
      /** Further measurements. */
      readonly measures: Readonly<Record<string, number>>;
    }
  | {
      readonly kind: "samples";
      readonly path: string;
      /** Prompts or classes that they show, if the network takes some. */
      readonly of: readonly string[] | undefined;
    }
  | Warning
  | { readonly kind: "note"; readonly message: string }
  | { readonly kind: "checkpoint"; readonly step: number };

export interface StepReport {
  /** The number of the step, from 1. */
  readonly step: number;
  /** Steps of the whole training; undefined if the clock ends it. */
  readonly steps: number | undefined;
  /** The mean loss of the last steps. */
  readonly loss: number;
  /** The loss of this step alone. */
  readonly lossOfStep: number;
  readonly imagesPerSecond: number;
  /** Infinity before the first estimate. */
  readonly secondsLeft: number;
}

export interface TrainingResult {
  readonly steps: number;
  readonly seconds: number;
  /** The mean loss of the last steps. */
  readonly loss: number;
  /** The last validation loss. */
  readonly validation?: number;
  /** False if the training was stopped before its end. */
  readonly finished: boolean;
  /** Pictures that could not be read, and the reasons. */
  readonly skipped: readonly Skipped[];
}

/** The whole state of a training after a number of steps. */
export interface TrainingCheckpoint extends TrainerState {
  /** Seconds of training, without pauses. */
  readonly seconds: number;
}

/** Where a training keeps its results. */
export interface Recorder {
  /** The folder of the training, for error messages. */
  readonly folder?: { readonly path: string; readonly checkpoints: string };
  log?(step: number, values: Readonly<Record<string, number>>): Promise<void>;
  /** Draws samples and returns the path of the picture. */
  samples?(trained: Trained, averages: Arrays): Promise<string>;
  /** Keeps a checkpoint and the model with its averaged weights. */
  checkpoint(checkpoint: TrainingCheckpoint, trained: Trained, averages: Arrays): Promise<void>;
  close(): Promise<void>;
}

export interface LoopOptions {
  readonly backend: Backend;
  readonly config: Pick<RunConfig, "seed" | "training" | "log" | "samples" | "checkpoint"> & {
    /** The steps between validations. */
    readonly validation?: { readonly steps: number } | undefined;
  };
  readonly source: DataSource;
  readonly task: Task;
  readonly batches: Batches;
  /** The checkpoint to resume from. Its state is read once. */
  readonly from: Resumption | undefined;
  /** The bytes that the training may take; unlimited unless given. */
  readonly memory?: number | undefined;
  /** Used in place of the optimizer that the config names. */
  readonly optimizer?: Optimizer | undefined;
  readonly reduce?: ReduceGradients | undefined;
  /** Sentences on the data and on what to expect, for the start. */
  readonly notes?: readonly string[];
  /** True if the recorder draws samples; false by default. */
  readonly draws?: boolean;
  /** Asked after each step: whether samples are to be drawn now, beside those that are due. */
  readonly asksSamples?: (() => boolean) | undefined;
  /** The processes that train together; this one alone unless given. The batches hold this rank's rows. */
  readonly collective?: Collective | undefined;
  /** Called once the step is compiled. */
  openRecorder(): Promise<Recorder>;
  readonly report: (event: TrainingEvent) => void;
  /** Ends the training after the current step; everything done so far is kept. */
  readonly signal?: AbortSignal | undefined;
}

export interface Resumption {
  readonly step: number;
  readonly seconds: number;
  readState(): Promise<Arrays>;
}

/**
 * Compiles the training step and runs it to the end of the training.
 *
 * @throws UsageError when it cannot fit into the memory
 * @throws PatchwiseError when the loss, the gradient or the state is no longer finite; the last checkpoint is kept
 */
export async function trainLoop(options: LoopOptions): Promise<TrainingResult> {
  const { config, source, task, batches, from, report } = options;
  const { training } = config;
  const { collective } = options;
  const rows = collective ? ownRows(collective, training.batch).count : training.batch;
  const least = leastMemory(task.loss, task.trained, rows);
  requireMemory(least, options.memory, task.trained, rows, "at least");
  const step = configuredStep(task, training, options.optimizer);
  const memory = memoryOf(step, batches, rows, options);
  requireMemory(memory, options.memory, task.trained, rows);
  report({
    kind: "start",
    step: from?.step ?? 0,
    what: task.kind,
    parameters: task.parameters,
    pictures: source.info.count,
    data: source.info.name,
    memory,
  });
  for (const message of options.notes ?? []) report({ kind: "note", message });
  for (const message of [...(source.survey?.notes ?? []), ...(task.warnings ?? [])]) {
    report({ kind: "warning", message });
  }
  // Read first: what is wrong with the validation data is said before the step is compiled.
  const validate =
    batches.validation && (await task.validator(batches.validation, batches.latents));
  const trainer = await openTrainer(options, step);
  return closing({ close: () => trainer.dispose() }, async () => {
    const recorder = await options.openRecorder();
    const run = { ...options, trainer, recorder, validate, graph: step.graph };
    return closing(recorder, () => runSteps(run));
  });
}

interface Run extends LoopOptions {
  readonly trainer: MeetingTrainer;
  readonly recorder: Recorder;
  readonly validate: Awaited<ReturnType<Task["validator"]>> | undefined;
  /** The graph of a step. */
  readonly graph: Graph;
}

async function runSteps(run: Run): Promise<TrainingResult> {
  const { config, from, task, trainer, recorder, batches, report, signal, collective } = run;
  const { training, log, samples, validation } = config;
  const started = performance.now() - 1000 * (from?.seconds ?? 0);
  const elapsed = () => (performance.now() - started) / 1000;
  /** What all ranks go by, so that they end after the same step. */
  const now = () =>
    agreed(collective, { seconds: elapsed(), stopped: signal?.aborted === true }, trainer);
  let count = from?.step ?? 0;
  const { last, validate, draw, note, save } = betweenSteps(run, elapsed);
  /** Skipped pictures that were reported. */
  let told = 0;
  const recent: number[] = [];
  const all = stepsOf(training, task);
  let clock = await now();
  const progress = () =>
    all === undefined ? clock.seconds / (60 * training.minutes!) : count / all;
  let shown = progress();
  let due = false;
  for (; progress() < 1 && !clock.stopped; clock = await now()) {
    const rate = rateAt({ ...training, rate: training.optimizer.rate }, count + 1, progress());
    const began = performance.now();
    const inputs = await nextInputs(run, count, rate);
    for (const { reason } of batches.loader.skipped().slice(told)) {
      report({ kind: "warning", message: reason });
      told++;
    }
    const { loss, gradientNorm } = await trainer.step(...inputs);
    count++;
    for (const [what, value] of Object.entries({ loss, gradient: gradientNorm ?? 0 })) {
      if (!Number.isFinite(value)) throw notFinite(what, count, last.saved.step, recorder);
    }
    recent.push(loss);
    if (recent.length > log.steps) recent.shift();
    const seconds = (performance.now() - began) / 1000;
    const imagesPerSecond = (training.batch * training.accumulate) / seconds;
    const done = progress();
    const secondsLeft = done > 0 ? (elapsed() * (1 - done)) / done : Infinity;
    const measured = { loss: mean(recent), imagesPerSecond };
    report({ kind: "step", step: count, steps: all, secondsLeft, lossOfStep: loss, ...measured });
    if (count % log.steps === 0) {
      const norm = gradientNorm !== undefined && { gradientNorm };
      await note(count, { ...measured, rate, ...norm });
    }
    if (count % (validation?.steps ?? Infinity) === 0) await validate(count);
    const isAsked = run.asksSamples?.() ?? false;
    if (done < 1 && (isAsked || isSampled(samples, count, shown, done))) await draw(count);
    shown = done;
    due ||= isDue(config.checkpoint, count, elapsed() - last.saved.seconds);
    if (due && count % (training.localSteps?.steps ?? 1) === 0) {
      await save(count);
      due = false;
    }
    // Signals and messages arrive only between steps, since a run occupies the thread.
    await otherEvents();
  }
  await trainer.meet?.();
  // The others have nothing to write, and hand over their parts of the state meanwhile.
  if (collective && collective.rank > 0) await now();
  if (progress() >= 1 && last.validated?.step !== count) await validate(count);
  if (progress() >= 1 && last.drawn !== count && wantsSamples(samples)) await draw(count);
  if (last.saved.step !== count || count === 0) await save(count);
  if (collective?.rank === 0) await now();
  return {
    steps: count,
    seconds: elapsed(),
    loss: mean(recent),
    ...(last.validated && { validation: last.validated.loss }),
    finished: progress() >= 1,
    skipped: batches.loader.skipped(),
  };
}

interface LastTimes {
  saved: { readonly step: number; readonly seconds: number };
  validated?: { readonly step: number; readonly loss: number };
  /** The step after which samples were drawn. */
  drawn: number;
}

/** Validation, samples, metrics and checkpoints after a step, and when each was last. */
function betweenSteps(run: Run, elapsed: () => number) {
  const { from, task, trainer, recorder, batches, report, collective } = run;
  const writes = collective === undefined || collective.rank === 0;
  const begun = from?.step ?? 0;
  const last: LastTimes = { saved: { step: begun, seconds: elapsed() }, drawn: begun };
  const aside = besideTraining(report);
  return {
    last,
    validate: aside("The validation", async (step: number) => {
      if (!run.validate) return;
      const { loss, ...measures } = await run.validate(averagesIn(await trainer.readState()));
      await recorder.log?.(step, { validation: loss, ...measures });
      report({ kind: "validation", step, loss, own: batches.own ?? false, measures });
      last.validated = { step, loss };
    }),
    draw: aside("Drawing samples", async (step: number) => {
      if (!recorder.samples) return;
      const averages = averagesIn(await trainer.readState());
      const path = await recorder.samples(trainedBy(run, step), averages);
      report({ kind: "samples", path, of: task.sampled });
      last.drawn = step;
    }),
    note: aside("Writing metrics", async (step: number, values: Readonly<Record<string, number>>) =>
      recorder.log?.(step, values),
    ),
    save: async (step: number) => {
      if (writes) await saveCheckpoint(run, step, elapsed(), last.saved.step);
      last.saved = { step, seconds: elapsed() };
    },
  };
}

/** The inputs of a step, numbered from 0. Each of its batches has a key of its own. */
async function nextInputs(run: Run, step: number, rate: number): Promise<Arrays[]> {
  const { config, batches, task, collective, graph } = run;
  const takesRate = graph.inputs.some((leaf) => leafName(leaf) === "rate");
  const key = fork(randomKey(config.seed), "steps");
  const inputs: Arrays[] = [];
  for (let i = 0; i < config.training.accumulate; i++) {
    const batch = await batches.loader.next();
    const drawn = fork(key, step * config.training.accumulate + i);
    const whole = task.inputs(batch, drawn, batches.latents);
    const own = collective ? rowsOf(whole, collective, graph) : whole;
    inputs.push(takesRate ? { ...own, rate: scalar(rate) } : own);
  }
  return inputs;
}

async function saveCheckpoint(run: Run, step: number, seconds: number, saved: number) {
  const { trainer, recorder, report } = run;
  const state = await trainer.readState();
  // The loss of a step was computed with the weights before it.
  const broken = Object.keys(state).find((name) => !allFinite(state[name]!));
  if (broken !== undefined) throw notFinite(`state ${broken}`, step, saved, recorder);
  await recorder.checkpoint({ step, seconds, state }, trainedBy(run, step), averagesIn(state));
  report({ kind: "checkpoint", step });
}

function trainedBy({ config: { training } }: Run, steps: number): Trained {
  return { steps, images: steps * training.batch * training.accumulate };
}

/** The moving averages of the weights, under the names of the weights. */
export function averagesIn(state: Arrays): Arrays {
  const names = Object.keys(state).filter((name) => name.startsWith(emaPrefix));
  return Object.fromEntries(names.map((name) => [name.slice(emaPrefix.length), state[name]!]));
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
