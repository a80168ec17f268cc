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

/** Smaller layers cost more to quantize than they save. */
const LEAST_CHANNELS = 64;
const LEAST_ROWS = 16;

/** A graph with weights in place of those that it was given. */
export interface QuantizedGraph {
  readonly graph: Graph;
  readonly weights: WeightSource;
}

/**
 * Replaces the linear layers on tokens by products of 8-bit integers, where the weights are stored and large. The first and the
 * last layers on the way through the graph stay in float32, as do layers on a single row for each image, such as modulation.
 *
 * The rows of a batch do not influence each other, so each image comes out the same whatever the batch.
 *
 * @example const program = await backend.compile(quantized.graph, { weights: quantized.weights });
 */
export function quantizeLinears(graph: Graph, weights: WeightSource): QuantizedGraph {
  const stored = new Map<string, StoredWeight>();
  const inner = innerNodes(graph);
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
    const forward = is(node, "linear") && inner.has(node) && isLarge(node);
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

function isLarge({ inputs: [x, weight] }: Node): boolean {
  const rows = product(x!.shape.slice(0, -1).map((dim): Dim => factorOf(dim)));
  const [outputs, inputs] = weight!.shape as readonly [number, number];
  return (
    x!.dtype === "float32" &&
    (rows as number) >= LEAST_ROWS &&
    Math.min(outputs, inputs) >= LEAST_CHANNELS
  );
}

/** Ops with which a network reads its input, mixes tokens and gives its output. */
const products: ReadonlySet<string> = new Set(["linear", "conv", "convTranspose", "attention"]);

/** The nodes that have a product of tokens before them and one after them. */
function innerNodes(graph: Graph): Set<Node> {
  const [after, before] = [new Set<Node>(), new Set<Node>()];
  for (const node of graph.nodes) {
    const isAfter = node.inputs.some(
      ({ node: source }) => after.has(source) || (products.has(source.op) && onTokens(source)),
    );
    if (isAfter) after.add(node);
  }
  for (const node of graph.nodes.toReversed()) {
    if (!before.has(node) && !(products.has(node.op) && onTokens(node))) continue;
    for (const { node: source } of node.inputs) before.add(source);
  }
  return new Set([...after].filter((node) => before.has(node)));
}

function onTokens({ outputs: [y] }: Node): boolean {
  return y!.rank > 2;
}
