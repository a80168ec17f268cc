/** Teaches the network that looks at pictures (evaluation/extractor.ts) the classes of a data set. */
import type { DataConfig } from "../data/config.ts";
import { type Loader } from "../data/loading/batch-reader.ts";
import { openLoader } from "../data/loading/loader-node.ts";
import { valuesOf } from "../pictures/picture.ts";
import { input } from "../engine/graph/functional.ts";
import { type NdArray, ndarray, scalar } from "../engine/arrays/ndarray.ts";
import { fork, randomKey } from "../engine/random/random.ts";
import type { Backend } from "../engine/runtime/backend.ts";
import { batch } from "../engine/graph/shape.ts";
import {
  type Extractor,
  type ExtractorConfig,
  openExtractor,
  traceExtractor,
} from "../evaluation/extractor.ts";
import { initialize } from "../nn/params.ts";
import { checkKeys } from "../weights/check-keys.ts";
import { exists } from "../weights/sources/folder-node.ts";
import { openSafetensorsFile, writeSafetensors } from "../weights/safetensors/file-node.ts";
import { readFloat32 } from "../weights/safetensors/safetensors.ts";
import { adamW, rateAt } from "../training/optimizers.ts";
import { createTrainer, emaPrefix, trainingStep } from "../training/step.ts";

const BATCH = 64;
const schedule = { rate: 2e-3, warmUp: 50, decay: { kind: "cosine", over: 1, to: 0 } } as const;

/** Up to three times through the data: enough to tell garments apart, and minutes on two cores at most. */
const stepsFor = (pictures: number) =>
  Math.min(1500, Math.max(200, Math.ceil((3 * pictures) / BATCH)));

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
  /** 0 of one that there was nothing to teach. */
  readonly steps: number;
}

/**
 * Trains an extractor, the same one for the same data and seed; without classes, draws its weights.
 *
 * @throws the signal's reason when it is told to stop
 */
async function trainExtractor(training: ExtractorTraining): Promise<TrainedExtractor> {
  const { data, config, seed } = training;
  const key = fork(randomKey(seed), "extractor");
  if (config.classes === undefined) {
    return { weights: initialize(traceExtractor(config).params, key), steps: 0 };
  }
  const loader = await openLoader({ data, shape: config.shape, batch: BATCH, seed, from: 0 });
  try {
    return await teach(loader, config.classes, key, training);
  } finally {
    await loader.close();
  }
}

async function teach(
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
    params: Object.fromEntries([...params.declared].map(([name, { tensor }]) => [name, tensor])),
    optimizer: adamW({ learningRate: input("rate", []), weightDecay: 0.05 }),
    // Short trainings would else keep some of the random start.
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
        label: ndarray(
          "int64",
          [BATCH],
          BigInt64Array.from(labels!, (each) => BigInt(Math.max(0, each))),
        ),
        known: ndarray(
          "float32",
          [BATCH],
          Array.from(labels!, (each) => (each < 0 ? 0 : 1)),
        ),
        rate: scalar(rateAt(schedule, i, i / steps)),
      });
      const seconds = (performance.now() - begun) / 1000;
      report({ step: i, steps, loss, secondsLeft: (seconds * (steps - i)) / i });
    }
    const state = await trainer.readState();
    const weights = [...params.declared.keys()].map(
      (name) => [name, state[emaPrefix + name]!] as const,
    );
    return { weights: Object.fromEntries(weights), steps };
  } finally {
    await trainer.dispose();
  }
}

/** An extractor that is kept in a file; trained and written there unless it is there already.
 *
 * @returns undefined when it was told to stop
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
  const opened = await openSafetensorsFile(file);
  try {
    checkKeys(traceExtractor(config).params, opened);
    const weights: Record<string, NdArray> = {};
    for (const [name, entry] of opened.entries) weights[name] = await readFloat32(entry);
    const extractor = await openExtractor(backend, config, weights);
    return { extractor, steps: Number(opened.metadata.get(stepsKey)) };
  } finally {
    await opened.close();
  }
}

/** Of the file: how long it was taught. */
const stepsKey = "steps";
