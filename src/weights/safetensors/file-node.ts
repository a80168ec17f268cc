/**
 * Safetensors files on disk: opened by path, written atomically.
 */
import { dirname, join } from "node:path";
import { writeFileAtomic } from "../sources/atomic-node.ts";
import { openSafetensors, type Weights } from "./safetensors.ts";
import { type Metadata, type NamedArrays, safetensorsChunks } from "./write.ts";
import { openSharded } from "./sharded.ts";
import { fileSource } from "../sources/file-node.ts";

/**
 * Opens a `.safetensors` file, or the shards beside a `.safetensors.index.json`; only headers are read.
 *
 * @example const weights = await openSafetensorsFile("model.safetensors");
 * @throws FormatError when a file is not sound, PatchwiseError when one cannot be opened
 */
export async function openSafetensorsFile(path: string): Promise<Weights> {
  const source = await fileSource(path);
  try {
    if (!path.endsWith(".json")) return await openSafetensors(source);
    const sharded = await openSharded(source, (file) => fileSource(join(dirname(path), file)));
    await source.close?.();
    return sharded;
  } catch (error) {
    await source.close?.();
    throw error;
  }
}

/**
 * Writes a file whole or not at all, straight from the arrays' own memory.
 *
 * @example await writeSafetensors("model.safetensors", Object.entries(params), [["format", "pt"]]);
 * @throws ShapeError when an array does not fit its shape; PatchwiseError when a name is not allowed or the
 * system refuses to write, in which case an old file is unchanged
 */
export async function writeSafetensors(
  path: string,
  tensors: NamedArrays,
  metadata?: Metadata,
): Promise<void> {
  await writeFileAtomic(path, safetensorsChunks(tensors, metadata));
}
