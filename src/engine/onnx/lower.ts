/**
 * Converts a graph to an ONNX model, with one rule for each op. This model is what runs on every device and what `patchwise export`
 * writes.
 */
import { blockFormats, blockRange } from "../arrays/blocks.ts";
import { type Float8, fromFloat8, isFloat8 } from "../arrays/convert.ts";
import { type DType, sizeOf, viewOf, ndarray } from "../arrays/ndarray.ts";
import { type Graph, leafName } from "../graph/graph.ts";
import type { OpName } from "../graph/ops.ts";
import type { WeightSource } from "../runtime/backend.ts";
import { formatDim, formatShape, sameShape, type Shape } from "../graph/shape.ts";
import type { Node, Tensor } from "../graph/tensor.ts";
import { Emitter } from "./emitter.ts";
import { lowerBlocks } from "./lower-blocks.ts";
import { lowerRotation } from "./lower-rotation.ts";
import { lowerRules } from "./lower-rules.ts";
import { dataTypes, encodeModel, type ModelProto, type ValueInfoProto } from "./proto.ts";
import { PatchwiseError, ShapeError } from "../errors.ts";
import {
  type BlocksWeight,
  emitWeight,
  isGatherable,
  sliceRows,
  type StoredWeight,
  type WeightEmitter,
  weightType,
} from "../runtime/stored-weight.ts";
import { gathersOf, readsOf, rowAxis } from "../passes/reads.ts";

/** The ONNX opset and IR version that the rules are written for. */
const OPSET = 23;
const IR_VERSION = 11;

export interface Lowered {
  readonly model: Uint8Array;
  /** Names that each run must be given: inputs, and the parameters without a stored weight. */
  readonly feeds: readonly string[];
}

export interface LowerOptions {
  /** True if attention may be ONNX Runtime's fused op; true by default. */
  readonly fusedAttention?: boolean;
  /** Uses the operator names of the ONNX standard, where ONNX Runtime has names of its own with more kernels; false by default. */
  readonly standardNames?: boolean;
  /** Texts that describe the model, by key; none by default. */
  readonly metadata?: Readonly<Record<string, string>>;
}

/**
 * Serializes a graph as an ONNX model.
 *
 * @param weights parameters that become initializers; the others become inputs
 * @throws ShapeError if a stored weight has another shape than its parameter
 */
export function lower(graph: Graph, weights?: WeightSource, options?: LowerOptions): Lowered {
  const { message, feeds } = lowerToMessage(graph, weights, options);
  return { model: encodeModel(message), feeds };
}

/** The first half of `lower`: the model before it is serialized. */
export function lowerToMessage(
  graph: Graph,
  weights: WeightSource = () => undefined,
  { fusedAttention = true, standardNames = false, metadata = {} }: LowerOptions = {},
): Pick<Lowered, "feeds"> & { readonly message: ModelProto } {
  const emitter = new Emitter({ batchInput: findBatch(graph), fusedAttention });
  const names = new Map<Tensor, string>();
  const used = new Set(graph.nodes.flatMap((node) => node.inputs));
  for (const output of Object.values(graph.outputs)) used.add(output);
  const feeds: Tensor[] = [...graph.inputs];
  /** Nodes that read rows of a table, which are converted after they were chosen. */
  const tables = new Map<Node, Table>();

  for (const input of graph.inputs) names.set(input, leafName(input));
  for (const parameter of graph.parameters) {
    const name = leafName(parameter);
    const stored = weights(name);
    if (!stored) {
      names.set(parameter, name);
      feeds.push(parameter);
      continue;
    }
    const rows = isGatherable(stored) ? gathersOf(parameter, graph) : [];
    for (const node of rows) tables.set(node, { name, stored });
    for (const entry of lowerWeight(name, parameter, stored, graph, rows, emitter))
      names.set(...entry);
  }

  for (const node of graph.nodes) {
    if (node.op === "input" || node.op === "parameter") continue;
    // The slices of a weight have names already.
    if (node.outputs.every((output) => names.has(output))) continue;
    emitter.scope = node.scope || node.op;
    const inputs = node.inputs.map((tensor) => names.get(tensor)!);
    const table = tables.get(node);
    if (table) {
      names.set(node.outputs[0]!, lowerRows(table, inputs[1]!, node, emitter));
      continue;
    }
    const outputs = applyRule(node, inputs, emitter, (tensor) => used.has(tensor));
    for (const [i, output] of node.outputs.entries()) names.set(output, outputs[i] ?? "");
  }

  const outputs = Object.entries(graph.outputs).map(([name, tensor]) => {
    emitter.nodes.push({
      name: `output/${name}`,
      opType: "Identity",
      domain: "",
      input: [names.get(tensor)!],
      output: [name],
      attribute: [],
    });
    return valueInfo(name, tensor);
  });

  if (standardNames) {
    for (const node of emitter.nodes) {
      if (node.opType !== "SimplifiedLayerNormalization") continue;
      node.name = node.name.replace(node.opType, "RMSNormalization");
      node.opType = "RMSNormalization";
    }
  }
  const message: ModelProto = {
    irVersion: IR_VERSION,
    producerName: "patchwise",
    opsetImport: [
      { domain: "", version: OPSET },
      ...(fusedAttention ? [{ domain: "com.microsoft", version: 1 }] : []),
    ],
    metadataProps: Object.entries(metadata).map(([key, value]) => ({ key, value })),
    graph: {
      name: "patchwise",
      node: nameOutputs(emitter),
      initializer: emitter.initializers,
      input: feeds.map((tensor) => valueInfo(leafName(tensor), tensor)),
      output: outputs,
    },
  };
  return { message, feeds: feeds.map(leafName) };
}

