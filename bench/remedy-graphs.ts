/**
 * The remedies that `remedies.ts` measures: a network whose linear layers are products of 8-bit integers in some form. Each is computed with the
 * integers that it describes, through the same op that ships.
 */
import { rotateGroups, rotationMatrix } from "../src/engine/arrays/hadamard.ts";
import { castArray, type NdArray, ndarray } from "../src/engine/arrays/ndarray.ts";
import { constant, full, input, parameter } from "../src/engine/graph/functional.ts";
import { type Graph, graphOf, is, leafName, replay } from "../src/engine/graph/graph.ts";
import { apply, applyMany, type Node, type Tensor } from "../src/engine/graph/tensor.ts";
import { quantizedLayers } from "../src/engine/passes/quantize.ts";
import { rowRangeOf } from "../src/engine/passes/reads.ts";
import type { WeightSource } from "../src/engine/runtime/backend.ts";
import {
  arrayWeight,
  channelsWeight,
  sliceRows,
  type StoredWeight,
} from "../src/engine/runtime/stored-weight.ts";
import { readStored } from "../src/weights/stored-node.ts";

/** How the activations of a layer become integers. */
export type Form =
  /** A scale for each row: what `--compute int8` does. */
  | "row"
  /** A scale and a zero point for each row. */
  | "row with zero point"
  /** One scale for all rows of a run. */
  | "tensor"
  /** One scale that is the same in all runs, or in all runs at one noise level. */
  | "fixed"
  | "fixed by noise level"
  /** Activations stay in float32, and weights are rounded. */
  | "weights alone";

export interface Remedy {
  readonly name: string;
  /** "row" unless given. */
  readonly form?: Form;
  /** The layers; "shipped" are those of `--compute int8`, which are its default. */
  readonly layers?: "shipped" | "tokens" | "all" | "no modulation" | "every second";
  /** Divides channels of the activations by √(largest activation / largest weight), by which the weights are multiplied (SmoothQuant, Xiao et al., 2023). */
  readonly smooth?: boolean;
  /** Rotates activations and weights by a Hadamard matrix, in the largest groups up to 256 that divide the channels (QuaRot, Ashkboos et al., 2024). */
  readonly rotate?: boolean;
  /** The steps that are computed in float32, by their share of the way from noise to picture; none unless given. */
  readonly exactSteps?: (share: number) => boolean;
}

/** A network as the pipeline compiles it. */
export interface Network {
  readonly graph: Graph;
  readonly weights: WeightSource;
}

/** What was seen of the activations of each layer in float32. */
export interface Calibration {
  /** The largest magnitude of each channel. */
  readonly channels: ReadonlyMap<Node, Float32Array>;
  /** The largest magnitude by noise level. */
  readonly levels: ReadonlyMap<Node, ReadonlyMap<number, number>>;
}

/** The input with which a "fixed" form is given the scale of each layer. */
export const SCALES = "int8 scales";

/** The linear layers that a remedy computes in integers, in the order of the graph. */
export function layersOf({ graph, weights }: Network, layers: Remedy["layers"]): readonly Node[] {
  const shipped = quantizedLayers(graph);
  const onTokens = ({ outputs: [y] }: Node) => y!.rank > 2;
  const isStored = (node: Node) => {
    const range = rowRangeOf(node.inputs[1]!);
    return range !== undefined && weights(leafName(range.parameter)) !== undefined;
  };
  const linears = graph.nodes.filter(
    (node) => is(node, "linear") && node.inputs[0]!.dtype === "float32" && isStored(node),
  );
  switch (layers ?? "shipped") {
    case "all":
      return linears;
    case "tokens":
      return linears.filter((node) => shipped.has(node) || onTokens(node));
    case "no modulation":
      return linears.filter((node) => shipped.has(node) && onTokens(node));
    case "every second":
      return linears.filter((node) => shipped.has(node)).filter((_, i) => i % 2 === 0);
    case "shipped":
      return linears.filter((node) => shipped.has(node));
  }
}

/** The network with one more output for each layer: the largest magnitude of each channel of what it reads, [in]. */
export function withMagnitudes({ graph }: Network, layers: readonly Node[]): Graph {
  const seen = layers.map((layer, i) => {
    const x = layer.inputs[0]!;
    const rows = Array.from({ length: x.rank - 1 }, (_, axis) => axis);
    return [`magnitude ${i}`, x.abs().max(rows)] as const;
  });
  return graphOf({ ...graph.outputs, ...Object.fromEntries(seen) });
}

