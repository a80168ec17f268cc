/**
 * From a config to a trained model, top to bottom: data, network, graph, steps, checkpoints.
 *
 * What a step sees depends on the config and its number alone, so that a training which was interrupted ends in the same
 * weights, bit for bit, as one which was not.
 */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { setImmediate } from "node:timers/promises";
import { PatchwiseError } from "../../engine/errors.ts";
import { type NdArray, scalar } from "../../engine/arrays/ndarray.ts";
import { fork, randomKey } from "../../engine/random/random.ts";
import { estimateMemory } from "../../engine/passes/cost.ts";
import type { LatentEvent } from "../../data/latents/cache-node.ts";
import { writePicture } from "../../pictures/file-node.ts";
import { autoencoderPlan } from "../tasks/autoencoder-node.ts";
import { openRunFolder, type RunFolder, writeCheckpoint } from "./run-folder-node.ts";
import type {
  AutoencoderTrainingConfig,
  LoraTrainingConfig,
  RunConfig,
  TrainingConfig,
} from "../config/config.ts";
import { configuredOptimizer, rateAt } from "../optimizers.ts";
import { type Batches, type Feed, pictureFeed } from "../feeds/feed-node.ts";
import { latentFeed } from "../feeds/latent-feed-node.ts";
import { loraPlan } from "../tasks/lora-node.ts";
import { type Metrics, openMetrics } from "./metrics-node.ts";
import type { Arrays, Plan, Subject, Surroundings, Trained } from "../tasks/plan-node.ts";
import {
  createTrainer,
  emaPrefix,
  type Trainer,
  type TrainingStep,
  trainingStep,
} from "../step.ts";
import { wholeModelPlan } from "../tasks/whole-model-node.ts";

export type { DrawSamples } from "../tasks/plan-node.ts";

export interface TrainOptions extends Surroundings {
  /** Whether to go on with the training in the folder. */
  readonly resume: boolean;
  readonly report: (event: TrainingEvent) => void;
  /** Ends the training after the step, or the pictures being encoded, at hand; all that was done is kept. */
  readonly signal?: AbortSignal | undefined;
}

/** What a training tells while it goes on. */
export type TrainingEvent =
  | LatentEvent
  | {
      readonly kind: "start";
      readonly step: number;
      readonly what: Subject["kind"];
      /** Of what is trained. */
      readonly parameters: number;
      readonly pictures: number;
      readonly data: string;
      /** Bytes that the process will take at most. */
      readonly memory: number;
    }
  | ({ readonly kind: "step" } & StepReport)
  | {
      readonly kind: "validation";
      readonly step: number;
      readonly loss: number;
      /** Whether it is of the pictures that are trained on, for want of others. */
      readonly own: boolean;
      /** What else was measured. */
      readonly measures: Readonly<Record<string, number>>;
    }
  | { readonly kind: "samples"; readonly path: string }
  | { readonly kind: "checkpoint"; readonly step: number };

export interface StepReport {
  readonly step: number;
  /** Of the whole training, where it is known. */
  readonly steps: number | undefined;
  readonly loss: number;
  readonly imagesPerSecond: number;
  readonly secondsLeft: number;
}

export interface TrainingResult {
  readonly steps: number;
  readonly seconds: number;
  /** Mean of the last steps' losses. */
  readonly loss: number;
  /** The last one on other pictures, where there are some. */
  readonly validation?: number;
  /** Whether it went to its end. */
  readonly finished: boolean;
  /** Pictures that could not be read, and why. */
  readonly skipped: readonly { readonly name: string; readonly reason: string }[];
}

/**
 * Trains.
 *
 * @throws UsageError when config, data and folder do not fit each other
 * @throws PatchwiseError when the loss is no longer a number, or the disk is full: the last good checkpoint is kept
 */
export async function train(
  given: TrainingConfig | LoraTrainingConfig | AutoencoderTrainingConfig,
  options: TrainOptions,
): Promise<TrainingResult> {
  const plan = await planOf(given, options);
  const { config } = plan;
  return closing(plan, async () => {
    const folder = await openRunFolder(options.out, plan.recorded, options.resume);
    const step = folder.from?.step ?? 0;
    const feed = config.latents
      ? await latentFeed(config, config.latents, step, options)
      : await pictureFeed(config, step);
    return closing(feed, async () => {
      return trainOn(feed, await plan.subject(feed), folder, config, options);
    });
  });
}

async function planOf(
  given: Parameters<typeof train>[0],
  surroundings: Surroundings,
): Promise<Plan> {
  if ("lora" in given) return loraPlan(given, surroundings);
  if ("autoencoder" in given) return autoencoderPlan(given, surroundings);
  return wholeModelPlan(given, surroundings);
}

async function closing<T>(opened: { close(): Promise<void> }, use: () => Promise<T>): Promise<T> {
  try {
    return await use();
  } finally {
    await opened.close();
  }
}