function applyRule<K extends OpName>(
  node: Node<K>,
  inputs: readonly string[],
  emitter: Emitter,
  isUsed: (tensor: Tensor) => boolean,
): readonly string[] {
  const result = lowerRules[node.op]({ node, inputs, emitter, isUsed });
  return typeof result === "string" ? [result] : result;
}

/** Removes each Identity that only renames a value: the node that makes the value gets the new name. */
function nameOutputs({ nodes }: Emitter) {
  const renamed = new Map<string, string>();
  const producers = new Map(
    nodes.flatMap((node) => node.output.map((name) => [name, node] as const)),
  );
  const kept = nodes.filter((node) => {
    const [from, to] = [node.input[0]!, node.output[0]!];
    const outputOnly = node.opType === "Identity" && !to.startsWith("#");
    if (!outputOnly || renamed.has(from) || !from.startsWith("#") || !producers.has(from))
      return true;
    renamed.set(from, to);
    return false;
  });
  const rename = (name: string) => renamed.get(name) ?? name;
  for (const node of kept) {
    node.input = node.input.map(rename);
    node.output = node.output.map(rename);
  }
  return kept;
}

function findBatch(graph: Graph) {
  for (const input of graph.inputs) {
    for (const [axis, dim] of input.shape.entries()) {
      if (typeof dim !== "number") return { name: leafName(input), axis, factor: dim.batch };
    }
  }
  return undefined;
}

function valueInfo(
  name: string,
  { dtype, shape }: { dtype: Tensor["dtype"]; shape: Shape },
): ValueInfoProto {
  const dim = shape.map((d) =>
    typeof d === "number" ? { dimValue: d } : { dimParam: formatDim(d) },
  );
  return { name, type: { tensorType: { elemType: dataTypes[dtype], shape: { dim } } } };
}

/**
 * Adds a weight to the ONNX graph.
 *
 * @returns the ONNX names of the parameter and of its slices, for those that the graph uses
 * @throws ShapeError if the weight and its parameter differ in shape
 */
function lowerWeight(
  name: string,
  parameter: Tensor,
  stored: StoredWeight,
  graph: Graph,
  gathers: readonly Node[],
  emitter: Emitter,
): Map<Tensor, string> {
  const { shape } = weightType(stored);
  if (!sameShape(shape, parameter.shape)) {
    throw new ShapeError(
      `The stored weight ${name} is ${formatShape(shape)}, the model expects ${formatShape(parameter.shape)}.`,
    );
  }
  const others = { ...graph, nodes: graph.nodes.filter((node) => !gathers.includes(node)) };
  const { whole, cuts } =
    gathers.length === 0 || others.nodes.some(({ inputs }) => inputs.includes(parameter))
      ? readsOf(parameter, others)
      : { whole: false, cuts: [] };
  // Checkpoints in floats of 8 and 16 bits stay as they are stored and are converted to the dtype of the model.
  const converted = (as: string, dtype: DType): string => {
    if (dtype === parameter.dtype) return as;
    emitter.scope = parameter.node.scope;
    return emitter.emit("Cast", [as], { to: dataTypes[parameter.dtype] });
  };
  const target: WeightEmitter = {
    array(as, array) {
      emitter.initializer(as, array);
      return converted(as, array.dtype);
    },
    file(as, weight) {
      emitter.external(as, weight);
      return converted(as, weight.dtype);
    },
    concat(parts) {
      emitter.scope = parameter.node.scope;
      return emitter.emit("Concat", parts, { axis: 0 });
    },
    blocks(as, weight) {
      emitter.scope = parameter.node.scope;
      const numbers = lowerBlocks(emitter, weight.format, blockViews(as, weight, emitter));
      return converted(emitter.emit("Reshape", [numbers, emitter.ints(weight.shape)]), "float32");
    },
    multiply(numbers, scale) {
      emitter.scope = parameter.node.scope;
      return emitter.emit("Mul", [numbers, scale]);
    },
    rotate: (numbers, size, dims) => lowerRotation(emitter, numbers, size, dims),
    adapt(base, up, down, dims) {
      const product = emitter.emit("MatMul", [up, down]);
      const shaped = emitter.emit("Reshape", [product, emitter.ints(dims)]);
      return emitter.emit("Add", [base, shaped]);
    },
  };

  const names = new Map<Tensor, string>();
  if (whole) names.set(parameter, emitWeight(stored, name, target));
  for (const [i, cut] of cuts.entries()) {
    for (const { output, start, rows } of cut) {
      const as = `${name}[${start}:${start + rows}]${cuts.length > 1 ? `#${i}` : ""}`;
      names.set(output, emitWeight(sliceRows(stored, rowAxis(shape), start, rows), as, target));
    }
  }
  return names;
}