/** The network with a remedy. */
export async function remedied(
  network: Network,
  remedy: Remedy,
  calibration: Calibration,
): Promise<Network> {
  const { graph, weights } = network;
  const layers = layersOf(network, remedy.layers);
  const stored = new Map<string, StoredWeight>();
  const matrices = new Map<Node, NdArray<"float32">>();
  for (const layer of layers) matrices.set(layer, await matrixOf(layer, weights));
  const made = new Map<Tensor, Tensor>();
  const isFixed = remedy.form?.startsWith("fixed") === true;
  const scales = isFixed ? input(SCALES, [layers.length]) : undefined;
  for (const node of graph.nodes) {
    const index = layers.indexOf(node);
    if (index < 0) {
      if (node.inputs.some((tensor) => made.has(tensor))) replay([node], made);
      continue;
    }
    const [x, , bias] = node.inputs.map((tensor) => made.get(tensor) ?? tensor);
    const readers = layers.filter((other) => other.inputs[0] === node.inputs[0]);
    const changed = changedChannels(x!, matrices.get(node)!, remedy, () =>
      smoothing(
        calibration.channels.get(node)!,
        readers.map((reader) => matrices.get(reader)!),
      ),
    );
    const channels = channelsWeight(arrayWeight(changed.matrix));
    const name = `int8 layer ${index}`;
    stored.set(`${name} values`, channels.values);
    stored.set(`${name} scale`, channels.scale);
    const [outputs, inputs] = changed.matrix.shape as readonly [number, number];
    const weight = parameter(`${name} values`, [inputs, outputs], "int8");
    const weightScale = parameter(`${name} scale`, [outputs]);
    const fixed = scales?.slice(0, index, index + 1);
    const y = productOf(changed.x, weight, weightScale, remedy.form ?? "row", fixed);
    made.set(node.outputs[0]!, bias ? y.add(bias) : y);
  }
  const outputs = Object.entries(graph.outputs).map(
    ([name, tensor]) => [name, made.get(tensor) ?? tensor] as const,
  );
  return {
    graph: graphOf(Object.fromEntries(outputs)),
    weights: (name) => stored.get(name) ?? weights(name),
  };
}

/** The weight of a linear layer in float32, [out, in]. */
async function matrixOf(layer: Node, weights: WeightSource): Promise<NdArray<"float32">> {
  const { parameter: leaf, start, rows } = rowRangeOf(layer.inputs[1]!)!;
  return castArray(
    await readStored(sliceRows(weights(leafName(leaf))!, 0, start, rows)),
    "float32",
  );
}

/** √(largest activation / largest weight) of each channel, over all layers that read the same activations. */
function smoothing(activations: Float32Array, matrices: readonly NdArray<"float32">[]) {
  const largest = new Float32Array(activations.length);
  for (const { data } of matrices) {
    for (const [i, weight] of data.entries()) {
      const channel = i % largest.length;
      largest[channel] = Math.max(largest[channel]!, Math.abs(weight));
    }
  }
  const least = 1e-5;
  return activations.map((most, i) =>
    Math.sqrt(Math.max(most, least) / Math.max(largest[i]!, least)),
  );
}

/** Activations and weights whose product is that of the layer. */
function changedChannels(
  x: Tensor,
  matrix: NdArray<"float32">,
  { smooth = false, rotate = false }: Remedy,
  smoothingFactors: () => Float32Array,
): { readonly x: Tensor; readonly matrix: NdArray<"float32"> } {
  const inputs = matrix.shape[1]!;
  const data = matrix.data.slice();
  let y = x;
  if (smooth) {
    const factors = smoothingFactors();
    for (let i = 0; i < data.length; i++) data[i]! *= factors[i % inputs]!;
    y = y.div(constant(ndarray("float32", [inputs], factors)));
  }
  const group = rotate ? groupOf(inputs) : 1;
  if (group > 1) {
    rotateGroups(data, group);
    const leading = x.shape.slice(0, -1);
    y = y
      .reshape([...leading, inputs / group, group])
      .matmul(constant(rotationMatrix(group)))
      .reshape(x.shape);
  }
  return { x: y, matrix: ndarray("float32", matrix.shape, data) };
}

/** The largest power of 4 up to 256 that divides a number of channels; 1 if none does. */
function groupOf(channels: number): number {
  return [256, 64, 16, 4].find((size) => channels % size === 0) ?? 1;
}

/** x · weight · weightScale with x in 8 bits, without a bias. */
function productOf(
  x: Tensor,
  weight: Tensor,
  weightScale: Tensor,
  form: Form,
  fixed: Tensor | undefined,
): Tensor {
  const product = (q: Tensor, scale: Tensor) =>
    apply("quantizedLinear", [q, scale, weight, weightScale], {});
  if (form === "row") {
    const [q, scale] = applyMany("quantizeRows", [x], {}) as [Tensor, Tensor];
    return product(q, scale);
  }
  if (form === "weights alone") return x.matmul(weight.cast("float32")).mul(weightScale);
  const oneEach = [...x.shape.slice(0, -1), 1];
  if (form === "row with zero point") {
    const [most, least] = [x.max(-1, true), x.min(-1, true)];
    const middle = most.add(least).div(2);
    const [q, scale] = applyMany("quantizeRows", [x.sub(middle)], {}) as [Tensor, Tensor];
    const sums = weight.cast("float32").sum(0).mul(weightScale);
    return product(q, scale).add(middle.mul(sums));
  }
  const most = fixed ?? x.abs().max();
  const scale = full(oneEach, 1).mul(most.div(127).maximum(1e-30));
  const q = x.div(scale).round().clamp(-127, 127).add(128).cast("uint8");
  return product(q, scale);
}
