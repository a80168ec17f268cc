/**
 * Runs a comparison: trains a feature extractor on the data, then trains each model, draws with it and compares its pictures
 * with held-out ones. Finished parts are kept in the folder, so that an interrupted comparison can resume.
 */
import { join } from "node:path";
import type { Picture } from "../pictures/picture.ts";
import { canonical } from "../data/latents/folder-node.ts";
import { sizeOf } from "../engine/arrays/ndarray.ts";
import { fork, randomKey, uniform } from "../engine/random/random.ts";
import { countMultiplyAdds, countParameters } from "../engine/passes/cost.ts";
import { PatchwiseError, UsageError } from "../engine/errors.ts";
import type { Backend } from "../engine/runtime/backend.ts";
import type { ComparedModel, Comparison } from "./table.ts";
import type { Extractor } from "../evaluation/extractor.ts";
import { type Features, measuresOf } from "../evaluation/distances.ts";
import { checkpointSteps } from "../training/run/run-folder-node.ts";
import { type Contender, lossKind } from "./contenders.ts";
import { pictureShape, trainingData } from "../training/config/config.ts";
import { estimateTime, type MeasuredContender, type TimeEstimate } from "./estimate.ts";
import { extractorImages, type ExtractorProgress, openTrainedExtractor } from "./extractor-node.ts";
import type { DrawSamples } from "../training/tasks/samples.ts";
import { type TrainingEvent, type TrainingResult } from "../training/loop.ts";
import { checkTraining } from "../training/run/opened-training-node.ts";
import { train } from "../training/run/train-node.ts";
import type { CheckedTraining } from "../training/speed.ts";
import { writeFileAtomic, writeJson } from "../weights/sources/atomic-node.ts";
import { closing } from "../weights/sources/closing.ts";
import { lockFolder } from "../weights/sources/lock-node.ts";
import { exists, readJson } from "../weights/sources/folder-node.ts";
import { drawAll, drawSampleGrid, type Prompts } from "./drawing.ts";
import { type RealPictures, realPictures } from "./real-pictures-node.ts";
import { networkGraph } from "../pipelines/image-model.ts";
import { openModel } from "../pipelines/open/open-node.ts";
import { createFolder } from "../weights/sources/system-error-node.ts";

export interface CompareOptions {
  readonly backend: Backend;
  readonly out: string;
  readonly resume: boolean;
  /** The number of pictures that each model draws for the measures. */
  readonly count: number;
  readonly draw: DrawSamples;
  readonly report: (event: CompareEvent) => void;
  readonly signal?: AbortSignal | undefined;
}

/** An event of a comparison, for progress displays. */
export type CompareEvent =
  | { readonly kind: "estimate"; readonly time: TimeEstimate }
  | { readonly kind: "extractor"; readonly progress: ExtractorProgress }
  | { readonly kind: "model"; readonly name: string }
  | { readonly kind: "training"; readonly event: TrainingEvent }
  | { readonly kind: "drawing"; readonly done: number; readonly of: number }
  | { readonly kind: "measured"; readonly model: ComparedModel };

export interface Compared {
  readonly comparison: Comparison;
  /** A grid for each model in order, all drawn with the same seeds and prompts. */
  readonly samples: readonly { readonly name: string; readonly grid: Picture }[];
}

/**
 * Trains, draws with and measures all contenders.
 *
 * @returns undefined if it was aborted; finished parts are kept
 * @throws UsageError if the folder belongs to another comparison, or another process is at work in it; also everything that training throws
 */
export async function compare(
  contenders: readonly [Contender, ...Contender[]],
  options: CompareOptions,
): Promise<Compared | undefined> {
  const begin = await openFolder(contenders, options);
  const real = await realPictures(contenders[0].config, options.count);
  const measured: MeasuredContender[] = [];
  for (const contender of contenders) {
    const { trained, model } = await stateIn(join(options.out, contender.name));
    const own = { trained: trained !== undefined, drawn: model !== undefined };
    measured.push({ ...contender, ...own, checked: await checked(contender, options) });
  }
  const extractor = await untrainedExtractor(contenders[0], real, measured[0]!, options);
  options.report({ kind: "estimate", time: estimateTime(measured, options.count, extractor) });
  await begin();
  return closing(await lockFolder(options.out), () => compareAll(contenders, real, options));
}

/** @throws UsageError that names the config that cannot be trained, before any of them is */
async function checked(
  { file, config }: Contender,
  options: CompareOptions,
): Promise<CheckedTraining> {
  try {
    return await checkTraining(config, options);
  } catch (error) {
    if (!(error instanceof PatchwiseError)) throw error;
    throw new UsageError(`${file}: ${error.message}`, { cause: error });
  }
}

