/**
 * A training step: forward pass, loss, gradients, clipping, optimizer and moving average of the weights.
 *
 * It runs as one program whose weights, moments and averages are state, which stays on the device from step to step. Where
 * something has to happen between gradient and update, such as an average over several machines, it runs as two programs.
 */
import { input, where } from "../engine/graph/functional.ts";
import { gradient } from "../engine/gradients/gradient.ts";
import { type Graph, graphOf } from "../engine/graph/graph.ts";
import { type NdArray, zeros } from "../engine/arrays/ndarray.ts";
import type { Backend, CompileOptions } from "../engine/runtime/backend.ts";
import { mapValues, pick, prefixed, recordOf } from "../engine/records.ts";
import { resolve } from "../engine/graph/shape.ts";
import type { Tensor } from "../engine/graph/tensor.ts";
import { mapTree, type Optimizer, type Tree } from "./optimizers.ts";

export type Arrays = Readonly<Record<string, NdArray>>;

export interface TrainingStepOptions {
  /** A float scalar. */
  readonly loss: Tensor;
  /** The weights to train, by checkpoint key. */
  readonly params: Tree;
  /** The update of the weights, such as `adamW({ learningRate: 1e-3 })`. */
  readonly optimizer: Optimizer;
  /**
   * Keeps a moving average of the weights: average ← decay·average + (1 − decay)·weight. The decay is a number in [0, 1), or a
   * function of the step's number, a float scalar that starts from 1.
   */
  readonly emaDecay?: number | ((step: Tensor) => Tensor) | undefined;
  /** The largest norm of the gradient of all weights together; longer ones are scaled down to it (Pascanu et al., 2013). */
  readonly clip?: number | undefined;
  /** The number of batches whose mean gradient makes one step, one run each; 1 by default. */
  readonly accumulate?: number | undefined;
}

export interface TrainingStep {
  /** Takes the inputs of the loss and `step` (a float scalar, from 1); returns `loss`, and `gradientNorm` if it clips. */
  readonly graph: Graph;
  readonly state: Readonly<Record<string, string>>;
  /** Weights that are not trained, which become part of the programs; those of `TrainerOptions` come before them. */
  readonly stored?: Pick<CompileOptions, "weights" | "prepack">;
  /** Runs in a step. */
  readonly accumulate: number;
  /** True if long gradients are scaled down. */
  readonly clips: boolean;
  /**
   * Traces the same step as two graphs.
   *
   * @param share the factor of the gradients that the first one returns; 1 by default
   */
  halves(share?: number): StepHalves;
  /** Traces the update of some of the weights. */
  part(names: readonly string[]): StepPart;
  /** Sums of gradients to begin with, which are state within a step only. */
  readonly sums: () => Arrays;
  /** Computes the first values of the rest of the state from those of the weights, or of some of them. */
  initialState(
    backend: Backend,
    weights: Arrays,
    names?: readonly string[],
  ): Promise<Record<string, NdArray>>;
}

/** The update of some weights, which are inputs: a rank keeps the moments and averages of its own part only. */
export interface StepPart {
  /** Takes `gradient/NAME`; returns `squares`, the sum of the squares of all of them. Undefined for a step that does not clip. */
  readonly norm: Graph | undefined;
  /** Takes `gradient/NAME`, `step`, and `norm` if the step clips; returns `weight/NAME`. */
  readonly update: Graph;
  /** The state of `update`: moments and averages. */
  readonly state: Readonly<Record<string, string>>;
}

/** A training step with room between gradient and update. The weights are inputs of both graphs. */
export interface StepHalves {
  /** Takes the inputs of the loss; returns `loss` and `gradient/NAME` for each weight. */
  readonly gradient: Graph;
  /** Takes `gradient/NAME` and `step`; returns `weight/NAME`, and `gradientNorm` if it clips. */
  readonly update: Graph;
  /** The state of `update`: moments and averages. */
  readonly state: Readonly<Record<string, string>>;
}

/** Names of the state other than the weights begin with these. */
export const optimizerPrefix = "optimizer/";
export const emaPrefix = "ema/";
/** Sums of gradients within a step. Between steps they mean nothing. */
export const gatheredPrefix = "gathered/";
export const gradientPrefix = "gradient/";
export const weightPrefix = "weight/";

/**
 * Traces a training step.
 *
 * @example
 * const step = trainingStep({ loss, params, optimizer: adamW({ learningRate: 1e-4 }), emaDecay: 0.999 });
 * const trainer = await createTrainer(backend, step, initialize(params, randomKey(0)));
 * const { loss } = await trainer.step({ x, noise, t });
 */
