/**
 * One training step as one program: forward, loss, gradients, optimizer and moving average.
 * Its weights, moments and averages are state, which stays on the device from step to step.
 */
import { input } from "../engine/functional.ts";
import { gradient } from "../engine/gradient.ts";
import { type Graph, graphOf } from "../engine/graph.ts";
import { type NdArray, scalar } from "../engine/ndarray.ts";
import type { Backend, CompileOptions } from "../engine/runtime/backend.ts";
import type { Tensor } from "../engine/tensor.ts";
import { mapTree, type Optimizer, type Tree } from "./optimizer.ts";

export interface TrainingStepOptions {
  /** A float scalar. */
  readonly loss: Tensor;
  /** The weights to train, by checkpoint key. */
  readonly params: Tree;
  readonly optimizer: Optimizer;
  /** Keep a moving average of the weights: average ← decay·average + (1 − decay)·weight. */
  readonly emaDecay?: number;
}

export interface TrainingStep {
  /** Takes the loss's inputs and `step` (a float scalar, from 1); returns `loss`. */
  readonly graph: Graph;
  readonly state: Readonly<Record<string, string>>;
  /** First values of the whole state, from those of the weights. */
  initialState(
    backend: Backend,
    weights: Readonly<Record<string, NdArray>>,
  ): Promise<Record<string, NdArray>>;
}

/** Names of the state beside the weights themselves. */
export const optimizerPrefix = "optimizer/";
export const emaPrefix = "ema/";

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
export function trainingStep({
  loss,
  params,
  optimizer,
  emaDecay,
}: TrainingStepOptions): TrainingStep {
  const names = Object.keys(params);
  const gradients = gradient(loss, Object.values(params));
  const grads = Object.fromEntries(names.map((name, i) => [name, gradients[i]!]));
  const first = optimizer.init(params);
  const held = mapTree(first, ({ shape, dtype }, name) =>
    input(optimizerPrefix + name, shape, dtype),
  );
  const [weights, moments] = optimizer.update(grads, held, params, input("step", []));
  const averages =
    emaDecay === undefined
      ? {}
      : mapTree(weights, (weight, name) =>
          input(emaPrefix + name, weight.shape, weight.dtype)
            .mul(emaDecay)
            .add(weight.mul(1 - emaDecay)),
        );
  const next = {
    ...weights,
    ...prefixed(optimizerPrefix, moments),
    ...prefixed(emaPrefix, averages),
  };
  return {
    graph: graphOf({ loss, ...prefixed("next/", next) }),
    state: Object.fromEntries(Object.keys(next).map((name) => [name, `next/${name}`])),
    async initialState(backend, values) {
      const program = await backend.compile(graphOf(first));
      const firstMoments = await program.run({});
      await program.dispose();
      return {
        ...values,
        ...prefixed(optimizerPrefix, firstMoments),
        ...(emaDecay === undefined ? {} : prefixed(emaPrefix, values)),
      };
    },
  };
}

/** A training program and the number of its next step. */
export interface Trainer {
  /** One step on a batch; returns the loss before its update. */
  step(inputs: Readonly<Record<string, NdArray>>): Promise<number>;
  /** Weights, moments and averages by name. */
  readState(): Promise<Record<string, NdArray>>;
  dispose(): Promise<void>;
}

/** Compiles a step and runs it from the given weights. */
export async function createTrainer(
  backend: Backend,
  step: TrainingStep,
  weights: Readonly<Record<string, NdArray>>,
  options: Pick<CompileOptions, "threads"> = {},
): Promise<Trainer> {
  const program = await backend.compile(step.graph, {
    ...options,
    state: step.state,
    initialState: await step.initialState(backend, weights),
  });
  let count = 0;
  return {
    async step(inputs) {
      count++;
      const { loss } = await program.run({ ...inputs, step: scalar(count) });
      return Number(loss!.data[0]);
    },
    readState: () => program.readState(),
    dispose: () => program.dispose(),
  };
}

function prefixed<T>(prefix: string, values: Readonly<Record<string, T>>): Record<string, T> {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [prefix + name, value]));
}
