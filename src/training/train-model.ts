/** Training a model with a call: pictures in memory in, a model that draws out, in Node and in a page. */
import { directLoader, type Loader } from "../data/loading/batch-reader.ts";
import { pictureLayout } from "../data/loading/batches.ts";
import type { DataSet } from "../data/dataset.ts";
import { type LabelledPicture, pictureSet } from "../data/memory.ts";
import { castWeights } from "../engine/arrays/ndarray.ts";
import { didYouMean, quote, UsageError } from "../engine/errors.ts";
import { kinds, requireKind } from "../engine/options.ts";
import { mapValues, pick, recordOf } from "../engine/records.ts";
import { formatShape } from "../engine/graph/shape.ts";
import type { Backend } from "../engine/runtime/backend.ts";
import { type Card, modelFiles } from "../models/card.ts";
import { type NetworkConfig, networkSchema } from "../models/network.ts";
import type { ParamsRoot } from "../nn/params.ts";
import type { PictureShape } from "../pictures/picture.ts";
import type { Tokenizer } from "../text/tokenizer.ts";
import { jsonBytes } from "../weights/json.ts";
import { safetensorsBytes } from "../weights/safetensors/write.ts";
import { type TrainingConfigInput, trainingConfigSchema, trainingSchema } from "./config/config.ts";
import { explainIssues } from "./config/explain.ts";
import {
  averagesIn,
  type DataSource,
  type TrainingCheckpoint,
  type TrainingEvent,
  type TrainingResult,
  trainLoop,
} from "./loop.ts";
import type { Optimizer } from "./optimizers.ts";
import type { Arrays } from "./step.ts";
import type { ReduceGradients } from "./trainer.ts";
import { conditionIn, type ReadWeights, wholeModelTask } from "./tasks/denoiser.ts";
import { completeWords } from "./tasks/vocabulary.ts";
import type { WordTable } from "./tasks/words.ts";

type TrainingFields = TrainingConfigInput["training"];

/** The pictures to train on. */
export type TrainingPictures =
  | {
      /** Pictures of one size. */
      readonly pictures: readonly LabelledPicture[];
      /** The names of the classes, in order; by default those of the labels, sorted. */
      readonly classes?: readonly string[] | undefined;
    }
  | {
      /** A data set, from which batches are read. */
      readonly data: DataSet;
      /** The shape of every picture of the data set. */
      readonly shape: PictureShape;
    };

/** Some fields of a network, as `model` in a YAML config. */
export interface NetworkSettings {
  /** The family; DiT by default. */
  readonly kind?: string;
  /** A published size to start from; the other fields override it. */
  readonly preset?: string;
  /** By default "text" for pictures with captions, "class" for those with labels. */
  readonly condition?: NetworkConfig["condition"]["kind"];
  /** Fields of the family's config. */
  readonly [field: string]: unknown;
}

