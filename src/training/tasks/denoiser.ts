/**
 * Training a network to denoise: its loss, the inputs of a batch, the validation loss, and the card of the model that comes
 * out. All weights of a network are trained here; `lora-node.ts` trains a LoRA with the same parts.
 */
import { type Loader, takeBatches } from "../../data/loading/batch-reader.ts";
import type { Example } from "../../diffusion/losses.ts";
import { recipeLoss } from "../../diffusion/recipe.ts";
import { type AnyRecipe, tokenRecipeLoss } from "../../diffusion/discrete/discrete.ts";
import { UsageError } from "../../engine/errors.ts";
import { input } from "../../engine/graph/functional.ts";
import { graphOf } from "../../engine/graph/graph.ts";
import type { Tensor } from "../../engine/graph/tensor.ts";
import { countElements, countMultiplyAdds } from "../../engine/passes/cost.ts";
import { fork, type RandomKey, randomKey } from "../../engine/random/random.ts";
import { mapValues, pick, recordOf } from "../../engine/records.ts";
import type { Backend } from "../../engine/runtime/backend.ts";
import { arrayWeights } from "../../engine/runtime/stored-weight.ts";
import { type Card, wholeSampling } from "../../models/card.ts";
import {
  canDrop,
  type NetworkConfig,
  networkInput,
  promptScope,
  traceNetwork,
} from "../../models/network.ts";
import { type LoraOptions, withLora } from "../../nn/lora.ts";
import { createParams, initialize, type ParamsRoot } from "../../nn/params.ts";
import type { Tokenizer } from "../../text/tokenizer.ts";
import {
  type DenoiserConfig,
  type FramesConfig,
  pictureShape,
  type TrainingConfig,
} from "../config/config.ts";
import { conditionOf, networkOf } from "../config/network.ts";
import type { DataSource, Measures, Task, Trained } from "../loop.ts";
import type { Arrays } from "../step.ts";
import { configuredFeatures, type FeatureLosses } from "./feature-losses.ts";
import { type ExampleOptions, examplesOf, timesOf } from "./examples.ts";
import { refuseMovingCanvas, requireLearnableClips } from "./clips.ts";
import { checkToldNoStep, meanFlowObjective } from "./mean-flow.ts";
import { configuredRouting, type Routing } from "./routing.ts";
import { matchCondition, requireCondition, requireKnownSamples, requireProcess } from "./checks.ts";
import { captionWarnings } from "./captions.ts";
import { sampledConditions } from "./samples.ts";
import type { WordTable } from "./words.ts";

/** The fields of a config that a denoiser uses; the others say where data comes from and results go. */
export type DenoiserSettings = Pick<
  DenoiserConfig,
  "name" | "seed" | "latents" | "diffusion" | "sampling" | "training"
> & {
  readonly picture: FramesConfig["picture"];
  readonly samples: Pick<DenoiserConfig["samples"], "of">;
  readonly validation?: Pick<DenoiserConfig["validation"], "batches" | "times"> | undefined;
};

/** A denoiser in training, and what follows from its averaged weights. */
export interface DenoiserTask extends Task {
  readonly tokenizer: Tokenizer | undefined;
  /** Prompts or classes that its samples show; undefined for a network that takes neither. */
  readonly sampled: readonly string[] | undefined;
  /** The card of the model after a length of training. */
  cardAt(trained: Trained): Card;
  /** All weights of the network, given the averages of the trained ones. */
  allWeights(averages: Arrays): Promise<Arrays>;
}

export interface WholeModelOptions {
  readonly backend: Backend;
  /** The name of the model, unless the config names it. */
  readonly name: string;
  /** The network; by default the one that the config describes. */
  readonly network?: NetworkConfig | undefined;
  /** The tokenizer and word vectors of a network that reads prompts. */
  readonly words?: WordTable | undefined;
  /** Weights of the extractor whose features `training.features` compares; drawn from the seed by default. */
  readonly extractor?: Arrays | undefined;
  /** First values of the weights; drawn from the seed by default. */
  readonly weights?: ((params: ParamsRoot) => Promise<ReadWeights>) | undefined;
}

/** Reads or draws first values of the named weights. */
export type ReadWeights = (names: readonly string[]) => Promise<Arrays>;

/**
 * A task that trains all weights of a network.
 *
 * @throws UsageError when network, data and diffusion process do not fit each other
 */
