/** Trains the feature extractor (evaluation/extractor.ts) to classify a data set. */
import type { DataConfig } from "../data/config.ts";
import { type Loader } from "../data/loading/batch-reader.ts";
import { openLoader } from "../data/loading/loader-node.ts";
import { valuesOf } from "../pictures/picture.ts";
import { input } from "../engine/graph/functional.ts";
import { type NdArray, ndarray, scalar } from "../engine/arrays/ndarray.ts";
import { fork, randomKey } from "../engine/random/random.ts";
import { recordOf } from "../engine/records.ts";
import type { Backend } from "../engine/runtime/backend.ts";
import { batch } from "../engine/graph/shape.ts";
import {
  type Extractor,
  type ExtractorConfig,
  openExtractor,
  type TracedExtractor,
  traceExtractor,
} from "../evaluation/extractor.ts";
import { initialize } from "../nn/params.ts";
import { checkKeys } from "../weights/check-keys.ts";
import { exists } from "../weights/sources/folder-node.ts";
import { openSafetensorsFile, writeSafetensors } from "../weights/safetensors/file-node.ts";
import { readAllFloat32 } from "../weights/safetensors/safetensors.ts";
import { closing } from "../weights/sources/closing.ts";
import { adamW, rateAt } from "../training/optimizers.ts";
import { averagesIn } from "../training/loop.ts";
import { trainingStep } from "../training/step.ts";
import { createTrainer } from "../training/trainer.ts";

const BATCH = 64;
const schedule = { rate: 2e-3, warmUp: 50, decay: { kind: "cosine", over: 1, to: 0 } } as const;

/** At most three epochs: enough to distinguish garments, and a few minutes on two cores. */
const stepsFor = (pictures: number) =>
  Math.min(1500, Math.max(200, Math.ceil((3 * pictures) / BATCH)));

/** The number of pictures that the extractor is trained on, counted each time it sees them. */
export function extractorImages(pictures: number): number {
  return BATCH * stepsFor(pictures);
}

export interface ExtractorProgress {
  /** Steps done. */
  readonly step: number;
  readonly steps: number;
  readonly loss: number;
  readonly secondsLeft: number;
}

interface ExtractorTraining {
  readonly data: DataConfig;
  readonly config: ExtractorConfig;
  readonly seed: number;
  readonly backend: Backend;
  readonly report: (progress: ExtractorProgress) => void;
  readonly signal?: AbortSignal | undefined;
}

interface TrainedExtractor {
  readonly weights: Readonly<Record<string, NdArray>>;
  /** 0 if there are no classes to train on. */
  readonly steps: number;
}

/**
 * Trains an extractor, which depends on the data and the seed alone. Without classes its weights are random.
 *
 * @throws the signal's reason if aborted
 */
async function trainExtractor(training: ExtractorTraining): Promise<TrainedExtractor> {
  const { data, config, seed } = training;
  const key = fork(randomKey(seed), "extractor");
  if (config.classes === undefined) {
    return { weights: initialize(traceExtractor(config).params, key), steps: 0 };
  }
  const { classes, shape } = config;
  return closing(await openLoader({ data, shape, batch: BATCH, seed, from: 0 }), (loader) =>
    trainClassifier(loader, classes, key, training),
  );
}

async function trainClassifier(
  loader: Loader,
  classes: number,
  key: ReturnType<typeof randomKey>,
  { config, backend, report, signal }: ExtractorTraining,
): Promise<TrainedExtractor> {
  const { params, logits } = traceExtractor(config);
  const [label, known] = [input("label", [batch], "int64"), input("known", [batch])];
  const likelihood = logits!.logSoftmax().mul(label.oneHot(classes)).sum(-1);
  const step = trainingStep({
    loss: likelihood.mul(known).sum().div(known.sum().maximum(1)).neg(),
    params: recordOf(params.declared.keys(), (name) => params.declared.get(name)!.tensor),
    optimizer: adamW({ learningRate: input("rate", []), weightDecay: 0.05 }),
    // A constant decay would keep a part of the random first weights in short trainings.
    emaDecay: (count) => count.add(1).div(count.add(10)).minimum(0.99),
  });
  const trainer = await createTrainer(backend, step, initialize(params, key));
  try {
    const steps = stepsFor(loader.info.count);
    const begun = performance.now();
    for (let i = 1; i <= steps; i++) {
      signal?.throwIfAborted();
      const { pixels, labels } = await loader.next();
      const { loss } = await trainer.step({
        image: valuesOf(pixels, config.shape),
        label: ndarray("int64", [BATCH], Array.from(labels!.map((each) => Math.max(0, each)))),
        known: ndarray("float32", [BATCH], Array.from(labels!.map((each) => (each < 0 ? 0 : 1)))),
        rate: scalar(rateAt(schedule, i, i / steps)),
      });
      const seconds = (performance.now() - begun) / 1000;
      report({ step: i, steps, loss, secondsLeft: (seconds * (steps - i)) / i });
    }
    return { weights: averagesIn(await trainer.readState()), steps };
  } finally {
    await trainer.dispose();
  }
}

/**
 * Opens the extractor in a file. If the file does not exist, trains the extractor and writes it first.
 *
 * @returns undefined if aborted
 */
export async function openTrainedExtractor({
  file,
  ...training
}: ExtractorTraining & { readonly file: string }): Promise<
  { readonly extractor: Extractor; readonly steps: number } | undefined
> {
  const { backend, config, signal } = training;
  if (!(await exists(file))) {
    try {
      const { weights, steps } = await trainExtractor(training);
      await writeSafetensors(file, Object.entries(weights), [[stepsKey, String(steps)]]);
    } catch (error) {
      if (signal?.aborted) return undefined;
      throw error;
    }
  }
  const { extractor, metadata } = await openExtractorFile(file, backend, traceExtractor(config));
  return { extractor, steps: Number(metadata.get(stepsKey)) };
}

/** @throws FormatError if the file does not hold the weights of the extractor */
export async function openExtractorFile(
  path: string,
  backend: Backend,
  traced: TracedExtractor,
): Promise<{ readonly extractor: Extractor; readonly metadata: ReadonlyMap<string, string> }> {
  return closing(await openSafetensorsFile(path), async (file) => {
    checkKeys(traced.params, file);
    const extractor = await openExtractor(backend, traced, await readAllFloat32(file));
    return { extractor, metadata: file.metadata };
  });
}

/** The metadata key of the number of training steps. */
const stepsKey = "steps";
