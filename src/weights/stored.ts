/** Maps the parameters of a program to the stored weights of a checkpoint. */
import { byteSize, viewOf } from "../engine/arrays/ndarray.ts";
import { FormatError, quote } from "../engine/errors.ts";
import type { WeightSource } from "../engine/runtime/backend.ts";
import {
  arrayWeight,
  blocksWeight,
  fileWeight,
  permutedWeight,
  rowsWeight,
  scaledWeight,
  type StoredWeight,
} from "../engine/runtime/stored-weight.ts";
import { asStored, type Weights } from "./safetensors/safetensors.ts";
import type { TensorEntry } from "./safetensors/header.ts";

/**
 * Returns the weights of a checkpoint where they are stored: as byte ranges of files, which are mapped
 * instead of read, or as views of bytes in memory.
 *
 * @param weights files that this process can open by path, or bytes
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
  if (blocks && (source.bytes || source.path !== undefined)) {
    const place = source.path === undefined ? { bytes: source.bytes! } : { path: source.path };
    return blocksWeight({ ...blocks, ...place, offset, shape });
  }
  if (dtype !== null && source.bytes) {
    const bytes = source.bytes.subarray(offset, offset + length);
    const aligned = bytes.byteOffset % byteSize(dtype) === 0 ? bytes : new Uint8Array(bytes);
    const data = viewOf(dtype, aligned.buffer, aligned.byteOffset, length / byteSize(dtype));
    return arrayWeight({ dtype, shape, data });
  }
  if (dtype === null || source.path === undefined) {
    throw new FormatError(
      `${source.name}: tensor ${quote(entry.name)} cannot be used in place: ${dtype === null ? `its dtype ${tag} cannot be computed with; give a file of the same model in float16, bfloat16 or float32, or leave a text encoder out with --without` : "it is not in a file on disk; read it instead"}.`,
    );
  }
  return fileWeight(source.path, offset, dtype, shape);
}
