/** `patchwise train`, from a config to the folder of a trained model. */
import { availableParallelism as cores, cpus } from "node:os";
import { basename, isAbsolute, join, relative, resolve } from "node:path";
import type { DataConfig } from "../../data/config.ts";
import type { LatentCache } from "../../data/latents/latents.ts";
import type { Loader } from "../../data/loading/batch-reader.ts";
import {
  type LoaderOptions,
  loaderThreadBytes,
  openLoader,
} from "../../data/loading/loader-node.ts";
import { UsageError } from "../../engine/errors.ts";
import { availableMemory } from "../../engine/runtime/available-memory-node.ts";
import type { Backend } from "../../engine/runtime/backend.ts";
import { modelFiles } from "../../models/card.ts";
import { writePicture } from "../../pictures/file-node.ts";
import { writeClip } from "../../pictures/clip-file-node.ts";
import { writeFileAtomic } from "../../weights/sources/atomic-node.ts";
import { openSafetensorsFile } from "../../weights/safetensors/file-node.ts";
import { readAllFloat32 } from "../../weights/safetensors/safetensors.ts";
import { closing } from "../../weights/sources/closing.ts";
import {
  type AutoencoderTrainingConfig,
  framesShape,
  type LoraTrainingConfig,
  type RunConfig,
  type TrainingConfig,
  trainingData,
  validationData,
} from "../config/config.ts";
import { startNotes } from "./notes.ts";
import { conditionIn, wholeModelTask } from "../tasks/denoiser.ts";
import type { DrawnSamples, DrawSamples } from "../tasks/samples.ts";
import {
  type Batches,
  type DataSource,
  type Recorder,
  type Task,
  type Trained,
  type TrainingEvent,
  type TrainingResult,
  trainLoop,
} from "../loop.ts";
import { type LatentSourceOptions, openLatentSource } from "../sources/latent-source-node.ts";
import { type Collective, fromFirst, ownRows, ranksThatDiffer } from "../collective/collective.ts";
import type { Arrays } from "../step.ts";
import { autoencoderPlan } from "../tasks/autoencoder-node.ts";
import { readInitialWeights } from "../tasks/initial-weights-node.ts";
import { loraPlan } from "../tasks/lora-node.ts";
import { checkData } from "./data-record-node.ts";
import { openMetrics } from "./metrics-node.ts";
import { openRunFolder, type RunFolder, sampleGrid, saveModel } from "./run-folder-node.ts";
import { wordsOf } from "./words-node.ts";
import { createFolder } from "../../weights/sources/system-error-node.ts";

/** The surroundings of a training. */
export interface TrainContext {
  /** The device that trains, such as `nodeBackend("cpu")`. */
  readonly backend: Backend;
  /** The folder of the training and of the model. */
  readonly out: string;
  /** Draws sample grids; without it there are none, and `samples.steps` is refused. */
  readonly draw?: DrawSamples | undefined;
}

export interface TrainOptions extends TrainContext {
  /** Resumes the training in the folder; false by default. */
  readonly resume?: boolean;
  /** Resumes although pictures or captions have changed; false by default. */
  readonly changedData?: boolean;
  /** Called for each event of the training: steps with their loss, validations, checkpoints and warnings. */
  readonly report?: (event: TrainingEvent) => void;
  /** Asked after each step: whether a sample grid is to be drawn now, beside those that the config asks for. */
  readonly asksSamples?: (() => boolean) | undefined;
  /** The processes that train together, which all call `train` with the same config; this one alone unless given. */
  readonly collective?: Collective | undefined;
  /** Ends the training after the current step, or the pictures being encoded; everything done so far is kept. */
  readonly signal?: AbortSignal | undefined;
}

/** A training before its data is open. */
export interface TaskPlan {
  readonly config: RunConfig;
  /** The fields that must be the same when the training resumes. */
  readonly recorded: object;
  /** @throws UsageError when the data does not fit */
  task(source: DataSource): Promise<FolderTask>;
  close(): Promise<void>;
}

/** A task whose results are files. */
export interface FolderTask extends Task {
  /** Writes the files that do not change during the training. */
  begin?(): Promise<void>;
  /** Draws a picture that shows what the averaged weights can do. */
  sample(trained: Trained, averages: Arrays): Promise<DrawnSamples>;
  /** Writes the result. */
  write(trained: Trained, averages: Arrays): Promise<void>;
}

/** A data source that has to be opened and closed. */
export interface OpenDataSource extends DataSource {
  /** Starts to make batches, once the training's folder exists; returns undefined if it was stopped before. */
  begin(): Promise<Batches | undefined>;
  close(): Promise<void>;
}

/**
 * Trains a model, a LoRA or an autoencoder as a config says, and writes the result to a folder.
 *
 * @example
 * const config = readTrainingConfig("garden.yaml", await readFile("garden.yaml", "utf8"));
 * await train(config, { backend: nodeBackend("cpu"), out: "runs/garden" });
 * @throws UsageError when config, data and folder do not fit each other
 * @throws PatchwiseError when the loss is no longer a number or the disk is full; the last good checkpoint is kept
 */
