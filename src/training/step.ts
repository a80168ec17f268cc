/**
 * A training step: forward pass, loss, gradients, clipping, optimizer and moving average of the weights.
 *
 * It runs as one program whose weights, moments and averages are state, which stays on the device from step to step. Where
 * something has to happen between gradient and update, such as an average over several machines, it runs as two programs.
 */
import { PatchwiseError } from "../engine/errors.ts";
import { input, where } from "../engine/graph/functional.ts";
import { gradient } from "../engine/gradients/gradient.ts";
import { type Graph, graphOf, leafName } from "../engine/graph/graph.ts";
import { type NdArray, scalar, zeros } from "../engine/arrays/ndarray.ts";
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
  /** Traces the same step as two graphs. */
  halves(): StepHalves;
  /** Sums of gradients to begin with, which are state within a step only. */
  readonly sums: () => Arrays;
  /** Computes the first values of the rest of the state from those of the weights. */
  initialState(backend: Backend, weights: Arrays): Promise<Record<string, NdArray>>;
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
const gatheredPrefix = "gathered/";
const gradientPrefix = "gradient/";
const weightPrefix = "weight/";

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
    halves() {
      const half = updated(held(gradientPrefix, own), options);
      const weights = pick(half.after, (name) => name in params);
      const rest = pick(half.after, (name) => !(name in params));
      return {
        gradient: graphOf({ loss, ...prefixed(gradientPrefix, own) }),
        update: graphOf({
          ...half.gradientNorm,
          ...prefixed(weightPrefix, weights),
          ...prefixed("next/", rest),
        }),
        state: mapValues(rest, (_, name) => `next/${name}`),
      };
    },
    sums: () => (gathered ? prefixed(gatheredPrefix, mapValues(params, zeroArray)) : {}),
    async initialState(backend, values) {
      const first = optimizer.init(params);
      const moments = Object.keys(first).length > 0 ? await computed(backend, first) : {};
      return {
        ...values,
        ...prefixed(optimizerPrefix, moments),
        ...(options.emaDecay !== undefined && prefixed(emaPrefix, values)),
      };
    },
  };
}

/** Traces the update of weights, moments and averages by the gradients of a whole step. */
function updated(
  gradients: Tree,
  { params, optimizer, emaDecay, clip }: TrainingStepOptions,
): { readonly before: Tree; readonly after: Tree; readonly gradientNorm: Tree } {
  const step = input("step", []);
  const norm = clip === undefined ? undefined : globalNorm(gradients);
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
    gradientNorm: norm ? { gradientNorm: norm } : {},
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
const firstOfStep = "first";
const lastOfStep = "last";

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
  const squares = Object.values(grads).map((g) => g.square().sum());
  return squares.reduce((sum, square) => sum.add(square)).sqrt();
}

function averaged(averages: Tree, weights: Tree, decay: number | Tensor): Tree {
  const rest = typeof decay === "number" ? 1 - decay : decay.neg().add(1);
  return mapTree(averages, (average, name) => average.mul(decay).add(weights[name]!.mul(rest)));
}

function zeroArray({ shape, dtype }: Tensor): NdArray {
  return zeros(dtype, resolve(shape, undefined));
}

export interface StepResult {
  /** The loss before the update, as the mean over the step's batches. */
  readonly loss: number;
  /** The norm of the gradient before it was clipped; undefined for a step without `clip`. */
  readonly gradientNorm: number | undefined;
}

/** Runs training steps. */
export interface Trainer {
  /** Does one step on a batch, or on as many batches as a step accumulates. */
  step(...batches: readonly Arrays[]): Promise<StepResult>;
  /** Copies of weights, moments and averages by name. */
  readState(): Promise<Record<string, NdArray>>;
  /** Replaces weights, moments and averages by name; values that are not given stay as they are. */
  writeState(values: Arrays): Promise<void>;
  dispose(): Promise<void>;
}

/** The state from which an interrupted training resumes. */
export interface TrainerState {
  /** Steps done. */
  readonly step: number;
  /** The result of `readState` at that step. */
  readonly state: Arrays;
}

/**
 * Turns the gradients of this process into those to update with, both by name of the weight. With copies of a model on
 * several machines, it returns their mean.
 */
export type ReduceGradients = (gradients: Arrays) => Promise<Arrays>;

export interface TrainerOptions extends Pick<CompileOptions, "threads" | "weights"> {
  /** Called once a step, between gradient and update. Without it, a step runs as one program. */
  readonly reduce?: ReduceGradients | undefined;
}

/** Compiles a step that starts from the given weights, or from the state of an interrupted training. */
export async function createTrainer(
  backend: Backend,
  step: TrainingStep,
  from: Arrays | TrainerState,
  { reduce, ...given }: TrainerOptions = {},
): Promise<Trainer> {
  const options = { ...step.stored, ...given };
  const resumed = isTrainerState(from);
  const state = resumed ? from.state : await step.initialState(backend, from);
  const runner = reduce
    ? await openHalves(backend, step, state, reduce, options)
    : await openWhole(backend, step, state, options);
  let count = resumed ? from.step : 0;
  return {
    ...runner,
    async step(...batches) {
      if (batches.length !== step.accumulate) {
        throw new PatchwiseError(
          `A step was given ${batches.length} batches, but accumulates ${step.accumulate}; give as many.`,
        );
      }
      count++;
      return runner.run(batches, count);
    },
  };
}

