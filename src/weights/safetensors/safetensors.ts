/** Opens safetensors files without reading their tensors, and reads tensors one at a time. */
import { blockRange, decodeBlocks } from "../../engine/arrays/blocks.ts";
import { scaleRows, toFloat32 } from "../../engine/arrays/convert.ts";
import { rotateGroups } from "../../engine/arrays/hadamard.ts";
import { byteSize, type DType, type NdArray, sizeOf, viewOf } from "../../engine/arrays/ndarray.ts";
import { permuteAxes } from "../../engine/arrays/permute.ts";
import { FormatError, PatchwiseError, quote, ShapeError } from "../../engine/errors.ts";
import { MAX_HEADER_BYTES, tags } from "./format.ts";
import { parseHeader, type TensorEntry } from "./header.ts";
import { lookalike } from "../lookalikes.ts";
import { joinScales, weightFormats } from "../scales.ts";
import type { ByteSource } from "../sources/source.ts";

/** Named tensors in one file or in several. */
export interface Weights {
  /** How errors name the file. */
  readonly name: string;
  /** The metadata strings of the file. */
  readonly metadata: ReadonlyMap<string, string>;
  readonly entries: ReadonlyMap<string, TensorEntry>;
  /**
   * Reads one tensor in its stored dtype.
   *
   * @throws FormatError if there is no such tensor, or its dtype cannot be read
   */
  read(name: string): Promise<NdArray>;
  /** Releases the sources, such as file descriptors. */
  close(): Promise<void>;
}

// 4 MiB: large enough that the cost of a call is negligible, and small compared with any model.
const CHUNK_BYTES = 2 ** 22;

/**
 * Opens a safetensors file. Only the header is read.
 *
 * @example const weights = await openSafetensors(blobSource(file));
 * @throws FormatError if the bytes are not a valid safetensors file
 */
export async function openSafetensors(source: ByteSource): Promise<Weights> {
  return withScales(await openShard(source));
}

/** Weights in 8 bits with their scales. @throws FormatError if a scale does not fit its weight, or a format is not known */
export async function withScales(weights: Weights): Promise<Weights> {
  const { name, metadata, entries } = weights;
  return weightsOf(name, metadata, joinScales(entries, await weightFormats(weights)), () =>
    weights.close(),
  );
}

/** Opens one of several files, whose scales of weights may be in another. */
export async function openShard(source: ByteSource): Promise<Weights> {
  const { name, size } = source;
  if (size < 8) {
    throw new FormatError(
      `${name}: the file has ${size} bytes, but a safetensors file begins with 8 bytes of header length; download or copy it again.`,
    );
  }
  const prefix = await readRange(source, 0, 8);
  const length = new DataView(prefix.buffer, prefix.byteOffset).getBigUint64(0, true);
  if (length > size - 8) {
    const other = lookalike(prefix);
    throw new FormatError(
      other
        ? `${name}: this is not a safetensors file but ${other}.`
        : `${name}: the header should take ${length} bytes, but the file has only ${size - 8} after the length: it is truncated, or not a safetensors file.`,
    );
  }
  if (length > MAX_HEADER_BYTES) {
    throw new FormatError(
      `${name}: the header should take ${length} bytes, but the limit is ${MAX_HEADER_BYTES}.`,
    );
  }
  const header = await readRange(source, 8, Number(length));
  if (header[0] !== 0x7b) {
    throw new FormatError(
      `${name}: the header begins with ${header.length ? `byte ${header[0]}` : "nothing"}, but must begin with "{": this is not a safetensors file.`,
    );
  }
  const { metadata, entries } = parseHeader(header, source, 8 + header.length);
  return weightsOf(name, metadata, entries, async () => source.close?.());
}

/** Builds the interface that a single file and a set of shards have in common. */
export function weightsOf(
  name: string,
  metadata: ReadonlyMap<string, string>,
  entries: ReadonlyMap<string, TensorEntry>,
  close: () => Promise<void>,
): Weights {
  const read = async (tensor: string): Promise<NdArray> => {
    const entry = entries.get(tensor);
    if (entry) return readTensor(entry);
    const example = entries.keys().next();
    throw new FormatError(
      `${name}: there is no tensor ${quote(tensor)} among its ${entries.size}${example.done ? "" : `, such as ${quote(example.value)}`}.`,
    );
  };
  return { name, metadata, entries, read, close };
}

/**
 * Reads the bytes of one tensor.
 *
 * @throws FormatError if its dtype can only be listed
 */
export async function readTensor(entry: TensorEntry): Promise<NdArray> {
  if (entry.axes) return permuteAxes(await readTensor(asStored(entry)), entry.axes);
  if (entry.blocks || isScaled(entry)) return readFloat32(entry);
  const dtype = readableDtype(entry);
  const data = await readElements(entry, dtype, 0, entry.length);
  return { dtype, shape: entry.shape, data };
}

