/** What a graph costs, told from the graph alone: parameters, multiply-adds, memory. */
import { byteSize } from "../arrays/dtype.ts";
import { bytesOf, sizeOf } from "../arrays/ndarray.ts";
import { type Graph, is, leafName } from "../graph/graph.ts";
import type { OpName } from "../graph/ops.ts";
import { resolve, type Shape } from "../graph/shape.ts";
import type { Node, Tensor } from "../graph/tensor.ts";
import { simplify } from "./simplify.ts";
import { mayOverwrite, readsOf } from "./reads.ts";

/** Numbers in all parameters, but not in fixed tables. */
export function countParameters(graph: Graph): number {
  return graph.parameters.reduce(
    (total, { node, shape }) =>
      is(node, "parameter") && node.attributes.fixed
        ? total
        : total + sizeOf(resolve(shape, undefined)),
    0,
  );
}

type Size = (shape: Shape) => number[];
type CostRule<K extends OpName> = (node: Node<K>, size: Size) => number;

/** Multiply-adds of the ops that count; all others count as none. */
const costRules: { readonly [K in OpName]?: CostRule<K> } = {
  matmul: ({ inputs, outputs, attributes }, size) => {
    const a = size(inputs[0]!.shape);
    return sizeOf(size(outputs[0]!.shape)) * a.at(attributes.transposeA ? -2 : -1)!;
  },
  linear: ({ inputs, outputs }, size) =>
    sizeOf(size(outputs[0]!.shape)) * size(inputs[1]!.shape)[1]!,
  // Every output reads, and every input of a transposed convolution writes, one whole kernel.
  conv: ({ inputs, outputs }, size) =>
    sizeOf(size(outputs[0]!.shape)) * sizeOf(size(inputs[1]!.shape).slice(1)),
  convTranspose: ({ inputs }, size) =>
    sizeOf(size(inputs[0]!.shape)) * sizeOf(size(inputs[1]!.shape).slice(1)),
  attention: ({ inputs }, size) => {
    const [q, k, v] = inputs.map((x) => size(x.shape));
    const [images, queries, width] = q as [number, number, number];
    return images * queries * k![1]! * (width + v![2]!);
  },
  // x·(1 / deviation) − mean / deviation.
  layerNorm: ({ outputs }, size) => sizeOf(size(outputs[0]!.shape)),
  rmsNorm: ({ outputs }, size) => sizeOf(size(outputs[0]!.shape)),
  groupNorm: ({ outputs }, size) => sizeOf(size(outputs[0]!.shape)),
  recompute: ({ attributes }, size) => sumOver(attributes.body.nodes, size),
};

/**
 * Multiply-adds of one run, each counted once, in matrix products, convolutions, attention and norms: what the DiT paper
 * (Peebles & Xie, 2023) reports as Gflops. Eleven of its twelve figures come out to the last digit that it prints, and
 * the twelfth, DiT-B/4's 5.56, is 5.57 by the products alone.
 */
export function countMultiplyAdds(graph: Graph, batchSize?: number): number {
  return sumOver(graph.nodes, (shape) => resolve(shape, batchSize));
}

function sumOver(nodes: readonly Node[], size: Size): number {
  return nodes.reduce((total, node) => total + costOf(node, size), 0);
}

function costOf<K extends OpName>(node: Node<K>, size: Size): number {
  const rule: CostRule<K> | undefined = costRules[node.op];
  return rule ? rule(node, size) : 0;
}

/** Bytes of a run. */
export interface MemoryEstimate {
  /** Parameters and constants. */
  readonly weights: number;
  /** Data that the run is given, state among it. */
  readonly inputs: number;
  /** What is computed, at the moment when most of it exists. */
  readonly activations: number;
  readonly total: number;
}

/** Leaf → the output that replaces it after each run, as `CompileOptions.state` has it. */
export type State = Readonly<Record<string, string>>;

/**
 * Memory of a run that computes the nodes in order and frees every tensor after its last use.
 * A runtime comes near it from either side: it fuses some ops and needs scratch space for others.
 */
export function peakMemory(graph: Graph, batchSize?: number, state: State = {}): MemoryEstimate {
  const bytes = (tensor: Tensor) =>
    sizeOf(resolve(tensor.shape, batchSize)) * byteSize(tensor.dtype);
  const total = (tensors: readonly Tensor[]) => tensors.reduce((sum, x) => sum + bytes(x), 0);
  const replacing = Object.entries(state).map(
    ([leaf, name]) => [leaf, graph.outputs[name]!] as const,
  );
  const second = replacing.filter(([leaf, output]) => !mayOverwrite(graph, leaf, output));
  // What no run replaces is read as far as it is used.
  const used = graph.parameters.flatMap((weight) => {
    const { whole, cuts } = readsOf(weight, graph);
    if (whole || Object.hasOwn(state, leafName(weight))) return [weight];
    return cuts.flatMap((cut) => cut.map(({ output }) => output));
  });
  const weights = total(used) + bytesOfConstants(graph.nodes);
  const inputs = total(graph.inputs) + total(second.map(([, output]) => output));
  // What replaces a state is written into its memory, or into a second one that takes turns with it.
  const owned = new Set(replacing.map(([, output]) => storageOf(output)));
  const activations = peakOf(graph, (tensor) => (owned.has(tensor) ? 0 : bytes(tensor)));
  return { weights, inputs, activations, total: weights + inputs + activations };
}