export async function train(
  given: TrainingConfig | LoraTrainingConfig | AutoencoderTrainingConfig,
  options: TrainOptions,
): Promise<TrainingResult> {
  const {
    backend,
    out,
    draw,
    resume = false,
    changedData = false,
    report = () => {},
    collective,
    signal,
    asksSamples,
  } = options;
  if (given.samples.steps !== undefined && !draw && !("autoencoder" in given)) {
    throw new UsageError(
      `samples.steps is ${given.samples.steps}, but nothing was given that draws samples; pass draw, such as drawSamples(backend) of patchwise/pipelines, or leave samples.steps out.`,
    );
  }
  const draws = draw !== undefined || "autoencoder" in given;
  requireOutside(out, given);
  const plan = await planOf(given, options);
  const shared = collective ? sharedCores(plan.config, collective) : plan.config;
  return closing(plan, async () => {
    const folder = await openRunFolder(out, plan.recorded, resume);
    const { from } = folder;
    const config = folder.heldNothing
      ? { ...shared, validation: { ...shared.validation, share: 0 } }
      : shared;
    const source = await openSource(config, collective, {
      backend,
      out,
      report,
      signal,
      step: from?.step ?? 0,
      resumed: resume,
    });
    return closing(source, async () => {
      const task = await plan.task(source);
      const data = await checkData(out, config.data, source, { resume, accepted: changedData });
      if (collective) requireSame(collective, { config: plan.recorded, data: data.record });
      const others = collective !== undefined && collective.rank > 0;
      return closing(others ? nothing : await folder.begin(), async () => {
        if (!others) {
          await data.write();
          await task.begin?.();
        }
        const batches = await begun(source, collective);
        if (!batches) return stoppedEarly(folder);
        return trainLoop({
          backend,
          config,
          source,
          task,
          batches: others ? { ...batches, validation: undefined } : batches,
          from,
          memory: backend.device === "cpu" ? availableMemory() : undefined,
          notes: startNotes(config, source, from?.step, collective?.size),
          draws: draws && !others,
          openRecorder: async () =>
            others
              ? { checkpoint: async () => {}, ...nothing }
              : folderRecorder(folder, task, config, draws),
          report,
          collective,
          signal,
          asksSamples,
        });
      });
    });
  });
}

const nothing = { close: () => Promise.resolve() };

/** The config of a rank, which uses its share of the machine's cores unless the config says how many. */
function sharedCores(config: RunConfig, { local }: Collective): RunConfig {
  const { threads = Math.max(1, Math.floor(Math.min(cores(), cpus().length / local))) } =
    config.training;
  return { ...config, training: { ...config.training, threads } };
}

/** @throws UsageError in rank 0, while the others wait, when a rank has another config or other data */
function requireSame(collective: Collective, given: object): void {
  const others = ranksThatDiffer(collective, given);
  if (others.length > 0 && collective.rank === 0) {
    throw new UsageError(
      `${others.length === 1 ? "Rank" : "Ranks"} ${others.join(", ")} of ${collective.size} would train with another config or other pictures than rank 0; start all ranks with the same arguments, and give them the same files.`,
    );
  }
  fromFirst(collective, "the same");
}

/** Begins to make batches: rank 0 first, so that the others find the latents that it has encoded. */
async function begun(
  source: OpenDataSource,
  collective: Collective | undefined,
): Promise<Batches | undefined> {
  if (!collective) return source.begin();
  const first = collective.rank === 0 ? await source.begin() : undefined;
  if (!fromFirst(collective, first !== undefined)) return undefined;
  return first ?? source.begin();
}

export function openSource(
  config: RunConfig,
  collective: Collective | undefined,
  options: LatentSourceOptions,
): Promise<OpenDataSource> {
  const loaders = loadersOf(config, collective);
  return config.latents
    ? openLatentSource(config, config.latents, loaders, options)
    : openPictureSource(config, loaders, options.step);
}

/** @throws UsageError when samples would be written among the pictures, which a resumed training would take for data */
function requireOutside(
  out: string,
  {
    data,
    validation,
  }: {
    readonly data: DataConfig;
    readonly validation: { readonly data?: DataConfig | undefined };
  },
): void {
  for (const each of [data, validation.data]) {
    if (each?.kind !== "images" && each?.kind !== "clips") continue;
    if (relative(each.path, out).startsWith("..")) continue;
    if (isAbsolute(relative(each.path, out))) continue;
    throw new UsageError(
      `The training's folder ${out} is inside ${each.path}, whose pictures it trains on, so its samples would be taken for data; choose another folder with --out.`,
    );
  }
}

