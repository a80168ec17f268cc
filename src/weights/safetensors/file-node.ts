/** Opens and writes safetensors files on disk. */
import { dirname, join } from "node:path";
import { openGGUF } from "../gguf/gguf.ts";
import { closingOnFailure } from "../sources/closing.ts";
import { writeFileAtomic } from "../sources/atomic-node.ts";
import { openSafetensors, type Weights } from "./safetensors.ts";
import { type Metadata, type NamedArrays, safetensorsChunks } from "./write.ts";
import { openSharded } from "./sharded.ts";
import { fileSource } from "../sources/file-node.ts";

/**
 * Opens a `.safetensors` file, the shards beside a `.safetensors.index.json`, or a `.gguf` file. Only headers are read.
 *
 * @example const weights = await openSafetensorsFile("model.safetensors");
 * @throws FormatError if a file is invalid; PatchwiseError if one cannot be opened
 */
export async function openSafetensorsFile(path: string): Promise<Weights> {
  const source = await fileSource(path);
  return closingOnFailure([source], async () => {
    if (path.toLowerCase().endsWith(".gguf")) return openGGUF(source);
    if (!path.endsWith(".json")) return openSafetensors(source);
    const sharded = await openSharded(source, (file) => fileSource(join(dirname(path), file)));
    await source.close?.();
    return sharded;
  });
}

/**
 * Writes a file atomically, without copying the arrays.
 *
 * @example await writeSafetensors("model.safetensors", Object.entries(params), [["format", "pt"]]);
 * @throws ShapeError if an array does not fit its shape; PatchwiseError if a name is not allowed or the file
 *   cannot be written, in which case an existing file is unchanged
 */
export async function writeSafetensors(
  path: string,
  tensors: NamedArrays,
  metadata?: Metadata,
): Promise<void> {
  await writeFileAtomic(path, safetensorsChunks(tensors, metadata));
}
