/**
 * Rewrites a graph into a smaller one with the same results: inlines the bodies of recomputed blocks, removes operations without
 * effect, folds constants, merges common subexpressions, and drops nodes that nothing reads.
 */
import { inlineBody } from "../graph/recompute.ts";
import { evaluateNode } from "../reference/evaluate.ts";
import { constant } from "../graph/functional.ts";
import { type Graph, graphOf, is } from "../graph/graph.ts";
import { castArray, type NdArray, ndarray, sizeOf } from "../arrays/ndarray.ts";
import type { OpName, Ops } from "../graph/ops.ts";
import { isStatic } from "../graph/shape.ts";
import { type Make, simplifyNode } from "./simplify-rules.ts";
import { applyMany, type Node, type Tensor } from "../graph/tensor.ts";

/** Simplifies a graph. The output names stay the same; inputs that no output depends on disappear. */
export function simplify(graph: Graph): Graph {
  return mergeEqual(inlineRecomputed(graph));
}

/** Replaces each recomputed block by its body. A barrier keeps the copies of the backward pass from being merged with it. */
function inlineRecomputed(graph: Graph): Graph {
  if (!graph.nodes.some((node) => node.op === "recompute")) return graph;
  const inlined = rewrite(graph, (node, inputs) => {
    if (is(node, "recompute")) return inlineBody(node, inputs);
    return remake(node, inputs);
  });
  return inlineRecomputed(inlined);
}

/** Applies algebraic rules and merges common subexpressions, in one walk from the leaves up. */
function mergeEqual(graph: Graph): Graph {
  const known = new Map<string, readonly Tensor[]>();
  const identities = new Map<object, number>();

  const merged = (node: Node, inputs: readonly Tensor[]): readonly Tensor[] => {
    const key = keyOf(node.op, inputs, node.attributes, identities);
    const before = known.get(key);
    if (before) return before;
    const remade = remake(node, inputs);
    const outputs = folded(remade) ?? remade;
    known.set(key, outputs);
    return outputs;
  };

  /** Nodes that a rule makes go through the rules again. */
  const make: Make = (op, inputs, attributes) => {
    const [candidate] = applyMany(op, inputs, attributes);
    return visit(candidate!.node, inputs)[0]!;
  };

  const visit = (node: Node, inputs: readonly Tensor[]): readonly Tensor[] => {
    const simpler = simplifyNode(node, inputs, make);
    return simpler ? [simpler] : merged(node, inputs);
  };

  return rewrite(graph, visit);
}

/** Constants of more elements than this are not folded, to keep them out of the model file. */
const LARGEST_CONSTANT = 4096;

/** Returns the outputs of a node as constants if all its inputs are known, and undefined otherwise. */
function folded(outputs: readonly Tensor[]): Tensor[] | undefined {
  const { node } = outputs[0]!;
  if (node.inputs.length === 0 || ![...node.inputs, ...outputs].every(isSmall)) return undefined;
  const values = node.inputs.map(valueOf);
  if (!values.every((value) => value !== undefined)) return undefined;
  return evaluateNode(node, values).map((value, i) =>
    constant(castArray(value, outputs[i]!.dtype)),
  );
}

function isSmall({ shape }: Tensor): boolean {
  return isStatic(shape) && sizeOf(shape) <= LARGEST_CONSTANT;
}

function valueOf({ node, shape, dtype }: Tensor): NdArray | undefined {
  if (is(node, "constant")) return node.attributes.value;
  if (!is(node, "full") || !isStatic(shape)) return undefined;
  return ndarray(dtype, shape, new Array<number>(sizeOf(shape)).fill(node.attributes.value));
}

/** Walks a graph from the leaves up, replacing the outputs of every node. */
function rewrite(
  graph: Graph,
  replace: (node: Node, inputs: readonly Tensor[]) => readonly Tensor[],
): Graph {
  const made = new Map<Tensor, Tensor>();
  for (const node of graph.nodes) {
    const outputs = replace(
      node,
      node.inputs.map((tensor) => made.get(tensor)!),
    );
    for (const [i, output] of node.outputs.entries()) made.set(output, outputs[i]!);
  }
  const named = Object.entries(graph.outputs).map(([name, tensor]) => [name, made.get(tensor)!]);
  return graphOf(Object.fromEntries(named) as Record<string, Tensor>);
}

/** Returns the node's own outputs if its inputs are unchanged, and those of a copy otherwise. */
function remake(node: Node, inputs: readonly Tensor[]): readonly Tensor[] {
  return inputs.every((tensor, i) => tensor === node.inputs[i])
    ? node.outputs
    : applyMany(node.op, inputs, node.attributes, node.scope);
}

/** Returns a key that is equal only for nodes with equal values. Constants are compared by identity. */
function keyOf<K extends OpName>(
  op: K,
  inputs: readonly Tensor[],
  attributes: Ops[K],
  identities: Map<object, number>,
): string {
  const operands = inputs.map((tensor) => `${tensor.node.id}:${tensor.index}`).join();
  return `${op}(${operands})${attributeKey(attributes, identities)}`;
}

function attributeKey(attributes: object, identities: Map<object, number>): string {
  if (!("value" in attributes) || typeof attributes.value === "number") {
    // JSON cannot represent −0, infinities and NaN.
    return JSON.stringify(attributes, (_, value: unknown) =>
      typeof value === "number" && (!Number.isFinite(value) || Object.is(value, -0))
        ? `#${Object.is(value, -0) ? "-0" : value}`
        : value,
    );
  }
  const array = attributes.value as object;
  const id = identities.get(array) ?? identities.size;
  identities.set(array, id);
  return `@${id}`;
}