/** Opens what a training needs beside its data. */
export async function planOf(
  given: Parameters<typeof train>[0],
  context: TrainContext & Pick<TrainOptions, "resume">,
): Promise<TaskPlan> {
  if ("lora" in given) return loraPlan(given, context);
  if ("autoencoder" in given) return autoencoderPlan(given, context);
  return {
    config: given,
    recorded: given,
    task: (source) => wholeModel(given, source, context),
    close: () => Promise.resolve(),
  };
}

async function wholeModel(
  config: TrainingConfig,
  source: DataSource,
  context: TrainContext & Pick<TrainOptions, "resume">,
): Promise<FolderTask> {
  const { training, checkpoint } = config;
  const { backend, out } = context;
  const { from } = training;
  const words =
    conditionIn(config, source) === "text" ? await wordsOf(config, source, context) : undefined;
  const task = await wholeModelTask(config, source, {
    backend,
    name: basename(resolve(out)),
    words,
    ...(from !== undefined && { weights: (params) => readInitialWeights(params, from) }),
    extractor: await extractorWeights(training.features?.extractor),
  });
  return {
    ...task,
    async begin() {
      if (words) await writeFileAtomic(join(out, modelFiles.tokenizer), words.tokenizerFile);
    },
    sample: sampleGrid(task, config, source, context),
    write: async (trained, averages) =>
      saveModel(
        out,
        { card: task.cardAt(trained), weights: await task.allWeights(averages) },
        checkpoint.weights,
      ),
  };
}

/** The weights of an extractor that a comparison trained. */
async function extractorWeights(path: string | undefined): Promise<Arrays | undefined> {
  return path === undefined
    ? undefined
    : closing(await openSafetensorsFile(path), (opened) => readAllFloat32(opened));
}

/** The loaders of a training, which are closed together. */
export interface Loaders {
  /** Batches to train on, starting from those of a step. */
  training(step: number, latents?: LatentCache): Promise<Loader>;
  /** Batches to validate on, always in the same order. */
  validation(data: DataConfig, latents?: LatentCache): Promise<Loader>;
  close(): Promise<void>;
}

/** Rank 0 of a collective measures, and each rank reads its own rows. */
function loadersOf(config: RunConfig, collective: Collective | undefined): Loaders {
  const { batch, accumulate } = config.training;
  const rows = collective && ownRows(collective, batch);
  const shape = framesShape(config);
  const opened: Loader[] = [];
  const open = async (
    data: DataConfig,
    options: Pick<LoaderOptions, "seed" | "from" | "latents" | "rows">,
  ) => {
    const loader = await openLoader({ data, shape, batch, ...options });
    opened.push(loader);
    return loader;
  };
  return {
    training: (step, latents) =>
      open(trainingData(config), { seed: config.seed, from: step * accumulate, latents, rows }),
    validation: (data, latents) => open(data, { seed: 0, from: 0, latents }),
    close: async () => {
      for (const loader of opened) await loader.close();
    },
  };
}

/** Pictures as they are. The first ones are decoded at once. */
async function openPictureSource(
  config: RunConfig,
  loaders: Loaders,
  step: number,
): Promise<OpenDataSource> {
  const loader = await loaders.training(step);
  return {
    info: loader.info,
    survey: loader.survey,
    image: framesShape(config),
    coder: undefined,
    begin: async () => {
      const held = validationData(config, loader.info.heldOut ?? 0);
      return {
        loader,
        validation: held && (await loaders.validation(held.data)),
        own: held?.own ?? false,
        latents: undefined,
        overhead: loaderThreadBytes,
      };
    },
    close: () => loaders.close(),
  };
}

/** The result of a training that was stopped before its first step. */
function stoppedEarly({ from }: RunFolder): TrainingResult {
  const { step, seconds } = from ?? { step: 0, seconds: 0 };
  return { steps: step, seconds, loss: NaN, finished: false, skipped: [] };
}

/** Keeps checkpoints, metrics, samples and the model in the training's folder. */
async function folderRecorder(
  folder: RunFolder,
  task: FolderTask,
  config: RunConfig,
  draws: boolean,
): Promise<Recorder> {
  const metrics = await openMetrics(folder.path, { resumeFrom: folder.from?.step });
  return {
    folder,
    log: (step, values) => metrics.log(step, values),
    ...(draws && {
      async samples(trained, averages) {
        const picture = await task.sample(trained, averages);
        await createFolder(folder.samples);
        const name = join(folder.samples, `step-${String(trained.steps).padStart(8, "0")}`);
        const path = `${name}.png`;
        await metrics.image(trained.steps, "samples", await writePicture(path, picture));
        const { clip } = picture;
        if (clip) await writeClip(`${name}.webp`, clip.clip, clip.fps!);
        return path;
      },
    }),
    async checkpoint({ step, seconds, state }, trained, averages) {
      await folder.save({ step, seconds }, state, config.checkpoint.keep);
      await task.write(trained, averages);
    },
    close: () => metrics.close(),
  };
}
