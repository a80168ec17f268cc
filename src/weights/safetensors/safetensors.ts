/**
 * Opens a safetensors file without reading its tensors, and reads them one at a time.
 */
import { toFloat32 } from "../../engine/arrays/convert.ts";
import { byteSize, type DType, viewOf } from "../../engine/arrays/dtype.ts";
import { FormatError, PatchwiseError, ShapeError } from "../../engine/errors.ts";
import type { NdArray } from "../../engine/arrays/ndarray.ts";
import { quote } from "../../engine/messages.ts";
import { MAX_HEADER_BYTES, tags } from "./format.ts";
import { parseHeader, type TensorEntry } from "./header.ts";
import type { ByteSource } from "../sources/source.ts";

/** Named tensors in one file or in many. */
export interface Weights {
  /** How messages call it. */
  readonly name: string;
  /** The free text that its writer left beside the tensors. */
  readonly metadata: ReadonlyMap<string, string>;
  readonly entries: ReadonlyMap<string, TensorEntry>;
  /**
   * One tensor, in the dtype it is stored in.
   *
   * @throws FormatError when there is no such tensor, or its dtype cannot be read
   */
  read(name: string): Promise<NdArray>;
  /** Gives back what the sources hold, e.g. file descriptors. */
  close(): Promise<void>;
}

// 4 MiB: long enough that a read costs little beside its bytes, small beside any model.
const CHUNK_BYTES = 2 ** 22;

// What people hand over by mistake, by its first bytes.
const lookalikes: readonly (readonly [string, string])[] = [
  [
    "version ",
    "a Git LFS pointer, not the weights; run `git lfs pull`, or download the file itself",
  ],
  ["PK\u0003\u0004", "a zip archive, perhaps a PyTorch checkpoint; convert it to safetensors"],
  ["<", "a web page, perhaps an error or a login page; download the file itself"],
];

/**
 * Reads and checks the header, and nothing else.
 *
 * @example const weights = await openSafetensors(blobSource(file));
 * @throws FormatError when the bytes are not a sound safetensors file
 */
export async function openSafetensors(source: ByteSource): Promise<Weights> {
  const { name, size } = source;
  if (size < 8) {
    throw new FormatError(
      `${name}: the file has ${size} bytes, but a safetensors file begins with 8 bytes of header length; download or copy it again.`,
    );
  }
  const prefix = await readRange(source, 0, 8);
  const length = new DataView(prefix.buffer, prefix.byteOffset).getBigUint64(0, true);
  if (length > size - 8) {
    const start = String.fromCharCode(...prefix);
    const lookalike = lookalikes.find(([magic]) => start.startsWith(magic))?.[1];
    throw new FormatError(
      lookalike
        ? `${name}: this is no safetensors file but ${lookalike}.`
        : `${name}: the header should take ${length} bytes, but the file has only ${size - 8} after the length: it is truncated, or no safetensors file.`,
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
      `${name}: the header begins with ${header.length ? `byte ${header[0]}` : "nothing"}, but must begin with "{": this is no safetensors file.`,
    );
  }
  const { metadata, entries } = parseHeader(header, source, 8 + header.length);
  return weightsOf(name, metadata, entries, async () => source.close?.());
}

/** The one form that a file and a set of shards share. */
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
 * Reads one tensor, and only its bytes.
 *
 * @throws FormatError when its dtype is one that can only be listed
 */
export async function readTensor(entry: TensorEntry): Promise<NdArray> {
  const dtype = readableDtype(entry);
  const data = await readElements(entry, dtype, 0, entry.length);
  return { dtype, shape: entry.shape, data };
}

/**
 * Reads one tensor as float32, converting it chunk by chunk: beside the result it holds 4 MiB at most.
 *
 * @param target where to put the values, instead of a new array
 * @throws FormatError when its dtype is one that can only be listed; ShapeError when `target` does not fit
 */
export async function readFloat32(
  entry: TensorEntry,
  target?: Float32Array,
): Promise<NdArray<"float32">> {
  const dtype = readableDtype(entry);
  const size = byteSize(dtype);
  const data = target ?? allocateFloat32(entry.source, entry.length / size);
  if (data.length * size !== entry.length) {
    throw new ShapeError(
      `${entry.source.name}: tensor ${quote(entry.name)} has ${entry.length / size} elements, but the target has ${data.length}.`,
    );
  }
  for (let done = 0; done < entry.length; done += CHUNK_BYTES) {
    const length = Math.min(CHUNK_BYTES, entry.length - done);
    const chunk = await readElements(entry, dtype, done, length);
    toFloat32(dtype, chunk, data.subarray(done / size, (done + length) / size));
  }
  return { dtype: "float32", shape: entry.shape, data };
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