/** The extractor that is still to be trained; undefined if it is finished, or has random weights. */
async function untrainedExtractor(
  { config }: Contender,
  { classes }: RealPictures,
  { checked: { pictures } }: MeasuredContender,
  { out }: CompareOptions,
) {
  if (!classes || (await exists(join(out, extractorFile)))) return undefined;
  const shape = pictureShape(config);
  return { config: { shape, classes: classes.length }, images: extractorImages(pictures) };
}

async function compareAll(
  contenders: readonly [Contender, ...Contender[]],
  real: RealPictures,
  options: CompareOptions,
): Promise<Compared | undefined> {
  const { backend, count, report, signal } = options;
  const { config } = contenders[0];
  const trained = await openTrainedExtractor({
    data: trainingData(config),
    config: { shape: pictureShape(config), classes: real.classes?.length },
    seed: config.seed,
    backend,
    file: join(options.out, "extractor.safetensors"),
    report: (progress) => report({ kind: "extractor", progress }),
    signal,
  });
  if (!trained) return undefined;
  const { extractor } = trained;
  try {
    const reference = await extractor.extractFeatures(real.reference.pixels);
    const models: ComparedModel[] = [];
    const samples: { name: string; grid: Picture }[] = [];
    for (const contender of contenders) {
      report({ kind: "model", name: contender.name });
      const done = await compareOne(contender, real.prompts, reference.features, trained, options);
      if (!done) return undefined;
      models.push(done.model);
      samples.push({ name: contender.name, grid: done.grid });
    }
    const known = reference.classes && accuracy(reference.classes, real.reference.labels!);
    const comparison = {
      data: real.name,
      budget: budgetText(config.training),
      extractor: extractorText(trained.steps, known),
      reference: real.description,
      drawn: count,
      referenced: real.reference.pixels.length / sizeOf(pictureSize(config)),
      ...(known !== undefined &&
        real.classes && { classes: { count: real.classes.length, known } }),
      noise: measures(
        reference.features,
        await extractor.extractFeatures(noisePictures(count, config)),
        undefined,
      ),
      ...(real.others && {
        real: measures(
          reference.features,
          await extractor.extractFeatures(real.others.pixels),
          real.others.labels,
        ),
      }),
      models,
    };
    return { comparison, samples };
  } catch (error) {
    if (signal?.aborted && error === signal.reason) return undefined;
    throw error;
  } finally {
    await extractor.dispose();
  }
}

/**
 * Checks the folder, and returns a function that creates it once everything else has been checked.
 *
 * @throws UsageError if the folder holds another comparison, or this one without --resume
 */
async function openFolder(
  contenders: readonly Contender[],
  { out, resume, count }: CompareOptions,
): Promise<() => Promise<void>> {
  const file = join(out, "comparison.json");
  const models = contenders.map(({ name, config }) => ({ name, config }));
  const own = canonical({ count, models });
  if (await exists(file)) {
    if (!resume) {
      throw new UsageError(
        `${out} already holds a comparison; resume it with --resume, or choose another folder with --out.`,
      );
    }
    const before = (await readJson(file)) as Started;
    if (canonical(before) === own) return () => Promise.resolve();
    // What is finished stays valid if it is of the same config, pictures and count.
    const [known, wanted] = [before, { count, models }].map((each) => canonical(sharedBy(each)));
    if (known !== wanted) {
      throw new UsageError(
        `The comparison in ${out} started with other pictures, another seed, budget or count; resume it with the same ones, or choose another folder with --out.`,
      );
    }
    const configOf = ({ models: all }: Started, name: string) =>
      canonical(all.find((each) => each.name === name)?.config ?? {});
    for (const { name } of models) {
      if (configOf(before, name) === configOf({ count, models }, name)) continue;
      if (!(await exists(join(out, name, "config.json")))) continue;
      throw new UsageError(
        `The config of ${name} is another than that with which the comparison in ${out} began to train it; remove ${join(out, name)} to train it anew, and resume again.`,
      );
    }
    return () => writeFileAtomic(file, new TextEncoder().encode(`${own}\n`));
  }
  if (resume) {
    throw new UsageError(
      `There is no comparison in ${out} to resume; omit --resume to start one, or name its folder with --out.`,
    );
  }
  return async () => {
    await createFolder(out);
    await writeFileAtomic(file, new TextEncoder().encode(`${own}\n`));
  };
}

