/**
 * Compiles a graph to a program, in the same way for every runtime: simplifies and lowers the graph, checks the inputs of each run,
 * and serializes runs.
 */
import { turns } from "../turns.ts";
import { PatchwiseError, ShapeError } from "../errors.ts";
import { type Graph, is, leafName } from "../graph/graph.ts";
import type { NdArray } from "../arrays/ndarray.ts";
import { lowerToMessage } from "../onnx/lower.ts";
import { encodeModel } from "../onnx/proto.ts";
import { mayOverwrite } from "../passes/reads.ts";
import { formatShape, matchBatch } from "../graph/shape.ts";
import { simplify } from "../passes/simplify.ts";
import type { Tensor } from "../graph/tensor.ts";
import type { CompileOptions, Program, WeightSource } from "./backend.ts";
import { otherEvents } from "./other-events.ts";
import type { Mount, OpenExecutor, StateSlot } from "./executor.ts";
import { relocated, weightFiles } from "./stored-weight.ts";

/**
 * Compiles a graph.
 *
 * @param open opens the plan on the runtime
 * @param mount maps the files of weights to the names that the model uses
 * @param trustsAttention tests whether the device's fused attention works; by default it is assumed to
 * @throws ShapeError if weights or initial state values do not match the graph
 * @throws DeviceError if the runtime rejects the program
 */
export async function compileProgram(
  graph: Graph,
  options: CompileOptions,
  open: OpenExecutor,
  mount: (paths: readonly string[]) => Mount,
  trustsAttention: () => Promise<boolean> = async () => true,
): Promise<Program> {
  const { weights = () => undefined, prepack = false, convertEachRun = false, threads } = options;
  const mounted = mount(filesOf(graph, weights));
  // Each part takes up to a tenth of a second, in which a page would not answer.
  await otherEvents();
  const simple = simplify(graph);
  await otherEvents();
  // An input that no output depends on may still be the only one that determines the batch size.
  const attends = simple.nodes.some(({ op }) => op === "attention");
  const { message, feeds } = lowerToMessage(
    { ...simple, inputs: graph.inputs },
    mountedWeights(weights, mounted),
    {
      fusedAttention: !attends || (await trustsAttention()),
    },
  );
  await otherEvents();
  const model = encodeModel(message);
  await otherEvents();
  const state = stateSlots(graph, simple, options);
  const replaced = new Set(state.map(({ output }) => output));
  const executor = await open({
    model,
    feeds,
    outputs: Object.entries(graph.outputs)
      .filter(([name]) => !replaced.has(name))
      .map(([name, { dtype }]) => ({ name, dtype })),
    state,
    mount: mounted,
    prepack,
    ...(convertEachRun && { convertEachRun }),
    ...(threads === undefined ? {} : { threads }),
  });

  const held = new Set(state.map(({ leaf }) => leaf));
  const expected = new Map(
    [...graph.inputs, ...graph.parameters.filter((leaf) => !weights(leafName(leaf)))]
      .map((leaf) => [leafName(leaf), leaf] as const)
      .filter(([name]) => !held.has(name)),
  );
  let disposed = false;
  /** Runs of one program are serialized, because its state must not be read while it is being replaced. */
  const queue = turns();
  const inTurn = <T>(work: () => Promise<T>): Promise<T> =>
    disposed ? Promise.reject(disposedError()) : queue(work);

  return {
    run: (inputs, { signal } = {}) =>
      inTurn(async () => {
        signal?.throwIfAborted();
        const batchSize = checkInputs(expected, inputs);
        if (batchSize === 0 && hasBatchAsChannels(simple)) {
          throw new ShapeError(
            "This program holds the gradient of a convolution, which is not defined for an empty batch; give it at least one image.",
          );
        }
        return executor.run(inputs, signal);
      }),
    readState: () => inTurn(() => executor.readState()),
    writeState: (values) =>
      inTurn(async () => {
        checkState(state, values);
        await executor.writeState(values);
      }),
    async dispose() {
      if (disposed) return;
      disposed = true;
      await queue(() => executor.dispose());
    },
  };
}

function disposedError(): PatchwiseError {
  return new PatchwiseError("This program has been disposed; compile the graph again.");
}

function filesOf(graph: Graph, weights: WeightSource): string[] {
  const files = graph.parameters.flatMap((parameter) => {
    const stored = weights(leafName(parameter));
    return stored ? weightFiles(stored) : [];
  });
  return [...new Set(files)];
}

