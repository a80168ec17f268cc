/**
 * Collects the nodes and initializers of an ONNX graph while lower.ts walks a graph.
 */
import { byteSize, type DType, type NdArray, ndarray } from "../arrays/ndarray.ts";
import { ShapeError } from "../errors.ts";
import { type Dim, isStatic, type Shape } from "../graph/shape.ts";
import { type AttributeProto, dataTypes, type NodeProto, type TensorProto } from "./proto.ts";

type AttributeValue = number | string | readonly number[] | { readonly float: number };

export interface EmitOptions {
  readonly attributes?: Readonly<Record<string, AttributeValue>>;
  /** "com.microsoft" for the ops of ONNX Runtime itself. */
  readonly domain?: string;
  /** Number of outputs. */
  readonly outputs?: number;
}

/** Adds nodes whose values have names that begin with `#`, which no leaf or output has. */
export class Emitter {
  readonly nodes: NodeProto[] = [];
  readonly initializers: TensorProto[] = [];
  /** A prefix for the names of nodes, so that errors of the runtime name the layer. */
  scope = "";
  private readonly constants = new Map<string, string>();
  private readonly firsts = new Map<string, number>();
  readonly fusedAttention: boolean;
  private readonly batchInput: { name: string; axis: number; factor: number } | undefined;
  private batchSize: string | undefined;
  private count = 0;

  /** @param options.batchInput an input with an axis of size factor·B, from which the batch size is read at run time */
  constructor({
    batchInput,
    fusedAttention,
  }: {
    readonly batchInput: { name: string; axis: number; factor: number } | undefined;
    readonly fusedAttention: boolean;
  }) {
    this.batchInput = batchInput;
    this.fusedAttention = fusedAttention;
  }

  /** Adds a node and returns the names of its outputs. An empty input name omits an optional input. */
  emitMany(opType: string, inputs: readonly string[], options: EmitOptions = {}): string[] {
    const { attributes = {}, domain = "", outputs = 1 } = options;
    const output = Array.from({ length: outputs }, () => `#${this.count++}`);
    this.nodes.push({
      name: `${this.scope}/${opType}${output[0]}`,
      opType,
      domain,
      input: [...inputs],
      output,
      attribute: Object.entries(attributes).map(([name, value]) => toAttribute(name, value)),
    });
    return output;
  }

  /** Adds a node with one output. */
  emit(
    opType: string,
    inputs: readonly string[],
    attributes: Readonly<Record<string, AttributeValue>> = {},
    domain = "",
  ): string {
    return this.emitMany(opType, inputs, { attributes, domain })[0]!;
  }

  /** Returns the first value given for a key, for attributes that all nodes of one kind have to share. */
  shared(key: string, value: number): number {
    const first = this.firsts.get(key) ?? value;
    this.firsts.set(key, first);
    return first;
  }

  /** Adds an initializer; small ones of equal content are shared. */
  constant(array: NdArray): string {
    const bytes = bytesOf(array);
    const key =
      bytes.length <= 512 ? `${array.dtype}[${array.shape.join()}]${bytes.join()}` : undefined;
    const known = key === undefined ? undefined : this.constants.get(key);
    if (known) return known;
    const name = `#${this.count++}`;
    this.initializer(name, array);
    if (key !== undefined) this.constants.set(key, name);
    return name;
  }

  initializer(name: string, array: NdArray): void {
    this.initializers.push({
      name,
      dataType: dataTypes[array.dtype],
      dims: [...array.shape],
      rawData: bytesOf(array),
    });
  }

  /** Adds an initializer whose bytes stay in a range of another file. */
  external(
    name: string,
    stored: {
      path: string;
      offset: number;
      length: number;
      dtype: DType;
      shape: readonly number[];
    },
  ): void {
    this.initializers.push({
      name,
      dataType: dataTypes[stored.dtype],
      dims: [...stored.shape],
      externalData: [
        { key: "location", value: stored.path },
        { key: "offset", value: String(stored.offset) },
        { key: "length", value: String(stored.length) },
      ],
      dataLocation: 1,
    });
  }

  scalar(value: number, dtype: DType): string {
    return this.constant(ndarray(dtype, [], [value]));
  }

  /** Adds an int64 vector. */
  ints(values: readonly number[]): string {
    return this.constant(ndarray("int64", [values.length], values));
  }

  /** Adds a shape as an int64 vector. A batch size is read at run time. */
  dims(shape: Shape): string {
    if (isStatic(shape)) return this.ints(shape);
    return this.emit(
      "Concat",
      shape.map((dim) => this.dim(dim)),
      { axis: 0 },
    );
  }

  /** Adds a shape for Reshape, in which a single symbolic dimension is −1. */
  reshapeDims(shape: Shape): string {
    const symbolic = shape.filter((dim) => typeof dim !== "number").length;
    if (symbolic > 1 || shape.includes(0)) return this.dims(shape);
    return this.ints(shape.map((dim) => (typeof dim === "number" ? dim : -1)));
  }

  /** Adds one dimension as an int64 vector of length 1. */
  dim(dim: Dim): string {
    if (typeof dim === "number") return this.ints([dim]);
    return dim.batch === 1
      ? this.runtimeBatch()
      : this.emit("Mul", [this.runtimeBatch(), this.ints([dim.batch])]);
  }

  private runtimeBatch(): string {
    if (this.batchSize !== undefined) return this.batchSize;
    if (!this.batchInput) {
      throw new ShapeError(
        "The batch size of this graph cannot be known: no input has a batch dimension.",
      );
    }
    const { name, axis, factor } = this.batchInput;
    const size = this.emit("Shape", [name], { start: axis, end: axis + 1 });
    this.batchSize = factor === 1 ? size : this.emit("Div", [size, this.ints([factor])]);
    return this.batchSize;
  }
}

function toAttribute(name: string, value: AttributeValue): AttributeProto {
  if (typeof value === "number") return { name, type: 2, i: value };
  if (typeof value === "string") return { name, type: 3, s: new TextEncoder().encode(value) };
  if ("float" in value) return { name, type: 1, f: value.float };
  return { name, type: 7, ints: [...value] };
}

/** Returns the bytes of an array, which are little-endian on every platform that runs JavaScript today. */
function bytesOf({ data, dtype }: NdArray): Uint8Array {
  return new Uint8Array(data.buffer, data.byteOffset, data.length * byteSize(dtype));
}