async function trainOn(
  feed: Feed,
  subject: Subject,
  folder: RunFolder,
  config: RunConfig,
  { backend, report, signal }: TrainOptions,
): Promise<TrainingResult> {
  const { training } = config;
  const step = trainingStep({
    loss: subject.loss,
    params: subject.trained,
    optimizer: configuredOptimizer(training.optimizer),
    emaDecay: (count) => count.add(1).div(count.add(10)).minimum(training.ema),
    clip: training.clip ?? undefined,
    accumulate: training.accumulate,
  });
  await folder.begin();
  await subject.begin();
  const batches = await feed.begin();
  if (!batches) return endedEarly(folder);
  report({
    kind: "start",
    step: folder.from?.step ?? 0,
    what: subject.kind,
    parameters: subject.parameters,
    pictures: feed.info.count,
    data: feed.info.name,
    memory: memoryOf(step, batches, config),
  });
  const { from } = folder;
  const trainer = await createTrainer(
    backend,
    step,
    // Into the program only: a variable would keep them in memory all along.
    from ? { step: from.step, state: await from.readState() } : await subject.initial(),
    { weights: subject.fixed, ...(training.threads && { threads: training.threads }) },
  );
  const run = {
    config,
    folder,
    subject,
    batches,
    key: randomKey(config.seed),
    trainer,
    report,
  };
  return closing({ close: () => trainer.dispose() }, async () => {
    const metrics = await openMetrics(folder.path, { resumeFrom: from?.step });
    return closing(metrics, () => steps({ ...run, metrics }, signal));
  });
}

/** Bytes that the process takes at most; models on other devices keep most of it there. */
function memoryOf(
  { graph, state }: TrainingStep,
  { loader, validation }: Batches,
  { training, samples }: RunConfig,
): number {
  const { total, weights } = estimateMemory(graph, training.batch, state);
  // A grid takes the weights three times: read from the state, in the program that draws, and packed for it.
  const drawing = samples.steps === undefined ? 0 : 3 * weights;
  return total + loaderBytes + loader.memory + (validation?.memory ?? 0) + drawing;
}

/** The loader's thread with what decodes pictures. */
const loaderBytes = 128 * 2 ** 20;

/** Told to stop before the first step. */
function endedEarly({ from }: RunFolder): TrainingResult {
  const { step, seconds } = from ?? { step: 0, seconds: 0 };
  return { steps: step, seconds, loss: NaN, finished: false, skipped: [] };
}

/** All that the steps need. */
interface Run {
  readonly config: RunConfig;
  readonly folder: RunFolder;
  readonly subject: Subject;
  readonly batches: Batches;
  readonly key: ReturnType<typeof randomKey>;
  readonly trainer: Trainer;
  readonly metrics: Metrics;
  readonly report: (event: TrainingEvent) => void;
}

async function steps(run: Run, signal: AbortSignal | undefined): Promise<TrainingResult> {
  const { config, folder, subject, trainer, metrics, report } = run;
  const { training } = config;
  const clock = stopwatch(folder.from?.seconds ?? 0);
  const { validation, latents } = run.batches;
  const validate = validation && (await subject.validator(validation, latents));
  let count = folder.from?.step ?? 0;
  let saved = { step: count, seconds: clock.seconds() };
  let validated: { readonly step: number; readonly loss: number } | undefined;
  const measure = async () => {
    if (!validate) return;
    const { loss, ...measures } = await validate(await averagesOf(run));
    await metrics.log(count, { validation: loss, ...measures });
    const { own = false } = config.validation!;
    report({ kind: "validation", step: count, loss, own, measures });
    validated = { step: count, loss };
  };
  const recent: number[] = [];
  const all = stepsOf(training, subject);
  const progress = () =>
    all === undefined ? clock.seconds() / (60 * training.minutes!) : count / all;

  const stopped = () => signal?.aborted === true;
  while (progress() < 1 && !stopped()) {
    const rate = rateAt({ ...training, rate: training.optimizer.rate }, count + 1, progress());
    const begun = performance.now();
    const batches = await nextBatches(run, count);
    const { loss, gradientNorm } = await trainer.step(
      ...batches.map((batch) => ({ ...batch, rate: scalar(rate) })),
    );
    count++;
    if (!Number.isFinite(loss)) throw noNumber("loss", count, saved.step, folder);
    if (!Number.isFinite(gradientNorm ?? 0)) throw noNumber("gradient", count, saved.step, folder);
    recent.push(loss);
    if (recent.length > config.log.steps) recent.shift();
    const imagesPerSecond =
      (1000 * training.batch * training.accumulate) / (performance.now() - begun);
    const done = progress();
    report({
      kind: "step",
      step: count,
      steps: all,
      loss: mean(recent),
      imagesPerSecond,
      secondsLeft: done > 0 ? (clock.seconds() * (1 - done)) / done : Infinity,
    });
    if (count % config.log.steps === 0) {
      await metrics.log(count, {
        loss: mean(recent),
        rate,
        imagesPerSecond,
        ...(gradientNorm !== undefined && { gradientNorm }),
      });
    }
    if (count % (config.validation?.steps ?? Infinity) === 0) await measure();
    if (config.samples.steps && count % config.samples.steps === 0) await drawSamples(run, count);
    if (isDue(config.checkpoint, count, saved, clock.seconds())) {
      await save(run, count, clock.seconds(), saved.step);
      saved = { step: count, seconds: clock.seconds() };
    }
    // Signals and the loader's messages come in between steps only, since a run holds the thread.
    await setImmediate();
  }
  if (progress() >= 1 && validated?.step !== count) await measure();
  if (saved.step !== count || count === 0) {
    await save(run, count, clock.seconds(), saved.step);
  }
  return {
    steps: count,
    seconds: clock.seconds(),
    loss: mean(recent),
    ...(validated && { validation: validated.loss }),
    finished: progress() >= 1,
    skipped: run.batches.loader.skipped(),
  };
}

