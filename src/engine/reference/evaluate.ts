/**
 * The reference interpreter computes every op by its definition, in float64, in the simplest way. Backends and gradients are checked
 * against it, and it folds constants.
 */
import { mapValues } from "../records.ts";
import { castArray, isFloat, type NdArray, toNumbers } from "../arrays/ndarray.ts";
import { ShapeError } from "../errors.ts";
import { elementwiseRules } from "./evaluate-elementwise.ts";
import { reduceRules } from "./evaluate-reduce.ts";
import { shapeRules } from "./evaluate-shape.ts";
import { at, blank, type EvaluateRules, type Value } from "./evaluate-values.ts";
import { type Graph, leafName } from "../graph/graph.ts";
import type { OpName } from "../graph/ops.ts";
import { matchBatch, resolve } from "../graph/shape.ts";
import type { Node, Tensor } from "../graph/tensor.ts";

type Inputs = Readonly<Record<string, NdArray>>;

/**
 * Runs a graph. Results are rounded once, to the dtype of each output.
 *
 * @param inputs one array for each input and parameter, by name; floats also as float64
 * @throws ShapeError if an input is missing, unknown, or of another shape or dtype
 */
export function evaluate(graph: Graph, inputs: Inputs): Record<string, NdArray> {
  return mapValues(evaluateFloat64(graph, inputs), (array, name) =>
    castArray(array, graph.outputs[name]!.dtype),
  );
}

/**
 * Runs a graph without rounding; all floats are returned as float64.
 *
 * @throws ShapeError as `evaluate` does
 */
export function evaluateFloat64(graph: Graph, inputs: Inputs): Record<string, NdArray> {
  const leaves = [...graph.inputs, ...graph.parameters];
  const batchSize = checkInputs(leaves, inputs);
  const values = new Map(leaves.map((leaf) => [leaf, toValue(inputs[leafName(leaf)]!)]));
  run(graph.nodes, values, batchSize);
  return mapValues(graph.outputs, (tensor) => toArray(tensor, values.get(tensor)!));
}

/**
 * Evaluates one node, for constant folding.
 *
 * @param inputs arrays of the dtypes that the node expects; floats may also be float64
 * @param batchSize required if an attribute contains the batch
 * @returns one array for each output; floats are float64
 */
export function evaluateNode(
  node: Node,
  inputs: readonly NdArray[],
  batchSize?: number,
): NdArray[] {
  const values = new Map(node.inputs.map((tensor, i) => [tensor, toValue(inputs[i]!)]));
  run([node], values, batchSize);
  return node.outputs.map((tensor) => toArray(tensor, values.get(tensor)!));
}

function toValue(array: NdArray): Value {
  return { shape: array.shape, data: Float64Array.from(toNumbers(array)) };
}

function toArray({ dtype }: Tensor, { shape, data }: Value): NdArray {
  return castArray({ dtype: "float64", shape, data }, isFloat(dtype) ? "float64" : dtype);
}

/** Computes the outputs of nodes, in order, into `values`. */
function run(
  nodes: readonly Node[],
  values: Map<Tensor, Value>,
  batchSize: number | undefined,
): void {
  for (const node of nodes) {
    if (node.outputs.every((output) => values.has(output))) continue;
    const inputs = node.inputs.map((tensor) => values.get(tensor)!);
    const outputs = applyRule(node, inputs, batchSize);
    for (const [i, output] of node.outputs.entries()) values.set(output, outputs[i]!);
  }
}

function applyRule<K extends OpName>(
  node: Node<K>,
  inputs: readonly Value[],
  batchSize: number | undefined,
): readonly Value[] {
  const { dtype } = node.outputs[0]!;
  return rules[node.op](inputs, node.attributes, {
    dtype,
    batchSize,
    resolve: (shape) => resolve(shape, batchSize),
  });
}

const leafRule = (_: readonly Value[], { name }: { readonly name: string }): never => {
  throw new ShapeError(`${name} has no value: it is a leaf of another graph.`);
};

const rules: EvaluateRules = {
  input: leafRule,
  parameter: leafRule,
  constant: (_, { value }) => [toValue(value)],
  full: (_, { value, shape }, context) => {
    const y = blank(context.resolve(shape));
    y.data.fill(value);
    return [y];
  },
  ...elementwiseRules,
  ...shapeRules,
  ...reduceRules,
  recompute: (inputs, { body }, { batchSize }) => {
    const values = new Map(body.inputs.map((tensor, i) => [tensor, at(inputs, i)]));
    run(body.nodes, values, batchSize);
    return Object.values(body.outputs).map((output) => values.get(output)!);
  },
};

/** Checks names, dtypes and shapes, and returns the batch size that follows from them. */
function checkInputs(leaves: readonly Tensor[], inputs: Inputs): number | undefined {
  const names = new Set(leaves.map(leafName));
  const unknown = Object.keys(inputs).find((name) => !names.has(name));
  if (unknown !== undefined) {
    throw new ShapeError(
      `The graph has no leaf named ${unknown}; it has ${[...names].join(", ") || "none"}.`,
    );
  }
  let batchSize: number | undefined;
  for (const leaf of leaves) {
    const name = leafName(leaf);
    const array = Object.hasOwn(inputs, name) ? inputs[name] : undefined;
    if (!array) throw new ShapeError(`${name} is missing from the inputs of this run.`);
    if (array.dtype !== leaf.dtype && !(isFloat(leaf.dtype) && array.dtype === "float64")) {
      throw new ShapeError(`${name} is ${array.dtype}, expected ${leaf.dtype}.`);
    }
    const match = matchBatch(leaf.shape, array.shape);
    if ("mismatch" in match) throw new ShapeError(`${name}: ${match.mismatch}.`);
    if (match.batchSize === undefined) continue;
    if (batchSize !== undefined && batchSize !== match.batchSize) {
      throw new ShapeError(
        `${name} has batch size ${match.batchSize}, but an input before it has ${batchSize}.`,
      );
    }
    batchSize = match.batchSize;
  }
  return batchSize;
}