export async function wholeModelTask(
  config: DenoiserSettings & Pick<TrainingConfig, "model">,
  source: DataSource,
  { backend, name, words, ...given }: WholeModelOptions,
): Promise<DenoiserTask> {
  const { model, training, diffusion } = config;
  requireProcess(config, source);
  requireLearnableClips(config, source);
  const network =
    given.network ??
    networkOf(
      model,
      source.image,
      source.info,
      words && { vocabulary: words.tokenizer.size, width: words.vectors.shape[1]! },
    );
  const features = configuredFeatures(config, network, given.extractor);
  const routing = configuredRouting(training, network);
  const { loss, params } = objective(network, diffusion, { ...training, features, routing });
  const beside = [features?.projection, routing?.own].flatMap((root) => root ?? []);
  const isFixed = (key: string) =>
    words !== undefined && !model.prompt.trainWords && key === wordsKey;
  const names = [...params.declared.keys()];
  const trained = names.filter((key) => !isFixed(key));
  const read = given.weights
    ? await given.weights(params)
    : drawnWeights(params, fork(randomKey(config.seed), "weights"), words);
  const fixed = await read(names.filter(isFixed));
  return {
    ...denoiserParts(
      {
        config,
        network,
        tokenizer: words?.tokenizer,
        classNames: source.info.classes,
        routing,
        allWeights: async (averages) => ({
          ...pick(averages, (key) => params.declared.has(key)),
          ...fixed,
        }),
      },
      source,
      { backend, name },
    ),
    kind: "model",
    loss,
    trained: {
      ...recordOf(trained, (key) => params.declared.get(key)!.tensor),
      ...mapValues(
        Object.fromEntries(beside.flatMap(({ declared }) => [...declared])),
        ({ tensor }) => tensor,
      ),
    },
    initial: async () => ({
      ...(await read(trained)),
      ...Object.assign(
        {},
        ...beside.map((root) => initialize(root, fork(randomKey(config.seed), "features"))),
      ),
    }),
    fixed: arrayWeights({ ...fixed, ...features?.fixed }),
    parameters: countElements(names.map((key) => params.declared.get(key)!.tensor)),
  };
}

/** The condition that a config asks for, or that the data suggests. */
export function conditionIn(
  { model }: Pick<TrainingConfig, "model">,
  { info }: Pick<DataSource, "info">,
): "none" | "class" | "text" {
  return model.condition ?? conditionOf(info);
}

/** Draws the first values of weights by their initializers; word vectors come from their table. */
export function drawnWeights(
  params: ParamsRoot,
  key: RandomKey,
  words: WordTable | undefined,
): ReadWeights {
  return async (names) => {
    const drawn = names.filter((name) => !(words && name === wordsKey));
    const declared = new Map(drawn.map((name) => [name, params.declared.get(name)!]));
    const values = initialize({ declared }, key);
    return recordOf(names, (name) => values[name] ?? words!.vectors);
  };
}

/** The key of the prompt encoder's word vectors, which are read from a file instead of being drawn. */
const wordsKey = `${promptScope}.words`;

export interface Denoiser {
  readonly config: DenoiserSettings;
  /** The config of the network that learns. */
  readonly network: NetworkConfig;
  readonly tokenizer: Tokenizer | undefined;
  /** The class names of a class-conditional network. */
  readonly classNames: readonly string[] | undefined;
  /** The patches that a step leaves out; none unless given. */
  readonly routing?: Routing | undefined;
  /** How errors name what has these classes; "The training" by default. */
  readonly owner?: string;
  readonly allWeights: DenoiserTask["allWeights"];
}

/**
 * The parts of a task that are the same for whole models and LoRA.
 *
 * @throws UsageError when samples are asked for that the network cannot draw, or the data does not have its condition
 */
export function denoiserParts(
  { config, network, tokenizer, classNames, routing, owner, allWeights }: Denoiser,
  source: DataSource,
  { backend, name }: { readonly backend: Backend; readonly name: string },
): Pick<
  DenoiserTask,
  | "inputs"
  | "validator"
  | "multiplyAdds"
  | "cardAt"
  | "allWeights"
  | "tokenizer"
  | "warnings"
  | "sampled"