/** Steps of the whole training; undefined where the clock ends it. */
function stepsOf(
  { steps: given, compute, batch, accumulate }: RunConfig["training"],
  subject: Subject,
): number | undefined {
  if (compute === undefined) return given;
  return Math.max(
    1,
    Math.round((compute * 1e12) / (3 * subject.multiplyAdds() * batch * accumulate)),
  );
}

/** The inputs of a step, from 0: each of its batches has a key of its own. */
async function nextBatches({ config, batches: read, key, subject }: Run, step: number) {
  const batches: Arrays[] = [];
  for (let i = 0; i < config.training.accumulate; i++) {
    const batch = await read.loader.next();
    const drawn = fork(fork(key, "steps"), step * config.training.accumulate + i);
    batches.push(subject.inputs(batch, drawn, read.latents));
  }
  return batches;
}

function noNumber(
  what: string,
  step: number,
  saved: number,
  { checkpoints, path }: RunFolder,
): PatchwiseError {
  const kept =
    saved > 0
      ? `the checkpoint of step ${saved} in ${checkpoints} is kept`
      : "nothing was saved yet";
  return new PatchwiseError(
    `Training stopped at step ${step}, where the ${what} is no longer a number; ${kept}. Lower training.optimizer.rate or training.clip${saved > 0 ? `, and begin from ${path} with training.from` : ""}.`,
  );
}

/** Writes the checkpoint, and the model as it draws now. */
async function save(run: Run, step: number, seconds: number, saved: number): Promise<void> {
  const { folder, trainer, config, report } = run;
  const state = await trainer.readState();
  // A step's loss tells of the weights before it.
  const broken = Object.keys(state).find((name) => !allFinite(state[name]!));
  if (broken !== undefined) throw noNumber(`state ${broken}`, step, saved, folder);
  await writeCheckpoint(folder.checkpoints, { step, seconds }, state, config.checkpoint.keep);
  await run.subject.write(reached(run, step), averagesIn(state));
  report({ kind: "checkpoint", step });
}

function allFinite({ dtype, data }: NdArray): boolean {
  return dtype !== "float32" || (data as Float32Array).every(Number.isFinite);
}

async function drawSamples(run: Run, step: number): Promise<void> {
  const { folder, metrics, report, subject } = run;
  const picture = await subject.sample(reached(run, step), await averagesOf(run));
  await mkdir(folder.samples, { recursive: true });
  const path = join(folder.samples, `step-${String(step).padStart(8, "0")}.png`);
  const png = await writePicture(path, picture);
  await metrics.image(step, "samples", png);
  report({ kind: "samples", path });
}

function reached({ config: { training } }: Run, count: number): Trained {
  return { steps: count, images: count * training.batch * training.accumulate };
}

async function averagesOf({ trainer }: Run): Promise<Arrays> {
  return averagesIn(await trainer.readState());
}

function averagesIn(state: Arrays): Arrays {
  const averages = Object.entries(state)
    .filter(([name]) => name.startsWith(emaPrefix))
    .map(([name, value]) => [name.slice(emaPrefix.length), value]);
  return Object.fromEntries(averages);
}

function isDue(
  { steps: every, minutes }: RunConfig["checkpoint"],
  step: number,
  saved: { readonly step: number; readonly seconds: number },
  seconds: number,
): boolean {
  if (every !== undefined && step % every === 0) return true;
  const pause = minutes ?? (every === undefined ? 5 : Infinity);
  return seconds - saved.seconds >= 60 * pause;
}

function stopwatch(before: number): { seconds(): number } {
  const begun = performance.now();
  return { seconds: () => before + (performance.now() - begun) / 1000 };
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
