/** Stored weights as arrays, wherever they lie. */
import { open } from "node:fs/promises";
import { allocate, byteSize } from "../engine/arrays/dtype.ts";
import { FormatError } from "../engine/errors.ts";
import { type NdArray, sizeOf } from "../engine/arrays/ndarray.ts";
import type { StoredWeight } from "../engine/runtime/backend.ts";
import { piecesOfWeight, typeOfWeight } from "../engine/runtime/stored-weight.ts";

/**
 * Reads a weight, in the dtype it is stored in.
 *
 * @throws FormatError when its file has become shorter
 */
export async function readStored(weight: StoredWeight): Promise<NdArray> {
  const { dtype, shape } = typeOfWeight(weight);
  const data = allocate(dtype, sizeOf(shape));
  const bytes = new Uint8Array(data.buffer);
  let top = 0;
  for (const piece of piecesOfWeight(weight)) {
    const length = sizeOf(typeOfWeight(piece).shape) * byteSize(dtype);
    const target = bytes.subarray(top, top + length);
    if (piece.kind === "file") await readInto(target, piece.path, piece.offset);
    else {
      const { buffer, byteOffset } = piece.array.data;
      target.set(new Uint8Array(buffer, byteOffset, length));
    }
    top += length;
  }
  return { dtype, shape, data };
}

async function readInto(target: Uint8Array, path: string, offset: number): Promise<void> {
  const file = await open(path);
  try {
    // One read call takes a 32-bit length.
    for (let done = 0; done < target.length;) {
      const length = Math.min(target.length - done, 2 ** 30);
      const { bytesRead } = await file.read(target, done, length, offset + done);
      if (bytesRead === 0) {
        throw new FormatError(`${path} ended at byte ${offset + done} while it was being read.`);
      }
      done += bytesRead;
    }
  } finally {
    await file.close();
  }
}
