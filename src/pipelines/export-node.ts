/** Writes the programs of a model as ONNX files; the file holds the graph that Patchwise itself runs. */
import { basename } from "node:path";
import { byteSize, castArray, fitsHalf, type NdArray, sizeOf } from "../engine/arrays/ndarray.ts";
import { type Graph, leafName } from "../engine/graph/graph.ts";
import { lower } from "../engine/onnx/lower.ts";
import type { WeightSource } from "../engine/runtime/backend.ts";
import {
  arrayWeights,
  fileWeight,
  type StoredWeight,
  weightType,
} from "../engine/runtime/stored-weight.ts";
import { formatShape } from "../engine/graph/shape.ts";
import type { Tensor } from "../engine/graph/tensor.ts";
import { simplify } from "../engine/passes/simplify.ts";
import { writeFileAtomic } from "../weights/sources/atomic-node.ts";
import { readStored } from "../weights/stored-node.ts";

export interface ExportOptions {
  /** Stores float32 weights as float16 in half the space, but for those with numbers beyond its range; computation stays in float32, with nearly the same results. */
  readonly half?: boolean | undefined;
  /** Uses the operators of the ONNX standard only, in place of ONNX Runtime's fused attention; false by default. */
  readonly plain?: boolean | undefined;
  /** Texts that describe the model, by key. */
  readonly metadata?: Readonly<Record<string, string>> | undefined;
  /** The largest size of weights in bytes that is stored inside the model file; what a protobuf message can hold unless given. */
  readonly inside?: number | undefined;
}

/** An input or output of an exported program; B in a shape is the batch size. */
export interface Port {
  readonly name: string;
  readonly dtype: string;
  readonly shape: string;
}

export interface Exported {
  /** The model file, and the file of its weights if they are stored separately. */
  readonly files: readonly string[];
  readonly inputs: readonly Port[];
  readonly outputs: readonly Port[];
  /** The texts in the file that describe the model. */
  readonly metadata: Readonly<Record<string, string>>;
}

/** 2 GiB, the limit of a protobuf message, minus room for the graph. */
const INSIDE = 2 ** 31 - 2 ** 26;
/** Alignment in bytes of each weight in a separate file, so that it can be mapped. */
const ALIGNMENT = 64;

/**
 * Writes a graph with its weights as ONNX.
 *
 * @throws PatchwiseError if writing fails; no half-written file is left
 */
export async function exportGraph(
  graph: Graph,
  weights: WeightSource,
  path: string,
  { half = false, plain = false, metadata = {}, inside = INSIDE }: ExportOptions = {},
): Promise<Exported> {
  const names = graph.parameters.map(leafName);
  const stored = new Map(names.map((name) => [name, weights(name)!] as const));
  const narrow = half ? await fittingHalf(stored) : new Set<string>();
  const read = async (name: string) => {
    const array = await readStored(stored.get(name)!);
    return narrow.has(name) ? castArray(array, "float16") : array;
  };
  const total = [...stored].reduce(
    (sum, [name, weight]) => sum + lengthOf(weight, narrow.has(name)),
    0,
  );

  const files = [path];
  let source: WeightSource;
  if (total <= inside) {
    const arrays: Record<string, NdArray> = {};
    for (const name of names) arrays[name] = await read(name);
    source = arrayWeights(arrays);
  } else {
    const data = `${path}.data`;
    files.push(data);
    const places = new Map<string, StoredWeight>();
    await writeFileAtomic(data, piecesOf(names, read, basename(data), places));
    source = (name) => places.get(name);
  }
  const simple = simplify(graph);
  const whole = { ...simple, inputs: graph.inputs };
  const options = { standardNames: true, fusedAttention: !plain, metadata };
  await writeFileAtomic(path, lower(whole, source, options).model);
  return {
    files,
    metadata,
    inputs: graph.inputs.map((leaf) => portOf(leafName(leaf), leaf)),
    outputs: Object.entries(graph.outputs).map(([name, tensor]) => portOf(name, tensor)),
  };
}

/** The bytes of all weights in turn; `places` receives where each of them lies. */
async function* piecesOf(
  names: readonly string[],
  read: (name: string) => Promise<NdArray>,
  location: string,
  places: Map<string, StoredWeight>,
): AsyncGenerator<Uint8Array> {
  let offset = 0;
  for (const name of names) {
    const { dtype, shape, data } = await read(name);
    const length = data.byteLength;
    places.set(name, fileWeight(location, offset, dtype, shape));
    yield new Uint8Array(data.buffer, data.byteOffset, length);
    const rest = (ALIGNMENT - (length % ALIGNMENT)) % ALIGNMENT;
    if (rest > 0) yield new Uint8Array(rest);
    offset += length + rest;
  }
}

/** Names of the float32 weights whose numbers float16 has room for. */
async function fittingHalf(
  stored: ReadonlyMap<string, StoredWeight>,
): Promise<ReadonlySet<string>> {
  const names = new Set<string>();
  for (const [name, weight] of stored) {
    const array = await readStored(weight);
    if (array.dtype === "float32" && fitsHalf(array)) names.add(name);
  }
  return names;
}

function lengthOf(weight: StoredWeight, half: boolean): number {
  const { dtype, shape } = weightType(weight);
  return sizeOf(shape) * byteSize(half && dtype === "float32" ? "float16" : dtype);
}

function portOf(name: string, { dtype, shape }: Tensor): Port {
  return { name, dtype, shape: formatShape(shape) };
}