/**
 * Reads one tensor as float32. It is converted in chunks, which take 4 MiB in addition to the result.
 *
 * @param target array for the values; a new one by default
 * @throws FormatError if its dtype can only be listed; ShapeError if `target` has another length
 */
export async function readFloat32(
  entry: TensorEntry,
  target?: Float32Array,
): Promise<NdArray<"float32">> {
  const dtype = readableDtype(entry);
  const size = byteSize(dtype);
  const count = sizeOf(entry.shape);
  const data = target ?? allocateFloat32(entry.source, count);
  if (data.length !== count) {
    throw new ShapeError(
      `${entry.source.name}: tensor ${quote(entry.name)} has ${count} elements, but the target has ${data.length}.`,
    );
  }
  const values = { dtype: "float32", shape: entry.shape, data } as const;
  if (entry.axes) {
    const stored = await readFloat32(asStored(entry));
    data.set(permuteAxes(stored, entry.axes).data as Float32Array);
    return values;
  }
  if (entry.parts) {
    let top = 0;
    for (const part of entry.parts) {
      const end = top + sizeOf(part.shape);
      await readFloat32(part, data.subarray(top, end));
      top = end;
    }
    return values;
  }
  if (entry.blocks) {
    await readBlocks(entry, data);
    return values;
  }
  for (let done = 0; done < entry.length; done += CHUNK_BYTES) {
    const length = Math.min(CHUNK_BYTES, entry.length - done);
    const chunk = await readElements(entry, dtype, done, length);
    toFloat32(dtype, chunk, data.subarray(done / size, (done + length) / size));
  }
  if (entry.scale) scaleRows(data, (await readFloat32(entry.scale)).data);
  if (entry.rotated !== undefined) rotateGroups(data, entry.rotated);
  return values;
}

/** A tensor with its axes as they lie in the file. */
export function asStored({ axes, ...entry }: TensorEntry): TensorEntry {
  if (!axes) return entry;
  return { ...entry, shape: axes.map((_, axis) => entry.shape[axes.indexOf(axis)]!) };
}

/** Numbers that are decoded at a time. */
const CHUNK_NUMBERS = 2 ** 20;

/** Decodes a tensor of blocks in chunks. */
async function readBlocks(entry: TensorEntry, target: Float32Array): Promise<void> {
  const { format, first } = entry.blocks!;
  for (let done = 0; done < target.length; done += CHUNK_NUMBERS) {
    const part = target.subarray(done, done + CHUNK_NUMBERS);
    const { offset, length } = blockRange(format, first + done, part.length);
    const bytes = await readRange(entry.source, entry.offset + offset, length);
    decodeBlocks(format, bytes, first + done, part);
  }
}

/** Reads all tensors as float32 values. */
export async function readAllFloat32({
  entries,
}: Weights): Promise<Record<string, NdArray<"float32">>> {
  const values: Record<string, NdArray<"float32">> = {};
  for (const [name, entry] of entries) values[name] = await readFloat32(entry);
  return values;
}

function isScaled({ scale, parts }: TensorEntry): boolean {
  return scale !== undefined || (parts?.some(isScaled) ?? false);
}

function readableDtype(entry: TensorEntry): DType {
  if (entry.dtype) return entry.dtype;
  const readable = [...tags].filter(([, type]) => type.dtype).map(([tag]) => tag);
  throw new FormatError(
    `${entry.source.name}: tensor ${quote(entry.name)} has the dtype ${entry.tag}, which cannot be read here; convert it to one of ${readable.join(", ")}.`,
  );
}

async function readElements(entry: TensorEntry, dtype: DType, from: number, length: number) {
  const bytes = await readRange(entry.source, entry.offset + from, length);
  if (dtype === "bool") for (let i = 0; i < length; i++) if (bytes[i]! > 1) bytes[i] = 1;
  const size = byteSize(dtype);
  const aligned = bytes.byteOffset % size === 0 ? bytes : bytes.slice();
  return viewOf(dtype, aligned.buffer, aligned.byteOffset, length / size);
}

async function readRange(source: ByteSource, offset: number, length: number) {
  let bytes: Uint8Array<ArrayBuffer>;
  try {
    bytes = await source.read(offset, length);
  } catch (error) {
    throw error instanceof RangeError ? tooLarge(source, length, error) : error;
  }
  if (bytes.length === length) return bytes;
  throw new FormatError(
    `${source.name}: asked for ${length} bytes from byte ${offset}, got ${bytes.length}; open it again.`,
  );
}

function allocateFloat32(source: ByteSource, elements: number): Float32Array {
  try {
    return new Float32Array(elements);
  } catch (error) {
    throw tooLarge(source, elements * 4, error);
  }
}

function tooLarge(source: ByteSource, length: number, cause: unknown): PatchwiseError {
  return new PatchwiseError(
    `${source.name}: ${length} bytes are more than one array can hold here; use a machine or a runtime with more memory.`,
    { cause },
  );
}
