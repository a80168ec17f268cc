/** Writes GGUF files of version 3: metadata, descriptions of tensors, then the tensors, each where its description says. */
import { joined } from "../../engine/bytes.ts";
import { type GGUFType, tensorBytes, tensorTypes } from "./types.ts";

/** Tensors begin at multiples of it. */
const ALIGNMENT = 32;

export interface GGUFTensor {
  readonly name: string;
  readonly type: GGUFType;
  /** In PyTorch's order. */
  readonly shape: readonly number[];
  /** Makes its bytes, in any number of pieces, when it is written. */
  bytes(): Iterable<Uint8Array> | AsyncIterable<Uint8Array>;
}

/** Texts, whole numbers of 32 bits, and lists of texts or of whole or other numbers. */
export type GGUFMetadata = Readonly<
  Record<string, string | number | readonly string[] | Int32Array | Float32Array>
>;

/** The pieces of a file; the bytes of one tensor after another are made while it is written. */
export async function* ggufChunks(
  metadata: GGUFMetadata,
  tensors: readonly GGUFTensor[],
): AsyncGenerator<Uint8Array> {
  const pairs = Object.entries(metadata);
  const header = [
    new TextEncoder().encode("GGUF"),
    uint32(3),
    uint64(tensors.length),
    uint64(pairs.length),
    ...pairs.flatMap(([key, value]) => [string(key), ...typed(value)]),
  ];
  let offset = 0;
  for (const { name, type, shape } of tensors) {
    const number = Object.entries(tensorTypes).find(([, each]) => each === type)![0];
    header.push(string(name), uint32(shape.length));
    header.push(...shape.toReversed().map(uint64), uint32(Number(number)), uint64(offset));
    offset += padded(tensorBytes(type, shape));
  }
  const length = header.reduce((sum, part) => sum + part.length, 0);
  yield joined([...header, new Uint8Array(padded(length) - length)]);
  for (const tensor of tensors) {
    let written = 0;
    for await (const piece of tensor.bytes()) {
      written += piece.length;
      yield piece;
    }
    yield new Uint8Array(padded(written) - written);
  }
}

function padded(length: number): number {
  return Math.ceil(length / ALIGNMENT) * ALIGNMENT;
}

function uint32(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value, true);
  return bytes;
}

function uint64(value: number): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(value), true);
  return bytes;
}

function string(text: string): Uint8Array {
  const bytes = new TextEncoder().encode(text);
  return joined([uint64(bytes.length), bytes]);
}

/** The number of a type of metadata. */
const kinds = { uint32: 4, int32: 5, float32: 6, string: 8, list: 9 } as const;

function typed(value: GGUFMetadata[string]): readonly Uint8Array[] {
  if (typeof value === "string") return [uint32(kinds.string), string(value)];
  if (typeof value === "number") return [uint32(kinds.uint32), uint32(value)];
  const list = (kind: number, bytes: readonly Uint8Array[]) => [
    uint32(kinds.list),
    uint32(kind),
    uint64(value.length),
    ...bytes,
  ];
  if (value instanceof Int32Array) return list(kinds.int32, [bytesOf(value)]);
  if (value instanceof Float32Array) return list(kinds.float32, [bytesOf(value)]);
  return list(kinds.string, value.map(string));
}

function bytesOf({ buffer, byteOffset, byteLength }: Int32Array | Float32Array): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}
