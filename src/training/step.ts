/**
 * One training step as one program: forward, loss, gradients, clipping, optimizer and moving average.
 * Its weights, moments and averages are state, which stays on the device from step to step.
 */
import { PatchwiseError } from "../engine/errors.ts";
import { input, where } from "../engine/graph/functional.ts";
import { gradient } from "../engine/gradients/gradient.ts";
import { type Graph, graphOf, leafName } from "../engine/graph/graph.ts";
import { type NdArray, scalar, zeros } from "../engine/arrays/ndarray.ts";
import type { Backend, CompileOptions } from "../engine/runtime/backend.ts";
import { resolve } from "../engine/graph/shape.ts";
import type { Tensor } from "../engine/graph/tensor.ts";
import { mapTree, type Optimizer, type Tree } from "./optimizers.ts";

export interface TrainingStepOptions {
  /** A float scalar. */
  readonly loss: Tensor;
  /** The weights to train, by checkpoint key. */
  readonly params: Tree;
  readonly optimizer: Optimizer;
  /**
   * Keep a moving average of the weights: average ← decay·average + (1 − decay)·weight; a number, or what
   * follows from the step's number, a float scalar from 1.
   */
  readonly emaDecay?: number | ((step: Tensor) => Tensor) | undefined;
  /** Gradients longer than this, all taken as one vector, are scaled to this length (Pascanu et al., 2013). */
  readonly clip?: number | undefined;
  /** Of how many batches a step takes the mean gradient, one run each; 1 unless given. */
  readonly accumulate?: number | undefined;
}

export interface TrainingStep {
  /** Takes the loss's inputs and `step` (a float scalar, from 1); returns `loss`, and `gradientNorm` where it clips. */
  readonly graph: Graph;
  readonly state: Readonly<Record<string, string>>;
  /** Runs in a step. */
  readonly accumulate: number;
  /** First values of the whole state, from those of the weights. */
  initialState(
    backend: Backend,
    weights: Readonly<Record<string, NdArray>>,
  ): Promise<Record<string, NdArray>>;
}

/** Names of the state beside the weights themselves. */
export const optimizerPrefix = "optimizer/";
export const emaPrefix = "ema/";
/** Sums of gradients inside a step; between steps they mean nothing. */
const gatheredPrefix = "gathered/";

/**
 * Builds the step.
 *
 * @example
 * const step = trainingStep({ loss, params, optimizer: adamW({ learningRate: 1e-4 }) });
 * const program = await backend.compile(step.graph, {
 *   state: step.state,
 *   initialState: await step.initialState(backend, weights),
 * });
 */
export function trainingStep(options: TrainingStepOptions): TrainingStep {
  const { loss, params, optimizer, emaDecay, clip, accumulate = 1 } = options;
  const step = input("step", []);
  const names = Object.keys(params);
  const gradients = gradient(loss, Object.values(params));
  const own = Object.fromEntries(names.map((name, i) => [name, gradients[i]!]));
  const gathered = accumulate > 1 ? gather(own, accumulate) : undefined;
  const whole = gathered ?? own;
  const norm = clip === undefined ? undefined : globalNorm(whole);
  // As PyTorch has it, with 1e-6 against a division by zero.
  const scale = norm?.add(1e-6).reciprocal().mul(clip!).minimum(1);
  const grads = scale ? mapTree(whole, (g) => g.mul(scale)) : whole;

  const first = optimizer.init(params);
  const moments = held(optimizerPrefix, first);
  const [newWeights, newMoments] = optimizer.update(grads, moments, params, step);
  const decay = typeof emaDecay === "function" ? emaDecay(step) : emaDecay;
  const averages = decay === undefined ? {} : held(emaPrefix, params);
  const before = {
    ...params,
    ...prefixed(optimizerPrefix, moments),
    ...prefixed(emaPrefix, averages),
  };
  const after: Tree = {
    ...newWeights,
    ...prefixed(optimizerPrefix, newMoments),
    ...(decay !== undefined && prefixed(emaPrefix, averaged(averages, newWeights, decay))),
  };
  const next = gathered
    ? { ...onlyLast(before, after), ...prefixed(gatheredPrefix, gathered) }
    : after;
  return {
    graph: graphOf({ loss, ...(norm && { gradientNorm: norm }), ...prefixed("next/", next) }),
    state: Object.fromEntries(Object.keys(next).map((name) => [name, `next/${name}`])),
    accumulate,
    async initialState(backend, values) {
      const firstMoments = Object.keys(first).length > 0 ? await computed(backend, first) : {};
      return {
        ...values,
        ...prefixed(optimizerPrefix, firstMoments),
        ...(decay !== undefined && prefixed(emaPrefix, values)),
        ...(gathered && prefixed(gatheredPrefix, zerosFor(params))),
      };
    },
  };
}

