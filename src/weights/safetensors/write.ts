/**
 * Writes tensors in the safetensors format, byte for byte as the reference implementation does: ordered by
 * descending alignment and then by name, after a header padded to 8 bytes. So every tensor is aligned to its
 * element size, and equal tensors always give equal bytes.
 */
import { joined } from "../../engine/bytes.ts";
import { byteSize, type DType, type NdArray, sizeOf } from "../../engine/arrays/ndarray.ts";
import { PatchwiseError, quote, ShapeError } from "../../engine/errors.ts";
import { MAX_HEADER_BYTES, METADATA_KEY, tags } from "./format.ts";

/** A Map, or the entries of an object. */
export type NamedArrays = Iterable<readonly [name: string, array: NdArray]>;
export type Metadata = Iterable<readonly [key: string, value: string]>;

const tagsOfDtypes = new Map<DType, { readonly tag: string; readonly rank: number }>();
[...tags].forEach(([tag, { dtype }], rank) => {
  if (dtype) tagsOfDtypes.set(dtype, { tag, rank });
});

/**
 * Encodes a file as one array. To write to disk, `writeSafetensors` needs no such copy.
 *
 * @throws ShapeError if an array does not fit its shape; PatchwiseError if a name is not allowed or occurs
 *   twice
 */
export function safetensorsBytes(
  tensors: NamedArrays,
  metadata?: Metadata,
): Uint8Array<ArrayBuffer> {
  return joined(safetensorsChunks(tensors, metadata));
}

/**
 * Encodes a file in pieces: the header, then the memory of each tensor, without a copy.
 *
 * @throws as `safetensorsBytes`
 */
export function safetensorsChunks(tensors: NamedArrays, metadata: Metadata = []): Uint8Array[] {
  const sorted = inOrder([...tensors].map(([name, array]) => ({ name, ...array })));
  for (const array of sorted) checkLength(array.name, array);
  const contents = sorted.map(
    ({ data }) => new Uint8Array(data.buffer, data.byteOffset, data.byteLength),
  );
  return [headerOf(sorted, metadata), ...contents];
}

/** A tensor whose bytes are made as they are written. */
export interface StreamedTensor {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
  /** The bytes in pieces, in the number that dtype and shape say. */
  bytes(): Iterable<Uint8Array> | AsyncIterable<Uint8Array>;
}

/**
 * Encodes a file whose tensors need not be in memory, in pieces. They are asked for their bytes in the order of the file.
 *
 * @throws as `safetensorsBytes`
 */
export async function* safetensorsStream(
  tensors: readonly StreamedTensor[],
  metadata: Metadata = [],
): AsyncGenerator<Uint8Array> {
  const sorted = inOrder(tensors);
  yield headerOf(sorted, metadata);
  for (const tensor of sorted) yield* tensor.bytes();
}

type Typed = Pick<StreamedTensor, "name" | "dtype" | "shape">;

/** By descending alignment and then by name. */
function inOrder<T extends Typed>(tensors: readonly T[]): T[] {
  return tensors.toSorted(
    (a, b) => tagOf(b.dtype).rank - tagOf(a.dtype).rank || compareCodePoints(a.name, b.name),
  );
}

function headerOf(sorted: readonly Typed[], metadata: Metadata): Uint8Array {
  const notes = [...metadata].sort(([a], [b]) => compareCodePoints(a, b));
  checkNames(
    "tensor",
    [METADATA_KEY],
    sorted.map(({ name }) => name),
  );
  checkNames(
    "metadata",
    [],
    notes.map(([key]) => key),
  );

  const fields: string[] = [];
  // Fields are concatenated, because an object literal would move keys such as "1" to the front.
  const noteFields = notes.map(([key, value]) => `${JSON.stringify(key)}:${noteText(key, value)}`);
  if (notes.length) fields.push(`${JSON.stringify(METADATA_KEY)}:{${noteFields.join(",")}}`);
  let offset = 0;
  for (const { name, dtype, shape } of sorted) {
    const end = offset + sizeOf(shape) * byteSize(dtype);
    const entry = { dtype: tagOf(dtype).tag, shape, data_offsets: [offset, end] };
    fields.push(`${JSON.stringify(name)}:${JSON.stringify(entry)}`);
    offset = end;
  }
  return headerBytes(`{${fields.join(",")}}`);
}

function headerBytes(json: string): Uint8Array {
  const text = new TextEncoder().encode(json);
  const length = Math.ceil(text.length / 8) * 8;
  if (length > MAX_HEADER_BYTES) {
    throw new PatchwiseError(
      `The header of a safetensors file would take ${length} bytes, but readers allow ${MAX_HEADER_BYTES}; write several files.`,
    );
  }
  const bytes = new Uint8Array(8 + length).fill(0x20);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(length), true);
  bytes.set(text, 8);
  return bytes;
}

function tagOf(dtype: DType): { readonly tag: string; readonly rank: number } {
  const tag = tagsOfDtypes.get(dtype);
  if (tag) return tag;
  throw new PatchwiseError(`A tensor of dtype ${dtype} cannot be written to safetensors.`);
}

/** Rejects names that readers would refuse or misinterpret. */
function checkNames(kind: string, reserved: readonly string[], names: readonly string[]): void {
  const seen = new Set(reserved);
  for (const name of names) {
    const fail = (problem: string): never => {
      throw new PatchwiseError(`The ${kind} name ${quote(name)} ${problem}; give it another name.`);
    };
    if (reserved.includes(name)) fail("is reserved");
    if (seen.has(name)) fail("is given twice");
    if (name.split(".").includes("__proto__")) fail("is one that readers reject");
    if (!isWellFormed(name)) fail("has a lone surrogate, which UTF-8 cannot encode");
    seen.add(name);
  }
}

function noteText(key: string, value: unknown): string {
  if (typeof value === "string" && isWellFormed(value)) return JSON.stringify(value);
  throw new PatchwiseError(
    `The metadata value of ${quote(key)} must be a well-formed string, but is ${quote(String(value))}.`,
  );
}

function checkLength(name: string, { dtype, shape, data }: NdArray): void {
  if (data.length === sizeOf(shape) && data.BYTES_PER_ELEMENT === byteSize(dtype)) return;
  throw new ShapeError(
    `Tensor ${quote(name)}: ${dtype} of shape [${shape.join(", ")}] needs ${sizeOf(shape)} elements of ${byteSize(dtype)} bytes, but its data has ${data.length} of ${data.BYTES_PER_ELEMENT}.`,
  );
}

function isWellFormed(text: string): boolean {
  return !/\p{Cs}/u.test(text);
}

/** Compares in the order of UTF-8 bytes, in which surrogate pairs follow all other characters. */
function compareCodePoints(a: string, b: string): number {
  const end = Math.min(a.length, b.length);
  for (let i = 0; i < end; i++) {
    const x = a.charCodeAt(i);
    const y = b.charCodeAt(i);
    if (x === y) continue;
    const xPair = (x & 0xf800) === 0xd800;
    const yPair = (y & 0xf800) === 0xd800;
    if (xPair === yPair) return x - y;
    return xPair ? 1 : -1;
  }
  return a.length - b.length;
}