/** A weight of which a node takes some rows. */
interface Table {
  readonly name: string;
  readonly stored: StoredWeight;
}

/** Adds some rows of a weight, which alone are converted: of a vocabulary, a text needs few. */
function lowerRows({ name, stored }: Table, ids: string, node: Node, emitter: Emitter): string {
  const [output] = node.outputs as [Tensor];
  const taken = (matrix: string) => emitter.emit("Gather", [matrix, ids], { axis: 0 });
  const converted = (rows: string, dtype: DType) =>
    dtype === output.dtype ? rows : emitter.emit("Cast", [rows], { to: dataTypes[output.dtype] });
  /** ONNX gathers no 8-bit floats, so their bytes are gathered, and then the numbers that these stand for. */
  const looked = (as: string, dtype: Float8) => {
    const values = Array.from({ length: 256 }, (_, bits) => fromFloat8(dtype, bits));
    emitter.initializer(`${as}#values`, ndarray("float32", [256], values));
    const codes = emitter.emit("Cast", [taken(as)], { to: dataTypes.int32 });
    return converted(emitter.emit("Gather", [`${as}#values`, codes], { axis: 0 }), "float32");
  };
  return emitWeight(stored, name, {
    array(as, { dtype, shape, data }) {
      if (isFloat8(dtype)) {
        emitter.initializer(as, { dtype: "uint8", shape, data });
        return looked(as, dtype);
      }
      emitter.initializer(as, { dtype, shape, data });
      return converted(taken(as), dtype);
    },
    file(as, weight) {
      const { dtype } = weight;
      emitter.external(as, isFloat8(dtype) ? { ...weight, dtype: "uint8" } : weight);
      return isFloat8(dtype) ? looked(as, dtype) : converted(taken(as), dtype);
    },
    blocks(as, weight) {
      const [rows] = weight.shape;
      const views = blockViews(as, weight, emitter);
      const chosen = new Map<DType, string>();
      const numbers = lowerBlocks(emitter, weight.format, (dtype, columns) => {
        const table = () =>
          emitter.emit("Reshape", [views(dtype, columns), emitter.ints([rows!, -1])]);
        const found =
          chosen.get(dtype) ??
          emitter.emit("Reshape", [taken(table()), emitter.ints([-1, columns])]);
        chosen.set(dtype, found);
        return found;
      });
      const shaped = emitter.emit("Reshape", [numbers, emitter.reshapeDims(output.shape)]);
      return converted(shaped, "float32");
    },
    concat: refused,
    multiply: refused,
    rotate: refused,
    adapt: refused,
  });
}

/** `isGatherable` excludes the weights that this would be called for. */
function refused(): never {
  throw new PatchwiseError("The rows of this weight cannot be chosen before they are computed.");
}

/** Adds blocks of quantized numbers to the ONNX graph, as matrices of several types that read the same bytes. */
function blockViews(name: string, weight: BlocksWeight, emitter: Emitter) {
  const { format, first, path, bytes, offset, shape } = weight;
  const range = blockRange(format, first, sizeOf(shape));
  const count = range.length / blockFormats[format].bytes;
  const added = new Set<string>();
  return (dtype: DType, columns: number): string => {
    const as = `${name} as ${dtype}`;
    if (added.has(as)) return as;
    added.add(as);
    const at = { offset: offset + range.offset, length: range.length };
    const whole = { dtype, shape: [count, columns] };
    if (path !== undefined) emitter.external(as, { path, ...at, ...whole });
    else {
      const own = bytes!.slice(at.offset, at.offset + at.length);
      emitter.initializer(as, { ...whole, data: viewOf(dtype, own.buffer, 0, count * columns) });
    }
    return as;
  };
}
