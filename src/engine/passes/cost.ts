/** The cost of a graph: parameters, multiply-adds and memory. */
import { byteSize, bytesOf, sizeOf } from "../arrays/ndarray.ts";
import { type Graph, is, leafName } from "../graph/graph.ts";
import type { OpName } from "../graph/ops.ts";
import { resolve, type Shape } from "../graph/shape.ts";
import type { Node, Tensor } from "../graph/tensor.ts";
import { simplify } from "./simplify.ts";
import { mayOverwrite, readsOf } from "./reads.ts";

/**
 * Counts the elements of parameters, without fixed tables: of those that a graph reads, or of all that a model declares, which
 * may be more.
 *
 * @example countParameters({ parameters: declaredTensors(params) })
 */
export function countParameters({ parameters }: Pick<Graph, "parameters">): number {
  const isFixed = ({ node }: Tensor) => is(node, "parameter") && node.attributes.fixed;
  return countElements(parameters.filter((tensor) => !isFixed(tensor)));
}

/** Counts the elements of weights. */
export function countElements(weights: readonly Tensor[]): number {
  return weights.reduce((total, { shape }) => total + sizeOf(resolve(shape, undefined)), 0);
}

type Size = (shape: Shape) => number[];
type CostRule<K extends OpName> = (node: Node<K>, size: Size) => number;

/** The multiply-adds of each op; ops without a rule have none. */
const costRules: { readonly [K in OpName]?: CostRule<K> } = {
  matmul: ({ inputs, outputs, attributes }, size) => {
    const a = size(inputs[0]!.shape);
    return sizeOf(size(outputs[0]!.shape)) * a.at(attributes.transposeA ? -2 : -1)!;
  },
  linear: ({ inputs, outputs }, size) =>
    sizeOf(size(outputs[0]!.shape)) * size(inputs[1]!.shape)[1]!,
  quantizedLinear: ({ inputs, outputs }, size) =>
    sizeOf(size(outputs[0]!.shape)) * size(inputs[2]!.shape)[0]!,
  // Every output of a convolution reads one whole kernel, and every input of a transposed convolution writes one.
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
 * Counts the multiply-adds of one run in matrix products, convolutions, attention and norms, as the Gflops of the DiT paper
 * (Peebles & Xie, 2023). Eleven of its twelve figures agree to the last printed digit; the twelfth, 5.56 for DiT-B/4, is 5.57
 * from the products alone.
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

/** The memory of a run in bytes. */
export interface MemoryEstimate {
  /** Parameters and constants. */
  readonly weights: number;
  /** The data that the run is given, including state. */
  readonly inputs: number;
  /** Computed tensors, at the moment when they take the most memory. */
  readonly activations: number;
  readonly total: number;
}

/** Maps leaves to the outputs that replace them after each run, as in `CompileOptions.state`. */
export type State = Readonly<Record<string, string>>;

/**
 * Estimates the memory of a run that computes the nodes in order and frees every tensor after its last use. A runtime may need
 * slightly less, since it fuses some ops, or more, since it needs scratch space for others.
 */
export function peakMemory(graph: Graph, batchSize?: number, state: State = {}): MemoryEstimate {
  const bytes = (tensor: Tensor) =>
    sizeOf(resolve(tensor.shape, batchSize)) * byteSize(tensor.dtype);
  const total = (tensors: readonly Tensor[]) => tensors.reduce((sum, x) => sum + bytes(x), 0);
  const replacing = Object.entries(state).map(
    ([leaf, name]) => [leaf, graph.outputs[name]!] as const,
  );
  const second = replacing.filter(([leaf, output]) => !mayOverwrite(graph, leaf, output));
  // Inputs that no run replaces are counted if they are used.
  const used = graph.parameters.flatMap((weight) => {
    const { whole, cuts } = readsOf(weight, graph);
    if (whole || Object.hasOwn(state, leafName(weight))) return [weight];
    return cuts.flatMap((cut) => cut.map(({ output }) => output));
  });
  const weights = total(used) + bytesOfConstants(graph.nodes);
  const inputs = total(graph.inputs) + total(second.map(([, output]) => output));
  // The output that replaces a state is written into its memory, or into a second buffer that alternates with it.
  const owned = new Set(replacing.map(([, output]) => storageOf(output)));
  const activations = peakOf(graph, (tensor) => (owned.has(tensor) ? 0 : bytes(tensor)));
  return { weights, inputs, activations, total: weights + inputs + activations };
}

/** The memory of Node with the modules of this package and ONNX Runtime loaded, before it does anything. */
export const processBytes = 128 * 2 ** 20;
/** The factor by which the runtime's arena exceeds the memory in use. */
const arenaSlack = 64 * 2 ** 20;

/**
 * Estimates the peak memory of a process in Node that runs a graph repeatedly on the CPU; measurements agree within a tenth. It is
 * the memory of the graph, in the order in which ONNX Runtime computes it, plus that of the process itself and, for a program
 * with state, the copies of the state that ONNX Runtime returns from each run.
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

/** Estimates the peak memory of a process that keeps several programs and runs one at a time, from each program's estimate. */
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

/** Returns the largest number of bytes of computed tensors that exist at the same time. */
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

/** Returns the position of the last node that reads or makes each tensor's storage; outputs have none, since they are never freed. */
function lastUses({ nodes, outputs }: Graph): Map<Tensor, number> {
  const lastUse = new Map<Tensor, number>();
  for (const [i, node] of nodes.entries()) {
    for (const tensor of [...node.inputs, ...node.outputs]) lastUse.set(storageOf(tensor), i);
  }
  for (const output of Object.values(outputs)) lastUse.set(storageOf(output), Infinity);
  return lastUse;
}

/** Returns the tensor whose memory a tensor shares: ops that only change the shape do not copy the elements. */
function storageOf(tensor: Tensor): Tensor {
  let storage = tensor;
  while (is(storage.node, "reshape") || is(storage.node, "barrier"))
    storage = storage.node.inputs[0]!;
  return storage;
}

/** Returns true if a tensor is a statistic or probabilities, which are computed only if something reads them. */
function isOptional({ index, node: { op } }: Tensor): boolean {
  return index > 0 && (op === "layerNorm" || op === "rmsNorm" || op === "attention");
}

/** Returns true if a node computes its outputs; leaves and constants exist before the run. */
function computes({ op }: Node): boolean {
  return op !== "input" && op !== "parameter" && op !== "constant";
}

/**
 * Sorts the nodes in ONNX Runtime's default order, which determines the tensors that exist at the same time: depth first from the
 * nodes that nothing reads, last node first, and from each node through its inputs, last input first (`Graph::ReverseDFSFrom`).
 */
function inRuntimeOrder(graph: Graph): Graph {
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
