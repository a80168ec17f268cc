/** Detects changes of the files of a data set without reading the pictures. */
import { createHash } from "node:crypto";
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import type { DataConfig } from "../config.ts";
import { emojiStyles } from "../formats/emoji/captions.ts";
import { listFiles } from "../formats/files-node.ts";
import { locatePackageFiles } from "../formats/emoji/packages-node.ts";
import { findShards } from "../formats/files-node.ts";

export interface Fingerprint {
  readonly files: number;
  /** SHA-256 of each file's name, size and modification time, or of its content. */
  readonly hash: string;
}

/** The number of files that are examined concurrently. */
const PARALLEL = 64;

/**
 * Computes the fingerprint of the files of a data set, including those with captions and classes.
 *
 * @param by with "sizes", a copy of the files is the same; with "times", it is not
 * @throws UsageError if there are none
 */
export async function fingerprint(
  config: DataConfig,
  by: "times" | "sizes" = "times",
): Promise<Fingerprint> {
  const facts = config.kind === "emoji" ? await packageFacts(config) : await fileFacts(config, by);
  const hash = createHash("sha256");
  for (const fact of facts) hash.update(`${JSON.stringify(fact)}\n`);
  return { files: facts.length, hash: hash.digest("hex") };
}

async function fileFacts(
  config: Exclude<DataConfig, { kind: "emoji" }>,
  by: "times" | "sizes",
): Promise<unknown[]> {
  const paths = await dataFiles(config);
  const facts: unknown[] = [];
  for (let i = 0; i < paths.length; i += PARALLEL) {
    const some = paths.slice(i, i + PARALLEL).map(async (path) => {
      // A broken link is included, so that reading it gives an error that names it.
      const status = await stat(path).catch(() => undefined);
      return [path, status?.size, ...(by === "times" ? [status?.mtimeMs] : [])];
    });
    facts.push(...(await Promise.all(some)));
  }
  return facts;
}

async function dataFiles(config: Exclude<DataConfig, { kind: "emoji" }>): Promise<string[]> {
  const { path } = config;
  switch (config.kind) {
    case "images":
    case "clips":
      return (await listFiles(path)).map((file) => join(path, file));
    case "idx":
      return (await listFiles(path))
        .filter((file) => /-idx[13]-ubyte(?:\.gz)?$/.test(file))
        .map((file) => join(path, file));
    case "parquet":
      return findShards(path, ".parquet", config.split);
    case "tar":
      return findShards(path, ".tar", config.split);
  }
}

/** Installing packages changes their dates, so their versions are compared instead. */
async function packageFacts({
  styles,
}: Extract<DataConfig, { kind: "emoji" }>): Promise<unknown[]> {
  const names = ["emojibase-data", ...styles.map((style) => emojiStyles[style].package)];
  const files = names.map((name) => `${name}/package.json`);
  const paths = locatePackageFiles(files, "The emoji set");
  return Promise.all(paths.map((path) => readFile(path, "utf8")));
}
