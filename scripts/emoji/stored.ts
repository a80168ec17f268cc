/** Arrays in a file. */
import type { NdArray } from "../../src/engine/arrays/ndarray.ts";
import { openSafetensorsFile } from "../../src/weights/safetensors/file-node.ts";
import { readFloat32 } from "../../src/weights/safetensors/safetensors.ts";

/** Reads every array of a safetensors file as float32. */
export async function readArrays(path: string): Promise<Record<string, NdArray<"float32">>> {
  const weights = await openSafetensorsFile(path);
  try {
    const read: Record<string, NdArray<"float32">> = {};
    for (const [name, entry] of weights.entries) read[name] = await readFloat32(entry);
    return read;
  } finally {
    await weights.close();
  }
}