interface ModelOptions {
  /** The device that trains, such as `nodeBackend("cpu")` or `webBackend({ device: "wasm" })`. */
  readonly backend: Backend;
  /**
   * The network: a whole config, such as one of `networkPresets`, or some of the fields of `model` in a YAML config, such as
   * `{ kind: "u-vit", hidden: 128 }`. By default a small DiT. What is left out follows from the pictures.
   */
  readonly network?: NetworkConfig | NetworkSettings;
  /** The diffusion process and its loss, as `diffusion` in a YAML config; rectified flow by default. */
  readonly recipe?: TrainingConfigInput["diffusion"];
  /** First values of all weights, such as another model's; drawn from the seed by default. */
  readonly weights?: Arrays | undefined;
  /** The extractor of `features`, such as `readAllFloat32` of a comparison's `extractor.safetensors`; random weights by default. */
  readonly extractor?: Arrays | undefined;
  /** The tokenizer and word vectors of a network that reads captions; `openWords` and `readWords` read them. */
  readonly words?: WordTable | undefined;
  /** An optimizer, or its settings; AdamW with a learning rate of 1e-3 by default. */
  readonly optimizer?: Optimizer | TrainingFields["optimizer"];
  /** The name of the model; "model" by default. */
  readonly name?: string | undefined;
  /** The sampler, steps and guidance that the model draws with by default. */
  readonly sampling?: TrainingConfigInput["sampling"];
  /** Seeds weights, batches and noise; a whole number ≥ 0, and 0 by default. */
  readonly seed?: number | undefined;
  /** True if pictures are mirrored at random; false by default. */
  readonly flip?: boolean | undefined;
  /** Pictures to measure the loss on, every so many steps. */
  readonly validation?:
    | (TrainingPictures & {
        /** Steps between validations, a whole number from 1; 500 by default. */
        readonly steps?: number;
        /** Batches of a validation, from 1; 8 by default. */
        readonly batches?: number;
      })
    | undefined;
  /** Resumes a training from the `checkpoint` of its result, bit for bit as if it had not been interrupted. */
  readonly resumeFrom?: TrainingCheckpoint | undefined;
  /** Keeps checkpoints during the training, every so many steps or minutes. */
  readonly checkpoint?:
    | {
        /** Steps between checkpoints, a whole number from 1. */
        readonly steps?: number;
        /** Minutes between checkpoints, above 0; 5 if neither is given. */
        readonly minutes?: number;
        /** Keeps a checkpoint; the training goes on when its promise is fulfilled. */
        readonly save: (checkpoint: TrainingCheckpoint) => Promise<void>;
      }
    | undefined;
  /** Combines the gradients of several processes between gradient and update. */
  readonly reduce?: ReduceGradients | undefined;
  /** Called for each event of the training: steps with their loss, validations, checkpoints and warnings. */
  readonly onEvent?: ((event: TrainingEvent) => void) | undefined;
  /** Ends the training after the current step; the result has what was trained so far, with `finished: false`. */
  readonly signal?: AbortSignal | undefined;
}

/** The options of `trainModel`. Those of the training itself are the fields of `training` in a YAML config. */
export type TrainModelOptions = ModelOptions &
  TrainingPictures &
  Omit<TrainingFields, "from" | "optimizer">;

/** A trained model. `createPipeline({ backend, ...model })` draws with it. */
export interface TrainedModel {
  readonly card: Card;
  /** The averaged weights, by checkpoint key. */
  readonly weights: Arrays;
  /** The tokenizer of a model that reads prompts. */
  readonly tokenizer?: Tokenizer | undefined;
  /** The content of tokenizer.json. */
  readonly tokenizerFile?: Uint8Array | undefined;
}

export interface TrainModelResult extends TrainedModel, TrainingResult {
  /** The whole state, for `resumeFrom`. */
  readonly checkpoint: TrainingCheckpoint;
}

/**
 * Trains a network on pictures and returns the model. The steps are those of `patchwise train`.
 *
 * @example
 * const model = await trainModel({ pictures, steps: 1000, batch: 32, backend: nodeBackend("cpu") });
 * await saveModel("runs/mine", model);
 * @throws UsageError when an option is out of range, or network and pictures do not fit each other
 * @throws PatchwiseError when the loss is no longer a number
 */
export async function trainModel(options: TrainModelOptions): Promise<TrainModelResult> {
  requireKnownOptions(options);
  const { backend, words, resumeFrom, onEvent = () => {}, signal } = options;
  requireKind("trainModel: backend", backend, kinds.backend);
  const { data, shape } = openPictures(options);
  const config = configOf(options, shape);
  const { batch, accumulate } = config.training;
  const layout = pictureLayout(shape);
  const { flip = false } = options;
  const from = (resumeFrom?.step ?? 0) * accumulate;
  const loader = directLoader(data, { layout, batch, seed: config.seed, flip, from });
  const source: DataSource = {
    info: loader.info,
    survey: loader.survey,
    image: shape,
    coder: undefined,
  };
  const network = wholeNetwork(options.network);
  if (network) requireFit(network, shape, source, words);
  const readsText = !network && conditionIn(config, source) === "text";
  if (readsText && !words) {
    throw new UsageError(
      "The pictures have captions, but there is no word table to read them with; give words, such as those of openWords(), or set network.condition to class or none.",
    );
  }
  const readable =
    words && readsText && !options.weights
      ? completeWords(words, source.survey?.characters ?? "")
      : words;
  const ownWords = readsText || network?.prompt ? readable : undefined;
  const task = await wholeModelTask(config, source, {
    backend,
    name: "model",
    network,
    words: ownWords,
    extractor: options.extractor,
    ...(options.weights && { weights: givenWeights(options.weights) }),
  });
  let checkpoint = resumeFrom;
  const result = await trainLoop({
    backend,
    config,
    source,
    task,
    batches: {
      loader,
      validation: validationLoader(options, shape, batch),
      latents: undefined,
      overhead: 0,
    },
    from: resumeFrom && { ...resumeFrom, readState: async () => resumeFrom.state },
    optimizer: isOptimizer(options.optimizer) ? options.optimizer : undefined,
    reduce: options.reduce,
    report: onEvent,
    signal,
    openRecorder: async () => ({
      async checkpoint(reached) {
        checkpoint = reached;
        await options.checkpoint?.save(reached);
      },
      close: () => Promise.resolve(),
    }),
  });
  const { steps } = result;
  return {
    ...result,
    card: task.cardAt({ steps, images: steps * batch * accumulate }),
    weights: await task.allWeights(averagesIn(checkpoint!.state)),
    tokenizer: ownWords?.tokenizer,
    tokenizerFile: ownWords?.tokenizerFile,
    checkpoint: checkpoint!,
  };
}

