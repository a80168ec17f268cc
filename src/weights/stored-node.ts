/** Reads stored weights into memory. */
import type { NdArray } from "../engine/arrays/ndarray.ts";
import { readFileRange } from "../engine/runtime/read-file-node.ts";
import { readWeight, type StoredWeight } from "../engine/runtime/stored-weight.ts";

/**
 * Reads a weight of any kind, in the dtype that `weightType` gives.
 *
 * @throws FormatError if its file is shorter than when it was opened
 */
export function readStored(weight: StoredWeight): Promise<NdArray> {
  return readWeight(weight, readFileRange);
}
