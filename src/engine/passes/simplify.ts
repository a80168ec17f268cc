/**
 * Rewrites a graph into a smaller one that computes the same: inlines the bodies of recomputed blocks, removes
 * what has no effect, computes what is known, merges what is computed twice, and drops what nothing reads.
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

/** The simplified graph under the same output names. Inputs that turn out not to matter are gone. */
export function simplify(graph: Graph): Graph {
  return mergeEqual(inlineRecomputed(graph));
}

/** Replaces each recomputed block by its body. The copies that the backward pass made stay: a barrier keeps them apart. */
function inlineRecomputed(graph: Graph): Graph {
  if (!graph.nodes.some((node) => node.op === "recompute")) return graph;
  const inlined = rewrite(graph, (node, inputs) => {
    if (is(node, "recompute")) return inlineBody(node, inputs);
    return remake(node, inputs);
  });
  return inlineRecomputed(inlined);
}

/** Algebraic rows and common subexpressions, in one walk from the leaves up. */
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

  /** What a row makes goes through the rows again. */
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

/** Constants of more elements than this are left to be computed: the model file should not hold them. */
const LARGEST_CONSTANT = 4096;

/** The values of a node whose inputs are all known now. */
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

/** The node's own outputs where its inputs are unchanged, else those of a copy. */
function remake(node: Node, inputs: readonly Tensor[]): readonly Tensor[] {
  return inputs.every((tensor, i) => tensor === node.inputs[i])
    ? node.outputs
    : applyMany(node.op, inputs, node.attributes, node.scope);
}

/** Equal keys compute equal values. Big constants are compared by identity. */
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
    // JSON knows no −0, infinities or NaN.
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