/**
 * The files of a trained model by name, as `patchwise train` writes them. A page can offer them as downloads; `saveModel` of
 * `patchwise/training/node` writes them to a folder.
 *
 * @param dtype float16 halves the file of the weights
 */
export function modelBytes(
  { card, weights, tokenizerFile }: TrainedModel,
  dtype: "float32" | "float16" = "float32",
): Record<string, Uint8Array> {
  const stored = mapValues(weights, (array) => castWeights(array, dtype));
  return {
    [modelFiles.weights]: safetensorsBytes(Object.entries(stored), [["format", "pt"]]),
    ...(tokenizerFile && { [modelFiles.tokenizer]: tokenizerFile }),
    [modelFiles.card]: jsonBytes(card),
  };
}

function openPictures(given: TrainingPictures): {
  readonly data: DataSet;
  readonly shape: PictureShape;
} {
  if ("data" in given) return given;
  const data = pictureSet(given.pictures, { classes: given.classes });
  return { data, shape: data.shape };
}

function validationLoader(
  { validation }: ModelOptions,
  shape: PictureShape,
  batch: number,
): Loader | undefined {
  if (!validation) return undefined;
  const { data, shape: other } = openPictures(validation);
  if (sizeOf(other) !== sizeOf(shape)) {
    throw new UsageError(
      `The validation pictures are ${sizeOf(other)}, but the training pictures ${sizeOf(shape)} (width, height, channels); bring them to the same size.`,
    );
  }
  const layout = pictureLayout(shape);
  return directLoader(data, { layout, batch, seed: 0, flip: false, from: 0 });
}

function sizeOf({ width, height, channels }: PictureShape): string {
  return [width, height, channels].join("×");
}

const trainingFields = Object.keys(trainingSchema.shape).filter((name) => name !== "from");

const otherOptions = [
  "backend",
  "network",
  "recipe",
  "weights",
  "extractor",
  "words",
  "name",
  "sampling",
  "seed",
  "flip",
  "validation",
  "resumeFrom",
  "checkpoint",
  "reduce",
  "onEvent",
  "signal",
  "pictures",
  "classes",
  "data",
  "shape",
];

/** @throws UsageError for an option that does not exist, with the nearest one that does */
function requireKnownOptions(options: object): void {
  requireKind("trainModel: the options", options, kinds.object);
  const known = [...trainingFields, ...otherOptions];
  const unknown = Object.keys(options).find((name) => !known.includes(name));
  if (unknown === undefined) return;
  throw new UsageError(
    `trainModel: there is no option ${quote(unknown)}; ${didYouMean(unknown, known)}`,
  );
}

