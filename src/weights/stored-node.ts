/** Reads stored weights into memory. */
import { open } from "node:fs/promises";
import { FormatError } from "../engine/errors.ts";
import type { NdArray } from "../engine/arrays/ndarray.ts";
import { readWeight, type StoredWeight } from "../engine/runtime/stored-weight.ts";

/**
 * Reads a weight of any kind, in the dtype that `weightType` gives.
 *
 * @throws FormatError if its file is shorter than when it was opened
 */
export function readStored(weight: StoredWeight): Promise<NdArray> {
  return readWeight(weight, readInto);
}

async function readInto(target: Uint8Array, path: string, offset: number): Promise<void> {
  const file = await open(path);
  try {
    // One read call takes a 32-bit length.
    for (let done = 0; done < target.length;) {
      const length = Math.min(target.length - done, 2 ** 30);
      const { bytesRead } = await file.read(target, done, length, offset + done);
      if (bytesRead === 0) {
        throw new FormatError(
          `${path} ended at byte ${offset + done} while it was being read; check that no other program writes to it.`,
        );
      }
      done += bytesRead;
    }
  } finally {
    await file.close();
  }
}
