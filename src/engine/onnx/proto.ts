/**
 * The message types of ONNX's protocol buffers that lower.ts writes, with their field numbers (onnx/onnx.proto). The wire format
 * comes from @bufbuild/protobuf.
 */
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import type { DType } from "../arrays/ndarray.ts";

export interface ModelProto {
  irVersion: number;
  producerName: string;
  opsetImport: { domain: string; version: number }[];
  graph: GraphProto;
  metadataProps?: { key: string; value: string }[];
}

export interface GraphProto {
  name: string;
  node: NodeProto[];
  initializer: TensorProto[];
  input: ValueInfoProto[];
  output: ValueInfoProto[];
}

export interface NodeProto {
  name: string;
  opType: string;
  domain: string;
  input: string[];
  output: string[];
  attribute: AttributeProto[];
}

/** `type` selects the value's field: 1 float, 2 int, 3 string, 7 ints. */
export interface AttributeProto {
  name: string;
  type: 1 | 2 | 3 | 7;
  f?: number;
  i?: number;
  s?: Uint8Array;
  ints?: number[];
}

export interface TensorProto {
  name: string;
  dataType: number;
  dims: number[];
  rawData?: Uint8Array;
  externalData?: { key: string; value: string }[];
  /** 1 for data in another file. */
  dataLocation?: 1;
}

export interface ValueInfoProto {
  name: string;
  type: { tensorType: { elemType: number; shape: { dim: DimensionProto[] } } };
}

export interface DimensionProto {
  dimValue?: number;
  dimParam?: string;
}

/** TensorProto.DataType */
export const dataTypes = {
  float32: 1,
  uint8: 2,
  int8: 3,
  int32: 6,
  int64: 7,
  bool: 9,
  float16: 10,
  float64: 11,
  bfloat16: 16,
  float8_e4m3fn: 17,
  float8_e5m2: 19,
} as const satisfies { readonly [D in DType]: number };

type Scalar = "int64" | "int32" | "float" | "string" | "bytes";
type Fields = { readonly [name: string]: readonly [id: number, type: Scalar | Fields] };

const dimension: Fields = { dimValue: [1, "int64"], dimParam: [2, "string"] };
const valueInfo: Fields = {
  name: [1, "string"],
  type: [2, { tensorType: [1, { elemType: [1, "int32"], shape: [2, { dim: [1, dimension] }] }] }],
};
const tensor: Fields = {
  dims: [1, "int64"],
  dataType: [2, "int32"],
  name: [8, "string"],
  rawData: [9, "bytes"],
  externalData: [13, { key: [1, "string"], value: [2, "string"] }],
  dataLocation: [14, "int32"],
};
const attribute: Fields = {
  name: [1, "string"],
  f: [2, "float"],
  i: [3, "int64"],
  s: [4, "bytes"],
  ints: [8, "int64"],
  type: [20, "int32"],
};
const node: Fields = {
  input: [1, "string"],
  output: [2, "string"],
  name: [3, "string"],
  opType: [4, "string"],
  attribute: [5, attribute],
  domain: [7, "string"],
};
const graph: Fields = {
  node: [1, node],
  name: [2, "string"],
  initializer: [5, tensor],
  input: [11, valueInfo],
  output: [12, valueInfo],
};
const model: Fields = {
  irVersion: [1, "int64"],
  producerName: [2, "string"],
  graph: [7, graph],
  opsetImport: [8, { domain: [1, "string"], version: [2, "int64"] }],
  metadataProps: [14, { key: [1, "string"], value: [2, "string"] }],
};

/** Serializes a model. */
export function encodeModel(message: ModelProto): Uint8Array {
  return write(message, model, new BinaryWriter()).finish();
}

const wireTypes = {
  int64: WireType.Varint,
  int32: WireType.Varint,
  float: WireType.Bit32,
  string: WireType.LengthDelimited,
  bytes: WireType.LengthDelimited,
} as const;

/** Repeated numbers are written unpacked, which every reader accepts. */
function write(message: object, fields: Fields, writer: BinaryWriter): BinaryWriter {
  for (const [name, [id, type]] of Object.entries(fields)) {
    const value = (message as Record<string, unknown>)[name];
    if (value === undefined) continue;
    for (const item of Array.isArray(value) ? (value as unknown[]) : [value]) {
      if (typeof type === "object") {
        write(item as object, type, writer.tag(id, WireType.LengthDelimited).fork()).join();
      } else {
        writer.tag(id, wireTypes[type]);
        writer[type](item as never);
      }
    }
  }
  return writer;
}