/** The options as a config, with the defaults of YAML configs filled in. */
function configOf(options: TrainModelOptions, { height, width, channels }: PictureShape) {
  const { network, recipe, optimizer, validation, checkpoint, name, seed, sampling } = options;
  const { steps } = options;
  // A warm-up of 100 steps, as in YAML configs, would be most of a short training.
  const warmUp = options.warmUp ?? Math.min(100, Math.floor((steps ?? 1000) / 10));
  const given = {
    name,
    seed,
    sampling,
    picture: { size: [height, width], channels },
    model: isWhole(network) ? undefined : network,
    diffusion: recipe,
    training: {
      ...pick<unknown>({ ...options }, (field) => trainingFields.includes(field)),
      warmUp,
      optimizer: isOptimizer(optimizer) ? undefined : optimizer,
    },
  };
  const schema = trainingConfigSchema().omit({ data: true });
  const parsed = schema.safeParse(given, { reportInput: true });
  if (!parsed.success) {
    const { message } = explainIssues(parsed.error.issues, schema);
    // Callers give these fields without the sections of a YAML config.
    const shown = message.replaceAll('"training.', '"').replaceAll('in "model"', 'in "network"');
    throw new UsageError(`trainModel: ${shown}`);
  }
  const { steps: every = 500, batches = 8 } = validation ?? {};
  return {
    ...parsed.data,
    checkpoint: { minutes: checkpoint?.minutes ?? Infinity, steps: checkpoint?.steps, keep: 1 },
    validation: validation && { steps: every, batches },
  };
}

/** A network config that is complete already; undefined for settings, which follow the pictures. */
function wholeNetwork(network: ModelOptions["network"]): NetworkConfig | undefined {
  if (!isWhole(network)) return undefined;
  const parsed = networkSchema().safeParse(network, { reportInput: true });
  if (parsed.success) return parsed.data;
  throw new UsageError(`network: ${explainIssues(parsed.error.issues, networkSchema()).message}`);
}

function isWhole(network: ModelOptions["network"]): boolean {
  return network !== undefined && "size" in network;
}

/** @throws UsageError when a complete network does not fit the pictures */
function requireFit(
  { size, channels, condition, prompt, tokens }: NetworkConfig,
  shape: PictureShape,
  { info: { classes, captioned } }: DataSource,
  words: WordTable | undefined,
): void {
  const [height, width] = size;
  if (height !== shape.height || width !== shape.width || channels !== shape.channels) {
    throw new UsageError(
      `The network draws ${width}×${height} pixels of ${channels} channels, but the pictures have ${shape.width}×${shape.height} of ${shape.channels}; set network.size to [${shape.height}, ${shape.width}] and network.channels to ${shape.channels}.`,
    );
  }
  if (tokens) {
    throw new UsageError(
      "The network draws codes of a tokenizer, but trainModel trains on pixels; leave network.tokens out, or train from a config with latents.autoencoder.",
    );
  }
  if (condition.kind === "class" && (classes?.length ?? 0) > condition.classes) {
    throw new UsageError(
      `The network has ${condition.classes} classes, but the pictures ${classes!.length}; set network.condition.classes to that number.`,
    );
  }
  if (condition.kind === "class" && !classes) {
    throw new UsageError(
      'The network takes classes, but the pictures have no labels; give each a label, or set network.condition to { kind: "none" }.',
    );
  }
  if (
    condition.kind === "text" &&
    !(captioned && prompt && words?.tokenizer.size === prompt.vocabulary)
  ) {
    throw new UsageError(
      captioned
        ? `The network reads prompts, which takes a prompt encoder (network.prompt) and a word table of the same vocabulary (words); give both.`
        : "The network takes prompts, but the pictures have no captions; give each a caption.",
    );
  }
}

function givenWeights(weights: Arrays): (params: ParamsRoot) => Promise<ReadWeights> {
  return async ({ declared }) => {
    for (const [name, { tensor }] of declared) {
      const needed = formatShape(tensor.shape);
      const shape = weights[name]?.shape;
      if (shape && formatShape(shape) === needed) continue;
      throw new UsageError(
        `weights has ${shape ? `${name} of shape ${formatShape(shape)}` : `no ${name}`}, but the network needs ${needed}; give the weights of a network of the same config.`,
      );
    }
    return async (names) => recordOf(names, (name) => weights[name]!);
  };
}

function isOptimizer(optimizer: ModelOptions["optimizer"]): optimizer is Optimizer {
  return optimizer !== undefined && "update" in optimizer;
}
