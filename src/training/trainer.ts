/** Runs the training steps of `step.ts`: as one program, or as two with something between gradient and update. */
import { type NdArray, scalar } from "../engine/arrays/ndarray.ts";
import { PatchwiseError } from "../engine/errors.ts";
import { type Graph, leafName } from "../engine/graph/graph.ts";
import { mapValues, pick, prefixed } from "../engine/records.ts";
import type { Backend, CompileOptions } from "../engine/runtime/backend.ts";
import {
  type Arrays,
  firstOfStep,
  gatheredPrefix,
  gradientPrefix,
  lastOfStep,
  type TrainingStep,
  weightPrefix,
} from "./step.ts";

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
  /** The factor of the gradients that `reduce` is given: 1 by default, 1/N where it returns the sum of N. */
  readonly share?: number | undefined;
}

/** Compiles a step that starts from the given weights, or from the state of an interrupted training. */
export async function createTrainer(
  backend: Backend,
  step: TrainingStep,
  from: Arrays | TrainerState,
  { reduce, share, ...given }: TrainerOptions = {},
): Promise<Trainer> {
  const options = { ...step.stored, ...given };
  const resumed = isTrainerState(from);
  const state = resumed ? from.state : await step.initialState(backend, from);
  const runner = reduce
    ? await openHalves(backend, step, state, { reduce, share }, options)
    : await openWhole(backend, step, state, options);
  return counting(runner, step, resumed ? from.step : 0);
}

/** A trainer that counts its steps from those done. */
export function counting(
  runner: Runner,
  { accumulate }: Pick<TrainingStep, "accumulate">,
  done: number,
): Trainer {
  let count = done;
  return {
    ...runner,
    async step(...batches) {
      if (batches.length !== accumulate) {
        throw new PatchwiseError(
          `A step was given ${batches.length} batches, but accumulates ${accumulate}; give as many.`,
        );
      }
      count++;
      return runner.run(batches, count);
    },
  };
}

export interface Runner extends Omit<Trainer, "step"> {
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
  { reduce, share }: { readonly reduce: ReduceGradients; readonly share: number | undefined },
  options: TrainerOptions,
): Promise<Runner> {
  const halves = step.halves(share);
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
export function parametersOf({ parameters }: Graph, weights: Arrays): Arrays {
  const names = new Set(parameters.map(leafName));
  return pick(weights, (name) => names.has(name));
}

/** The number of the step, for optimizers that use it. */
export function stepInput({ inputs }: Graph, count: number): Arrays {
  return inputs.some((leaf) => leafName(leaf) === "step") ? { step: scalar(count) } : {};
}

function copyOf(array: NdArray): NdArray {
  return { ...array, data: array.data.slice() };
}

export function numberIn({ data }: NdArray): number {
  return Number(data[0]);
}

export function isTrainerState(from: Arrays | TrainerState): from is TrainerState {
  return typeof from["step"] === "number";
}