export function trainingStep(options: TrainingStepOptions): TrainingStep {
  const { loss, params, optimizer, accumulate = 1 } = options;
  const names = Object.keys(params);
  const gradients = gradient(loss, Object.values(params));
  const own = recordOf(names, (_, i) => gradients[i]!);
  const gathered = accumulate > 1 ? gather(own, accumulate) : undefined;
  const { before, after, gradientNorm } = updated(gathered ?? own, options);
  const next = gathered
    ? { ...onlyLast(before, after), ...prefixed(gatheredPrefix, gathered) }
    : after;
  return {
    graph: graphOf({ loss, ...gradientNorm, ...prefixed("next/", next) }),
    state: mapValues(next, (_, name) => `next/${name}`),
    accumulate,
    clips: options.clip !== undefined,
    halves(share = 1) {
      const shared = share === 1 ? gradients : gradient(loss.mul(share), Object.values(params));
      const half = updated(held(gradientPrefix, own), options);
      return {
        gradient: graphOf({
          loss,
          ...prefixed(
            gradientPrefix,
            recordOf(names, (_, i) => shared[i]!),
          ),
        }),
        ...updateOf(half, params),
      };
    },
    part(some) {
      const chosen = pick(params, (name) => some.includes(name));
      const given = held(gradientPrefix, chosen);
      const clips = options.clip !== undefined;
      return {
        norm: clips ? graphOf({ squares: squaresOf(given) }) : undefined,
        ...updateOf(
          updated(given, { ...options, params: chosen }, clips ? input("norm", []) : undefined),
          chosen,
        ),
      };
    },
    sums: () => (gathered ? prefixed(gatheredPrefix, mapValues(params, zeroArray)) : {}),
    async initialState(backend, weights, some = names) {
      const values = pick(weights, (name) => some.includes(name));
      const first = optimizer.init(pick(params, (name) => some.includes(name)));
      const moments = Object.keys(first).length > 0 ? await computed(backend, first) : {};
      return {
        ...weights,
        ...prefixed(optimizerPrefix, moments),
        ...(options.emaDecay !== undefined && prefixed(emaPrefix, values)),
      };
    },
  };
}

/** An update as a graph of its own, whose weights are no state. */
function updateOf({ after, gradientNorm }: Update, params: Tree): Omit<StepHalves, "gradient"> {
  const weights = pick(after, (name) => name in params);
  const rest = pick(after, (name) => !(name in params));
  return {
    update: graphOf({
      ...gradientNorm,
      ...prefixed(weightPrefix, weights),
      ...prefixed("next/", rest),
    }),
    state: mapValues(rest, (_, name) => `next/${name}`),
  };
}

interface Update {
  readonly before: Tree;
  readonly after: Tree;
  readonly gradientNorm: Tree;
}

/**
 * Traces the update of weights, moments and averages by the gradients of a whole step.
 *
 * @param given the norm of the gradients, if these are not all of them
 */
function updated(
  gradients: Tree,
  { params, optimizer, emaDecay, clip }: TrainingStepOptions,
  given?: Tensor,
): Update {
  const step = input("step", []);
  const norm = clip === undefined ? undefined : (given ?? globalNorm(gradients));
  // As in PyTorch, 1e-6 guards against a division by zero.
  const scale = norm?.add(1e-6).reciprocal().mul(clip!).minimum(1);
  const grads = scale ? mapTree(gradients, (g) => g.mul(scale)) : gradients;
  const moments = held(optimizerPrefix, optimizer.init(params));
  const [newWeights, newMoments] = optimizer.update(grads, moments, params, step);
  const decay = typeof emaDecay === "function" ? emaDecay(step) : emaDecay;
  const averages = decay === undefined ? {} : held(emaPrefix, params);
  return {
    before: { ...params, ...prefixed(optimizerPrefix, moments), ...prefixed(emaPrefix, averages) },
    after: {
      ...newWeights,
      ...prefixed(optimizerPrefix, newMoments),
      ...(decay !== undefined && prefixed(emaPrefix, averaged(averages, newWeights, decay))),
    },
    gradientNorm: norm && !given ? { gradientNorm: norm } : {},
  };
}

/** Computes tensors that depend on no input. */
async function computed(backend: Backend, tree: Tree): Promise<Record<string, NdArray>> {
  const program = await backend.compile(graphOf(tree));
  const values = await program.run({});
  await program.dispose();
  return values;
}

/** Inputs of the same names and shapes as the tensors of a tree. */
function held(prefix: string, tree: Tree): Tree {
  return mapTree(tree, ({ shape, dtype }, name) => input(prefix + name, shape, dtype));
}

/** Float scalars, 1 or 0, that say whether a run is the first and the last of its step. */
export const firstOfStep = "first";
export const lastOfStep = "last";

/** The sum of a step's gradients so far, each divided by their number. */
function gather(grads: Tree, count: number): Tree {
  const carry = input(firstOfStep, []).neg().add(1);
  const sums = held(gatheredPrefix, grads);
  return mapTree(grads, (g, name) => sums[name]!.mul(carry).add(g.mul(1 / count)));
}

/** The new values in the last run of a step, the old ones in the runs before it. */
function onlyLast(before: Tree, after: Tree): Tree {
  const last = input(lastOfStep, []).greater(0.5);
  return mapTree(after, (tensor, name) => where(last, tensor, before[name]!));
}

function globalNorm(grads: Tree): Tensor {
  return squaresOf(grads).sqrt();
}

function squaresOf(grads: Tree): Tensor {
  const squares = Object.values(grads).map((g) => g.square().sum());
  return squares.reduce((sum, square) => sum.add(square));
}

function averaged(averages: Tree, weights: Tree, decay: number | Tensor): Tree {
  const rest = typeof decay === "number" ? 1 - decay : decay.neg().add(1);
  return mapTree(averages, (average, name) => average.mul(decay).add(weights[name]!.mul(rest)));
}

function zeroArray({ shape, dtype }: Tensor): NdArray {
  return zeros(dtype, resolve(shape, undefined));
}