> {
  const { diffusion: recipe, samples, training, sampling } = config;
  requireKnownSamples(samples.of, network, classNames);
  refuseMovingCanvas(network, owner ?? name);
  // A LoRA draws with the settings of its base.
  if (owner === undefined) requireCondition(config, network);
  const examples = {
    network,
    recipe,
    tokenizer,
    classes: matchCondition(network, source.info, classNames, owner),
    dropCondition: training.dropCondition,
  };
  const { coder } = source;
  // What a LoRA is trained on has learned that before.
  const neverDropped = owner === undefined && canDrop(network) && training.dropCondition === 0;
  if (neverDropped && (sampling.guidance ?? 1) !== 1) {
    throw new UsageError(
      `sampling.guidance is ${sampling.guidance}, but training.dropCondition is 0, so the model does not learn to draw without a condition, which guidance needs; set guidance to 1, or dropCondition to a share such as 0.1.`,
    );
  }
  return {
    tokenizer,
    sampled: samples.of ?? sampledConditions(network, source),
    warnings: tokenizer ? captionWarnings(source, tokenizer, network, training) : [],
    allWeights,
    multiplyAdds: () =>
      countMultiplyAdds(
        graphOf({ output: traceNetwork(network, { route: routing?.route }).output }),
        1,
      ),
    inputs(batch, key, latents) {
      const own = examplesOf(batch, key, { ...examples, latents });
      return { ...own, ...routing?.inputs(own["x0"]!.shape[0]!, key) };
    },
    async validator(loader, latents) {
      const classes = matchCondition(network, loader.info, classNames, owner);
      const options = { ...examples, classes, latents };
      const measure = await validationLoss(loader, config, options, backend);
      return async (averages) => measure(await allWeights(averages));
    },
    cardAt: ({ steps, images }) => ({
      format: "patchwise",
      version: 1,
      name: config.name ?? name,
      network,
      diffusion: recipe,
      picture: pictureShape(config),
      ...(coder?.kind === "kl" && { latents: { autoencoder: coder.config } }),
      ...(coder?.kind === "vq" && { tokens: { tokenizer: coder.config } }),
      ...(network.condition.kind === "class" && classNames && { classes: [...classNames] }),
      sampling: {
        ...wholeSampling(sampling, recipe),
        ...(config.picture.fps !== undefined && { fps: config.picture.fps }),
        ...(neverDropped && { guidance: 1, guidable: false as const }),
      },
      trained: { steps, images },
    }),
  };
}

export interface Objective {
  /** The mean loss of a batch, a float scalar. */
  readonly loss: Tensor;
  readonly params: ParamsRoot;
}

export interface ObjectiveOptions {
  /** Computes the activations of each block again in the backward pass, which saves memory. */
  readonly recompute: boolean;
  /** The LoRA to train in place of the network's own weights. */
  readonly lora?: LoraOptions | undefined;
  /** Losses to add to the diffusion loss. */
  readonly features?: FeatureLosses | undefined;
  /** The patches that some blocks do not see; all blocks see all by default. */
  readonly routing?: Pick<Routing, "route"> | undefined;
}

/**
 * Traces the loss of a network under a recipe, with a LoRA on its weights if one is given.
 *
 * The inputs are `x0` [B, C, H, W], or codes [B, h, w]; the random values that the recipe draws; and the condition.
 *
 */
export function objective(
  network: NetworkConfig,
  recipe: AnyRecipe,
  { recompute, lora, features, routing }: ObjectiveOptions,
): Objective {
  const params = lora ? withLora(createParams(), lora) : createParams();
  let tapped: Readonly<Record<string, Tensor>> = {};
  const predict = (x: Tensor, t: Tensor) => {
    const route = routing?.route;
    const options = { drop: canDrop(network), recompute, taps: features?.taps, route };
    const { output, taps } = traceNetwork(network, { from: { x, t }, ...options }, params);
    tapped = taps;
    return output;
  };
  const further =
    features &&
    (({ x0, level }: Example, predicted: Tensor) =>
      features.loss({ clean: x0, predicted, signal: level.alpha, tapped }));
  const [shape, dtype] = networkInput(network);
  const x0 = input("x0", shape, dtype);
  if (recipe.process === "flow" && recipe.meanFlow) {
    return {
      loss: meanFlowObjective(network, recipe, x0, { recompute, params, features }),
      params,
    };
  }
  checkToldNoStep(network);
  const losses =
    recipe.process === "tokens"
      ? tokenRecipeLoss(recipe, x0, predict)
      : recipeLoss(recipe, x0, predict, network.learnedVariance, further, timesOf(network));
  return { loss: losses.mean(), params };
}

/**
 * Reads the validation pictures, closes their loader, and returns a function that computes the loss of weights on them,
 * always with the same noise.
 */
async function validationLoss(
  loader: Loader,
  { training, diffusion, validation }: DenoiserSettings,
  options: ExampleOptions,
  backend: Backend,
): Promise<(weights: Arrays) => Promise<Measures>> {
  const { batches: count, times } = validation!;
  const { recipe } = options;
  if (times && recipe.process !== "flow") {
    throw new UsageError(
      `validation.times is given, but diffusion.process is ${recipe.process}, whose times are its steps; leave it out.`,
    );
  }
  const measured = {
    ...options,
    recipe: times && recipe.process === "flow" ? { ...recipe, times } : recipe,
    dropCondition: 0,
  };
  const batches = await takeBatches(loader, count, (batch, i) =>
    examplesOf(batch, fork(randomKey(0, 1), i), measured),
  );
  const { loss } = objective(options.network, diffusion, { recompute: false });
  return async (weights) => {
    const program = await backend.compile(graphOf({ loss }), {
      weights: arrayWeights(weights),
      ...(training.threads && { threads: training.threads }),
    });
    let sum = 0;
    for (const inputs of batches) sum += Number((await program.run(inputs))["loss"]!.data[0]);
    await program.dispose();
    return { loss: sum / count };
  };
}