/** Values of tensors that depend on no input. */
async function computed(backend: Backend, tree: Tree): Promise<Record<string, NdArray>> {
  const program = await backend.compile(graphOf(tree));
  const values = await program.run({});
  await program.dispose();
  return values;
}

/** Inputs in the form of a tree. */
function held(prefix: string, tree: Tree): Tree {
  return mapTree(tree, ({ shape, dtype }, name) => input(prefix + name, shape, dtype));
}

/** Whether a run is the first, and the last, of its step: 1 or 0, as float scalars. */
const firstOfStep = "first";
const lastOfStep = "last";

/** The sum so far of a step's gradients, each divided by their number. */
function gather(grads: Tree, count: number): Tree {
  const carry = input(firstOfStep, []).neg().add(1);
  const sums = held(gatheredPrefix, grads);
  return mapTree(grads, (g, name) => sums[name]!.mul(carry).add(g.mul(1 / count)));
}

/** What changes in the last run of a step only. */
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

function zerosFor(params: Tree): Record<string, NdArray> {
  return Object.fromEntries(
    Object.entries(params).map(([name, { shape, dtype }]) => [
      name,
      zeros(dtype, resolve(shape, undefined)),
    ]),
  );
}

/** What a step tells. */
export interface StepResult {
  /** Before the update; the mean over the step's batches. */
  readonly loss: number;
  /** Length of the gradient before it was clipped, where it is. */
  readonly gradientNorm: number | undefined;
}

/** A training program and the number of its next step. */
export interface Trainer {
  /** One step on a batch, or on as many as a step accumulates. */
  step(...batches: readonly Readonly<Record<string, NdArray>>[]): Promise<StepResult>;
  /** Weights, moments and averages by name. */
  readState(): Promise<Record<string, NdArray>>;
  dispose(): Promise<void>;
}

/** Where an interrupted training goes on. */
export interface TrainerState {
  /** Steps done. */
  readonly step: number;
  /** What `readState` gave then. */
  readonly state: Readonly<Record<string, NdArray>>;
}

/** Compiles a step and runs it from the given weights, or from where it was interrupted. */
export async function createTrainer(
  backend: Backend,
  step: TrainingStep,
  from: Readonly<Record<string, NdArray>> | TrainerState,
  options: Pick<CompileOptions, "threads" | "weights"> = {},
): Promise<Trainer> {
  const resumed = isTrainerState(from);
  const program = await backend.compile(step.graph, {
    ...options,
    state: step.state,
    initialState: resumed ? from.state : await step.initialState(backend, from),
  });
  let count = resumed ? from.step : 0;
  // Some optimizers do not ask for it.
  const countsSteps = step.graph.inputs.some((leaf) => leafName(leaf) === "step");
  return {
    async step(...batches) {
      if (batches.length !== step.accumulate) {
        throw new PatchwiseError(
          `A step was given ${batches.length} batches, but accumulates ${step.accumulate}; give as many.`,
        );
      }
      count++;
      let sum = 0;
      let gradientNorm: number | undefined;
      for (const [i, inputs] of batches.entries()) {
        const position = step.accumulate > 1 && {
          [firstOfStep]: scalar(i === 0 ? 1 : 0),
          [lastOfStep]: scalar(i === batches.length - 1 ? 1 : 0),
        };
        const number = countsSteps && { step: scalar(count) };
        const told = await program.run({ ...inputs, ...position, ...number });
        sum += Number(told["loss"]!.data[0]);
        gradientNorm = told["gradientNorm"] && Number(told["gradientNorm"].data[0]);
      }
      return { loss: sum / batches.length, gradientNorm };
    },
    readState: () => program.readState(),
    dispose: () => program.dispose(),
  };
}

function isTrainerState(
  from: Readonly<Record<string, NdArray>> | TrainerState,
): from is TrainerState {
  return typeof from["step"] === "number";
}

function prefixed<T>(prefix: string, values: Readonly<Record<string, T>>): Record<string, T> {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [prefix + name, value]));
}
