/**
 * Opens checkpoints that are split over several files, with an index (`model.safetensors.index.json`) of
 * which file holds which tensor: `{ "metadata": {…}, "weight_map": { "tensor name": "file name" } }`.
 */
import { FormatError, quote } from "../../engine/errors.ts";
import { JsonScanner } from "../json.ts";
import { openShard, type Weights, weightsOf, withScales } from "./safetensors.ts";
import { MAX_HEADER_BYTES } from "./format.ts";
import type { TensorEntry } from "./header.ts";
import type { ByteSource } from "../sources/source.ts";

/** The largest public checkpoints have some 200 shards. Each costs an open file and a few requests. */
const MAX_SHARDS = 4096;

/** No more than browsers open to one server at a time. */
const CONCURRENT_OPENS = 6;

/**
 * Opens all shards as one set of weights. Tensors of a shard that the index does not list are left out.
 *
 * @param openFile opens a shard by its file name, which is in the folder of the index
 * @throws FormatError if the index is invalid, or a shard lacks a tensor that the index lists
 */
export async function openSharded(
  index: ByteSource,
  openFile: (fileName: string) => Promise<ByteSource>,
): Promise<Weights> {
  const weightMap = await readShardIndex(index);
  const shards = new Map<string, Weights>();
  const close = async () => {
    await Promise.all([...shards.values()].map((shard) => shard.close()));
  };
  try {
    const names = [...new Set(weightMap.values())];
    const openNext = async () => {
      for (let name = names.pop(); name !== undefined; name = names.pop()) {
        shards.set(name, await openOne(name, index.name, openFile));
      }
    };
    // close() knows all opened shards only after all workers have stopped.
    const workers = Array.from({ length: CONCURRENT_OPENS }, () =>
      openNext().catch((error: unknown) => {
        names.length = 0;
        throw error;
      }),
    );
    const failed = (await Promise.allSettled(workers)).find((end) => end.status === "rejected");
    if (failed) throw failed.reason;
    const entries = gather(index.name, weightMap, shards);
    return withScales(weightsOf(index.name, sharedMetadata(shards), entries, close));
  } catch (error) {
    await close();
    throw error;
  }
}

/** Reads an index: the file name of each tensor. */
export async function readShardIndex(index: ByteSource): Promise<Map<string, string>> {
  // An index is smaller than a header, because it has no shapes and offsets, so the header's limit is ample.
  if (index.size > MAX_HEADER_BYTES) {
    throw new FormatError(
      `${index.name}: the index takes ${index.size} bytes, but the limit is ${MAX_HEADER_BYTES}.`,
    );
  }
  const scanner = new JsonScanner(await index.read(0, index.size), index.name, "the index");
  const weightMap = new Map<string, string>();
  const files = new Set<string>();
  let found = false;
  scanner.object("the index", (key) => {
    if (key !== "weight_map") return scanner.skip();
    found = true;
    scanner.object("weight_map", (tensor) => {
      const file = scanner.string(`weight_map entry ${quote(tensor)}`);
      checkShardName(index.name, tensor, file);
      weightMap.set(tensor, file);
      files.add(file);
    });
  });
  scanner.end();
  if (!found) throw new FormatError(`${index.name}: the index has no weight_map.`);
  if (files.size > MAX_SHARDS) {
    throw new FormatError(
      `${index.name}: the index names ${files.size} files, but the limit is ${MAX_SHARDS}.`,
    );
  }
  return weightMap;
}

/** Shards are in the folder of the index. With a path, a downloaded index could name any file of the machine. */
function checkShardName(index: string, tensor: string, file: string): void {
  if (/^[^/\\:\p{Cc}]+\.safetensors$/u.test(file)) return;
  throw new FormatError(
    `${index}: weight_map places tensor ${quote(tensor)} in ${quote(file)}, but a shard must be a plain file name that ends in .safetensors.`,
  );
}

async function openOne(
  name: string,
  index: string,
  openFile: (fileName: string) => Promise<ByteSource>,
): Promise<Weights> {
  const source = await openFile(name).catch((cause: unknown) => {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new FormatError(`${index}: the shard ${quote(name)} cannot be opened: ${reason}`, {
      cause,
    });
  });
  return openShard(source).catch(async (error: unknown) => {
    await source.close?.();
    throw error;
  });
}

function gather(
  index: string,
  weightMap: ReadonlyMap<string, string>,
  shards: ReadonlyMap<string, Weights>,
): Map<string, TensorEntry> {
  for (const [file, shard] of shards) {
    for (const tensor of shard.entries.keys()) {
      const listed = weightMap.get(tensor);
      if (listed === undefined || listed === file || !shards.get(listed)?.entries.has(tensor)) {
        continue;
      }
      throw new FormatError(
        `${index}: tensor ${quote(tensor)} is in two shards, ${quote(listed)} and ${quote(file)}.`,
      );
    }
  }
  const entries = new Map<string, TensorEntry>();
  for (const [tensor, file] of weightMap) {
    const entry = shards.get(file)?.entries.get(tensor);
    if (!entry) {
      throw new FormatError(
        `${index}: tensor ${quote(tensor)} should be in the shard ${quote(file)}, but is not there.`,
      );
    }
    entries.set(tensor, entry);
  }
  return entries;
}

/**
 * Writers put the same metadata into every shard; if they differ, the shard whose name sorts first has
 * priority.
 */
function sharedMetadata(shards: ReadonlyMap<string, Weights>): Map<string, string> {
  const byName = [...shards].sort(([a], [b]) => (a < b ? 1 : -1));
  return new Map(byName.flatMap(([, shard]) => [...shard.metadata]));
}