/** The number of drawings and the models of a comparison. */
interface Started {
  readonly count: number;
  readonly models: readonly Pick<Contender, "name" | "config">[];
}

/** The settings that every model of a comparison shares, so that a change of them makes all results invalid. */
function sharedBy({ count, models }: Started): object {
  const { data, picture, validation, seed, training } = models[0]!.config;
  return { count, data, picture, validation, seed, budget: budgetText(training) };
}

/** The finished parts of one model's comparison, as its folder keeps them. */
interface State {
  readonly trained?: TrainingResult;
  readonly model?: ComparedModel;
}

const stateFile = "compared.json";
const extractorFile = "extractor.safetensors";

/** The finished parts in a model's folder. */
async function stateIn(folder: string): Promise<State> {
  const file = join(folder, stateFile);
  return ((await exists(file)) ? await readJson(file) : {}) as State;
}

/** Trains, draws with and measures one model, except for what is already finished. */
async function compareOne(
  contender: Contender,
  prompts: Prompts,
  reference: Features,
  { extractor }: { readonly extractor: Extractor },
  options: CompareOptions,
): Promise<{ readonly model: ComparedModel; readonly grid: Picture } | undefined> {
  const { out, backend, count, report, signal } = options;
  const { name, config } = contender;
  const folder = join(out, name);
  const known = await stateIn(folder);
  const keep = (state: State) => writeJson(join(folder, stateFile), state);
  const trained = known.trained ?? (await trainOne(contender, folder, options));
  if (!trained) return undefined;
  if (!known.trained) await keep({ trained });

  const model = await openModel(folder);
  try {
    let compared = known.model;
    if (!compared) {
      const progress = (done: number) => report({ kind: "drawing", done, of: count });
      const drawn = await drawAll(model, prompts, count, { backend, progress, signal });
      const graph = networkGraph(model.network);
      const gflops = countMultiplyAdds(graph, 1) / 1e9;
      const images = trained.steps * config.training.batch * config.training.accumulate;
      compared = {
        name,
        parameters: countParameters(graph),
        gflops,
        images,
        minutes: trained.seconds / 60,
        tflop: (3 * gflops * images) / 1e3,
        loss: trained.loss,
        ...(trained.validation !== undefined && { validation: trained.validation }),
        lossKind: lossKind(config),
        ...measures(reference, await extractor.extractFeatures(drawn.pixels), drawn.labels),
        secondsAnImage: drawn.seconds / count,
        sampling: drawn.sampling,
      };
      await keep({ trained, model: compared });
      report({ kind: "measured", model: compared });
    }
    return { model: compared, grid: await drawSampleGrid(model, prompts, { backend, signal }) };
  } finally {
    await model.close();
  }
}

async function trainOne(
  { config }: Contender,
  folder: string,
  { backend, draw, report, signal }: CompareOptions,
): Promise<TrainingResult | undefined> {
  const begun = await checkpointSteps(join(folder, "checkpoints"));
  const result = await train(config, {
    backend,
    out: folder,
    resume: begun.length > 0,
    draw,
    report: (event) => report({ kind: "training", event }),
    signal,
  });
  return result.finished ? result : undefined;
}

/** The most pictures for precision and recall. */
const MOST_PAIRED = 1000;

function measures(
  reference: Features,
  { features, classes }: Awaited<ReturnType<Extractor["extractFeatures"]>>,
  labels: readonly number[] | undefined,
) {
  return {
    ...measuresOf(reference, features, { most: MOST_PAIRED }),
    ...(classes && labels && { recognised: accuracy(classes, labels) }),
  };
}

/** Pictures of uniform noise: [count, height, width, channels]. */
function noisePictures(count: number, config: Contender["config"]): Uint8Array {
  const { data } = uniform(fork(randomKey(config.seed), "noise"), [count, ...pictureSize(config)]);
  return Uint8Array.from(data, (value) => Math.floor(256 * value));
}

function pictureSize(config: Contender["config"]): number[] {
  const { height, width, channels } = pictureShape(config);
  return [height, width, channels];
}

function accuracy(guesses: readonly number[], truth: ArrayLike<number>): number {
  return guesses.filter((guess, i) => guess === truth[i]).length / guesses.length;
}

function budgetText({ minutes, compute }: Contender["config"]["training"]): string {
  return minutes === undefined ? `${compute} Tflop` : `${minutes} min`;
}

function extractorText(steps: number, known: number | undefined): string {
  return known === undefined
    ? "a convolutional network with random weights"
    : `a small convolutional network, trained for ${steps} steps to classify the training data (${(100 * known).toFixed(1)} % accuracy on the reference)`;
}
