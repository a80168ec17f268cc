/**
 * Linear layers as products of 8-bit integers, which a CPU computes two to seven times as fast as those of float32. Weights are
 * quantized by output channel and read as such; activations are quantized by row as the program runs.
 *
 * In the step of a training whose weights are stored rather than trained, the products of the backward pass with these weights are of
 * integers too. Gradients pass the rounding as if it were not there (the straight-through estimator of Bengio et al., 2013).
 */
import { parameter, quantizedLinear } from "../graph/functional.ts";
import { type Graph, graphOf, is, leafName, replay } from "../graph/graph.ts";
import { type Dim, factorOf, product } from "../graph/shape.ts";
import type { Node, Tensor } from "../graph/tensor.ts";
import type { WeightSource } from "../runtime/backend.ts";
import { channelsWeight, sliceRows, type StoredWeight } from "../runtime/stored-weight.ts";
import { rowRangeOf } from "./reads.ts";

/** Smaller layers on tokens cost more to quantize than they save. */
const LEAST_CHANNELS = 64;
const LEAST_ROWS = 16;

/** Layers on a single row for each image take as long as reading their weights does; smaller ones take less than quantizing the row. */
const LEAST_WEIGHTS = 2 ** 18;

/** A graph with weights in place of those that it was given. */
export interface QuantizedGraph {
  readonly graph: Graph;
  readonly weights: WeightSource;
}

/**
 * Replaces linear layers by products of 8-bit integers, where the weights are stored and large: those on tokens, and those by which a
 * single row for each image modulates tokens. The first and the last layers on the way through the graph stay in float32, as do
 * other layers on single rows: those of the time and of a prompt, and those that make tokens of one row.
 *
 * The rows of a batch do not influence each other, so each image comes out the same whatever the batch.
 *
 * Only the devices `cpu` and `wasm` have kernels for these products; on others ONNX Runtime computes them on the CPU, between copies.
 *
 * @example const program = await backend.compile(quantized.graph, { weights: quantized.weights });
 */
export function quantizeLinears(graph: Graph, weights: WeightSource): QuantizedGraph {
  const stored = new Map<string, StoredWeight>();
  const chosen = quantizedLayers(graph);
  const made = new Map<Tensor, Tensor>();
  const parameters = new Map<string, readonly [values: Tensor, scale: Tensor]>();

  const quantizedWeight = (weight: Tensor, backward: boolean) => {
    const range = rowRangeOf(weight);
    const found = range && weights(leafName(range.parameter));
    if (!range || !found) return undefined;
    const { start, rows } = range;
    const own = `${leafName(range.parameter)}[${start}:${start + rows}]`;
    const name = backward ? `${own} backward` : own;
    const known = parameters.get(name);
    if (known || (backward && !parameters.has(own))) return known;
    const channels = channelsWeight(sliceRows(found, 0, start, rows), backward);
    const [outputs, inputs] = weight.shape as readonly [number, number];
    const [from, to] = backward ? [outputs, inputs] : [inputs, outputs];
    stored.set(`${name} int8`, channels.values);
    stored.set(`${name} scale`, channels.scale);
    const pair = [
      parameter(`${name} int8`, [from, to], "int8"),
      parameter(`${name} scale`, [to]),
    ] as const;
    parameters.set(name, pair);
    return pair;
  };

  for (const node of graph.nodes) {
    const forward = chosen.has(node);
    const pair =
      forward || isBackward(node) ? quantizedWeight(node.inputs[1]!, !forward) : undefined;
    if (!pair) {
      if (node.inputs.some((tensor) => made.has(tensor))) replay([node], made);
      continue;
    }
    const [x, , bias] = node.inputs.map((tensor) => made.get(tensor) ?? tensor);
    made.set(node.outputs[0]!, quantizedLinear(x!, ...pair, bias));
  }
  const outputs = Object.entries(graph.outputs).map(
    ([name, tensor]) => [name, made.get(tensor) ?? tensor] as const,
  );
  return {
    graph: graphOf(Object.fromEntries(outputs)),
    weights: (name) => stored.get(name) ?? weights(name),
  };
}

/** Returns true for the product that gives the gradient of a linear layer's input: dy·W. */
function isBackward(node: Node): boolean {
  return is(node, "matmul") && !node.attributes.transposeA && !node.attributes.transposeB;
}

/** The linear layers that become products of 8-bit integers if their weights are stored. */
export function quantizedLayers(graph: Graph): ReadonlySet<Node> {
  const ofTokens = (node: Node) => products.has(node.op) && onTokens(node);
  const ofRows = (node: Node) => is(node, "linear") && !onTokens(node);
  const read = behind(graph, ofTokens);
  const between = after(graph, ofTokens);
  const told = after(graph, (node) => products.has(node.op));
  const followed = behind(graph, ofRows);
  const becomeTokens = behind(graph, ofTokens, arrangements);
  return new Set(
    graph.nodes.filter((node) => {
      if (!is(node, "linear") || node.inputs[0]!.dtype !== "float32" || !read.has(node))
        return false;
      const [outputs, inputs] = node.inputs[1]!.shape as readonly [number, number];
      if (ofRows(node)) {
        const modulates = told.has(node) && !followed.has(node) && !becomeTokens.has(node);
        return modulates && inputs * outputs >= LEAST_WEIGHTS;
      }
      return (
        between.has(node) &&
        rowsOf(node.inputs[0]!) >= LEAST_ROWS &&
        Math.min(outputs, inputs) >= LEAST_CHANNELS
      );
    }),
  );
}

/** Rows for each image. */
function rowsOf({ shape }: Tensor): number {
  return product(shape.slice(0, -1).map((dim): Dim => factorOf(dim))) as number;
}

/** Ops with which a network reads its input, mixes tokens and gives its output. */
const products: ReadonlySet<string> = new Set(["linear", "conv", "convTranspose", "attention"]);

/** The nodes that read, directly or not, what one of these gives. */
function after({ nodes }: Graph, isSource: (node: Node) => boolean): ReadonlySet<Node> {
  const found = new Set<Node>();
  for (const node of nodes) {
    if (node.inputs.some(({ node: from }) => found.has(from) || isSource(from))) found.add(node);
  }
  return found;
}

/** The nodes that one of these reads, directly or through other nodes: any, or those of some ops. */
function behind(
  { nodes }: Graph,
  isReader: (node: Node) => boolean,
  through?: ReadonlySet<string>,
): ReadonlySet<Node> {
  const found = new Set<Node>();
  for (const node of nodes.toReversed()) {
    const carries = found.has(node) && (through?.has(node.op) ?? true);
    if (carries || isReader(node)) for (const { node: source } of node.inputs) found.add(source);
  }
  return found;
}

/** Ops that only arrange numbers anew. */
const arrangements: ReadonlySet<string> = new Set(["reshape", "transpose", "expand", "concat"]);

function onTokens({ outputs: [y] }: Node): boolean {
  return y!.rank > 2;
}