function mountedWeights(weights: WeightSource, { files }: Mount): WeightSource {
  const locations = new Map(Object.entries(files).map(([location, path]) => [path, location]));
  return (name) => {
    const stored = weights(name);
    return stored && relocated(stored, (path) => locations.get(path) ?? path);
  };
}

function stateSlots(
  graph: Graph,
  simple: Graph,
  { state = {}, initialState = {} }: CompileOptions,
): StateSlot[] {
  const leaves = new Map(
    [...graph.inputs, ...graph.parameters].map((leaf) => [leafName(leaf), leaf]),
  );
  return Object.entries(state).map(([leaf, output]) => {
    const [tensor, next, first] = [leaves.get(leaf), graph.outputs[output], initialState[leaf]];
    if (!tensor || !next || !first) {
      const missing = tensor ? (next ? "first value" : `output ${output}`) : "input or parameter";
      throw new ShapeError(`The state ${leaf} → ${output} has no ${missing} of that name.`);
    }
    checkArray(leaf, tensor, first);
    if (formatShape(next.shape) !== formatShape(tensor.shape) || next.dtype !== tensor.dtype) {
      throw new ShapeError(
        `The state ${leaf} is ${tensor.dtype} ${formatShape(tensor.shape)}, but the output ${output} that replaces it is ${next.dtype} ${formatShape(next.shape)}.`,
      );
    }
    return { leaf, output, first, inPlace: mayOverwrite(simple, leaf, simple.outputs[output]!) };
  });
}

/** @throws ShapeError if a value is not part of the state, or differs from it in shape or dtype */
function checkState(state: readonly StateSlot[], values: Readonly<Record<string, NdArray>>): void {
  for (const [name, { dtype, shape }] of Object.entries(values)) {
    const first = state.find(({ leaf }) => leaf === name)?.first;
    if (!first) {
      throw new ShapeError(
        `The program has no state ${name}; it has ${state.map(({ leaf }) => leaf).join(", ") || "none"}.`,
      );
    }
    if (dtype !== first.dtype || shape.join() !== first.shape.join()) {
      throw new ShapeError(
        `The state ${name} is ${first.dtype} ${formatShape(first.shape)}, but the value for it is ${dtype} ${formatShape(shape)}.`,
      );
    }
  }
}

/**
 * Checks that every expected leaf is given, and that all agree on the batch size.
 *
 * @returns the batch size, if an input has one
 */
function checkInputs(
  expected: ReadonlyMap<string, Tensor>,
  inputs: Readonly<Record<string, NdArray>>,
): number | undefined {
  for (const name of Object.keys(inputs)) {
    if (!expected.has(name)) {
      throw new ShapeError(
        `The program has no input ${name}; it takes ${[...expected.keys()].join(", ") || "none"}.`,
      );
    }
  }
  let batch: { readonly name: string; readonly size: number } | undefined;
  for (const [name, tensor] of expected) {
    const array = inputs[name];
    if (!array) {
      throw new ShapeError(
        `The input ${name} is missing; expected ${tensor.dtype} ${formatShape(tensor.shape)}.`,
      );
    }
    const size = checkArray(name, tensor, array);
    if (size === undefined) continue;
    if (batch && batch.size !== size) {
      throw new ShapeError(
        `The input ${name} holds a batch of ${size}, but ${batch.name} one of ${batch.size}; give both the same.`,
      );
    }
    batch ??= { name, size };
  }
  return batch?.size;
}

/** Rejects an empty batch as the channels of a convolution, on which ONNX Runtime never returns. */
function hasBatchAsChannels(graph: Graph): boolean {
  return graph.nodes.some(
    (node) => is(node, "conv") && typeof node.inputs[0]!.shape[1] !== "number",
  );
}

/** @returns the batch size, if the shape determines it */
function checkArray(name: string, tensor: Tensor, array: NdArray): number | undefined {
  const match = matchBatch(tensor.shape, array.shape);
  if ("mismatch" in match || tensor.dtype !== array.dtype) {
    throw new ShapeError(
      `The input ${name} is ${array.dtype} ${formatShape(array.shape)}, expected ${tensor.dtype} ${formatShape(tensor.shape)}.`,
    );
  }
  return match.batchSize;
}