interface Runner extends Omit<Trainer, "step"> {
  run(batches: readonly Arrays[], count: number): Promise<StepResult>;
}

/** A step as one program, which holds the whole state. */
async function openWhole(
  backend: Backend,
  { graph, state, accumulate, sums }: TrainingStep,
  from: Arrays,
  options: TrainerOptions,
): Promise<Runner> {
  const initialState = { ...from, ...sums() };
  const program = await backend.compile(graph, { ...options, state, initialState });
  return {
    async run(batches, count) {
      let sum = 0;
      let gradientNorm: number | undefined;
      for (const [i, inputs] of batches.entries()) {
        const position = accumulate > 1 && {
          [firstOfStep]: scalar(i === 0 ? 1 : 0),
          [lastOfStep]: scalar(i === batches.length - 1 ? 1 : 0),
        };
        const outputs = await program.run({ ...inputs, ...position, ...stepInput(graph, count) });
        sum += numberIn(outputs["loss"]!);
        gradientNorm = outputs["gradientNorm"] && numberIn(outputs["gradientNorm"]);
      }
      return { loss: sum / batches.length, gradientNorm };
    },
    readState: async () => pick(await program.readState(), isKept),
    writeState: (values) => program.writeState(pick(values, isKept)),
    dispose: () => program.dispose(),
  };
}

/** A step as two programs: the weights are on the host between them, moments and averages stay in the second one. */
async function openHalves(
  backend: Backend,
  step: TrainingStep,
  state: Arrays,
  reduce: ReduceGradients,
  options: TrainerOptions,
): Promise<Runner> {
  const halves = step.halves();
  const isWeight = (name: string) => `${weightPrefix}${name}` in halves.update.outputs;
  let weights: Arrays = pick(state, isWeight);
  const gradientProgram = await backend.compile(halves.gradient, options);
  const updateProgram = await backend.compile(halves.update, {
    ...options,
    state: halves.state,
    initialState: pick(state, (name) => name in halves.state),
  });
  const updateInputs = new Set(halves.update.inputs.map(leafName));
  return {
    async run(batches, count) {
      const gathered: Record<string, NdArray> = {};
      let sum = 0;
      let settings: Arrays = {};
      for (const inputs of batches) {
        settings = pick(inputs, (name) => updateInputs.has(name));
        const outputs = await gradientProgram.run({
          ...pick(inputs, (name) => !updateInputs.has(name)),
          ...parametersOf(halves.gradient, weights),
        });
        sum += numberIn(outputs["loss"]!);
        for (const name of Object.keys(weights)) {
          const g = outputs[gradientPrefix + name]!;
          gathered[name] = batches.length === 1 ? g : added(gathered[name], g, 1 / batches.length);
        }
      }
      const outputs = await updateProgram.run({
        ...settings,
        ...prefixed(gradientPrefix, await reduce(gathered)),
        ...parametersOf(halves.update, weights),
        ...stepInput(halves.update, count),
      });
      weights = mapValues(weights, (_, name) => outputs[weightPrefix + name]!);
      const norm = outputs["gradientNorm"];
      return { loss: sum / batches.length, gradientNorm: norm && numberIn(norm) };
    },
    readState: async () => ({
      ...mapValues(weights, copyOf),
      ...(await updateProgram.readState()),
    }),
    async writeState(values) {
      await updateProgram.writeState(pick(values, (name) => !isWeight(name) && isKept(name)));
      weights = { ...weights, ...mapValues(pick(values, isWeight), copyOf) };
    },
    async dispose() {
      await gradientProgram.dispose();
      await updateProgram.dispose();
    },
  };
}

/** Returns true if a part of the state lasts from step to step; checkpoints of older versions hold the others too. */
function isKept(name: string): boolean {
  return !name.startsWith(gatheredPrefix);
}

/** sum + share · array, in the order of float32 operations that the single program has. */
function added(sum: NdArray | undefined, array: NdArray, share: number): NdArray {
  const before = sum?.data as Float32Array | undefined;
  const factor = Math.fround(share);
  const data = Float32Array.from(array.data as Float32Array, (value, i) =>
    before ? before[i]! + Math.fround(value * factor) : value * factor,
  );
  return { ...array, dtype: "float32", data };
}

/** The weights that a graph takes: a loss need not depend on all of them. */
function parametersOf({ parameters }: Graph, weights: Arrays): Arrays {
  const names = new Set(parameters.map(leafName));
  return pick(weights, (name) => names.has(name));
}

/** The number of the step, for optimizers that use it. */
function stepInput({ inputs }: Graph, count: number): Arrays {
  return inputs.some((leaf) => leafName(leaf) === "step") ? { step: scalar(count) } : {};
}

function copyOf(array: NdArray): NdArray {
  return { ...array, data: array.data.slice() };
}

function numberIn({ data }: NdArray): number {
  return Number(data[0]);
}

function isTrainerState(from: Arrays | TrainerState): from is TrainerState {
  return typeof from["step"] === "number";
}
