/**
 * Checkpoints split over several files, with an index (`model.safetensors.index.json`) that says which file
 * holds which tensor: `{ "metadata": {…}, "weight_map": { "tensor name": "file name" } }`.
 */
import { FormatError } from "../../engine/errors.ts";
import { quote } from "../../engine/messages.ts";
import { jsonScanner } from "../json.ts";
import { openSafetensors, type Weights, weightsOf } from "./safetensors.ts";
import { MAX_HEADER_BYTES } from "./format.ts";
import type { TensorEntry } from "./header.ts";
import type { ByteSource } from "../sources/source.ts";

/** The largest public checkpoints have some 200 shards; each costs an open file and a few round trips. */
const MAX_SHARDS = 4096;

/** As many as a browser requests from one server at a time, or fewer. */
const CONCURRENT_OPENS = 6;

/**
 * One view over all shards. `openShard` finds a shard by its plain file name, beside the index.
 * Tensors that a shard holds but the index does not list are left out.
 *
 * @throws FormatError when the index is not sound, or a shard does not hold what the index says
 */
export async function openSharded(
  index: ByteSource,
  openShard: (fileName: string) => Promise<ByteSource>,
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
        shards.set(name, await openOne(name, index.name, openShard));
      }
    };
    // All workers must have stopped before close() can know every shard that was opened.
    const workers = Array.from({ length: CONCURRENT_OPENS }, () =>
      openNext().catch((error: unknown) => {
        names.length = 0;
        throw error;
      }),
    );
    const failed = (await Promise.allSettled(workers)).find((end) => end.status === "rejected");
    if (failed) throw failed.reason;
    const entries = gather(index.name, weightMap, shards);
    return weightsOf(index.name, sharedMetadata(shards), entries, close);
  } catch (error) {
    await close();
    throw error;
  }
}

/** Tensors by name, each with the file that holds it. */
export async function readShardIndex(index: ByteSource): Promise<Map<string, string>> {
  // An index is a header without shapes and offsets, so the header's cap is generous for it.
  if (index.size > MAX_HEADER_BYTES) {
    throw new FormatError(
      `${index.name}: the index takes ${index.size} bytes, but the limit is ${MAX_HEADER_BYTES}.`,
    );
  }
  const scanner = jsonScanner(await index.read(0, index.size), index.name, "the index");
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

/** A shard lies beside its index: a path could lead a downloaded index to any file of the machine. */
function checkShardName(index: string, tensor: string, file: string): void {
  if (/^[^/\\:\p{Cc}]+\.safetensors$/u.test(file)) return;
  throw new FormatError(
    `${index}: weight_map places tensor ${quote(tensor)} in ${quote(file)}, but a shard must be a plain file name that ends in .safetensors.`,
  );
}

async function openOne(
  name: string,
  index: string,
  openShard: (fileName: string) => Promise<ByteSource>,
): Promise<Weights> {
  const source = await openShard(name).catch((cause: unknown) => {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new FormatError(`${index}: the shard ${quote(name)} cannot be opened: ${reason}`, {
      cause,
    });
  });
  return openSafetensors(source).catch(async (error: unknown) => {
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

/** Writers put the same notes into every shard; where they differ, the shard whose name sorts first is right. */
function sharedMetadata(shards: ReadonlyMap<string, Weights>): Map<string, string> {
  const byName = [...shards].sort(([a], [b]) => (a < b ? 1 : -1));
  return new Map(byName.flatMap(([, shard]) => [...shard.metadata]));
}