/** Node with this package's modules and ONNX Runtime, before it has anything to do. */
const processBytes = 128 * 2 ** 20;
/** What the runtime's arena cannot put to use. */
const arenaSlack = 64 * 2 ** 20;

/**
 * The most memory that a process takes which runs a graph again and again on the CPU in Node, as measured within a tenth
 * of it: beside what the graph itself needs, in the order in which ONNX Runtime computes it, there is the process; and
 * where a program has state, the copies of it that ONNX Runtime returns from each run.
 */
export function estimateMemory(
  graph: Graph,
  batchSize?: number,
  state: State = {},
): MemoryEstimate {
  const simple = inRuntimeOrder(simplify(graph));
  const { weights, inputs, activations, total } = peakMemory(simple, batchSize, state);
  const own = processBytes + total;
  const returned = Object.keys(state).length > 0 ? arenaSlack + weights + inputs : 0;
  return { weights, inputs, activations, total: own + returned };
}

/** The most memory of a process that keeps several programs and runs one at a time, each as `estimateMemory` has it. */
export function estimateTogether(estimates: readonly MemoryEstimate[]): number {
  const kept = estimates.reduce((sum, { weights, inputs }) => sum + weights + inputs, 0);
  return processBytes + kept + Math.max(0, ...estimates.map(({ activations }) => activations));
}

function bytesOfConstants(nodes: readonly Node[]): number {
  return nodes.reduce((total, node) => {
    if (is(node, "constant")) return total + bytesOf(node.attributes.value);
    return is(node, "recompute") ? total + bytesOfConstants(node.attributes.body.nodes) : total;
  }, 0);
}

/** The most bytes that live at once among tensors which nodes compute. */
function peakOf(graph: Graph, bytes: (tensor: Tensor) => number): number {
  const lastUse = lastUses(graph);
  let live = 0;
  let peak = 0;
  for (const [i, node] of graph.nodes.entries()) {
    if (!computes(node)) continue;
    const inside = is(node, "recompute") ? peakOf(node.attributes.body, bytes) : 0;
    const made = node.outputs.filter(
      (output) =>
        storageOf(output) === output && !(isOptional(output) && lastUse.get(output) === i),
    );
    peak = Math.max(peak, live + inside);
    live += made.reduce((sum, output) => sum + bytes(output), 0);
    peak = Math.max(peak, live);
    const read = [...node.inputs.map(storageOf), ...made];
    for (const tensor of new Set(read)) {
      if (computes(tensor.node) && lastUse.get(tensor) === i) live -= bytes(tensor);
    }
  }
  return peak;
}

/** For each storage, the position of the last node that reads or makes it; never for the outputs. */
function lastUses({ nodes, outputs }: Graph): Map<Tensor, number> {
  const lastUse = new Map<Tensor, number>();
  for (const [i, node] of nodes.entries()) {
    for (const tensor of [...node.inputs, ...node.outputs]) lastUse.set(storageOf(tensor), i);
  }
  for (const output of Object.values(outputs)) lastUse.set(storageOf(output), Infinity);
  return lastUse;
}

/** The tensor whose memory a tensor shares: ops that only rename the elements do not copy them. */
function storageOf(tensor: Tensor): Tensor {
  let storage = tensor;
  while (is(storage.node, "reshape") || is(storage.node, "barrier"))
    storage = storage.node.inputs[0]!;
  return storage;
}

/** Statistics and probabilities are made only where something reads them. */
function isOptional({ index, node: { op } }: Tensor): boolean {
  return index > 0 && (op === "layerNorm" || op === "rmsNorm" || op === "attention");
}

/** Leaves and constants are there before the run. */
function computes({ op }: Node): boolean {
  return op !== "input" && op !== "parameter" && op !== "constant";
}

/**
 * The same graph in ONNX Runtime's default order: depth first from what nothing reads, the last first, and from each node
 * through its inputs, again the last first (`Graph::ReverseDFSFrom`).
 */
export function inRuntimeOrder(graph: Graph): Graph {
  const place = new Map(graph.nodes.map((node, i) => [node, i] as const));
  const read = new Set(graph.nodes.flatMap(({ inputs }) => inputs.map(({ node }) => node)));
  const ordered: Node[] = [];
  const visited = new Set<Node>();
  const stack: { readonly node: Node; readonly done: boolean }[] = graph.nodes
    .filter((node) => !read.has(node))
    .map((node) => ({ node, done: false }));
  for (let top = stack.pop(); top; top = stack.pop()) {
    const { node, done } = top;
    if (done) ordered.push(node);
    if (done || visited.has(node)) continue;
    visited.add(node);
    stack.push({ node, done: true });
    const before = [...new Set(node.inputs.map((tensor) => tensor.node))];
    before.sort((a, b) => place.get(a)! - place.get(b)!);
    for (const each of before) if (!visited.has(each)) stack.push({ node: each, done: false });
  }
  return { ...graph, nodes: ordered };
}
