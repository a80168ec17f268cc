/** Maps the parameters of a program to the stored weights of a checkpoint. */
import { byteSize, viewOf } from "../engine/arrays/ndarray.ts";
import { FormatError, quote } from "../engine/errors.ts";
import type { WeightSource } from "../engine/runtime/backend.ts";
import {
  arrayWeight,
  type BlocksWeight,
  blocksWeight,
  fileWeight,
  permutedWeight,
  rowsWeight,
  scaledWeight,
  type StoredWeight,
} from "../engine/runtime/stored-weight.ts";
import { asStored, type Weights } from "./safetensors/safetensors.ts";
import type { ByteSource } from "./sources/source.ts";
import type { TensorEntry } from "./safetensors/header.ts";

/**
 * Returns the weights of a checkpoint where they are stored: as byte ranges of files, which are mapped
 * instead of read, or as views of bytes in memory.
 *
 * @param weights files that this process can open by path, bytes, or sources of which ranges are fetched when a program is compiled
 * @param rename maps the name of a parameter to the key of the checkpoint; the same name by default
 * @throws FormatError, when the program is compiled, for a tensor whose dtype is not supported
 */
export function storedWeights(
  weights: Weights,
  rename: (name: string) => string = (name) => name,
): WeightSource {
  return (name) => {
    const entry = weights.entries.get(rename(name));
    return entry && storedAt(entry);
  };
}

function storedAt(entry: TensorEntry): StoredWeight {
  if (entry.axes) return permutedWeight(storedAt(asStored(entry)), entry.axes);
  const { scale, rotated, ...numbers } = entry;
  if (scale) return scaledWeight(storedAt(numbers), storedAt(scale), rotated);
  const { tag, dtype, shape, offset, length, source, parts, blocks } = numbers;
  if (parts) return rowsWeight(parts.map(storedAt));
  if (blocks) {
    const place = source.path !== undefined ? { path: source.path } : inMemory(source);
    return blocksWeight({ ...blocks, ...place, offset, shape });
  }
  if (dtype !== null && source.bytes) {
    const bytes = source.bytes.subarray(offset, offset + length);
    const aligned = bytes.byteOffset % byteSize(dtype) === 0 ? bytes : new Uint8Array(bytes);
    const data = viewOf(dtype, aligned.buffer, aligned.byteOffset, length / byteSize(dtype));
    return arrayWeight({ dtype, shape, data });
  }
  if (dtype === null) {
    throw new FormatError(
      `${source.name}: tensor ${quote(entry.name)} cannot be used in place: its dtype ${tag} cannot be computed with; give a file of the same model in float16, bfloat16 or float32, or leave a text encoder out with --without.`,
    );
  }
  if (source.path === undefined) {
    return { kind: "remote", fetch: (at, count) => source.read(at, count), offset, dtype, shape };
  }
  return fileWeight(source.path, offset, dtype, shape);
}

/** The bytes of a source that is not a file of this machine, or how to fetch them. */
function inMemory(source: ByteSource): Pick<BlocksWeight, "bytes" | "fetch"> {
  return source.bytes ? { bytes: source.bytes } : { fetch: (at, count) => source.read(at, count) };
}
