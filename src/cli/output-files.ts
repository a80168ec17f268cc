/** Chooses and checks the names of output files before the work begins. */
import { randomBytes } from "node:crypto";
import { open, rm, stat } from "node:fs/promises";
import { dirname, extname, join } from "node:path";
import { UsageError } from "../engine/errors.ts";
import { writeFileAtomic, writeJson } from "../weights/sources/atomic-node.ts";
import { exists } from "../weights/sources/folder-node.ts";
import { system } from "../weights/sources/system-error-node.ts";
import { writeJsonLine, writeText } from "./terminal.ts";

/** Returns `name-1.png`, `name-2.png`, … for `name.png`, or the name itself for a single file. */
export function numbered(path: string, count: number): string[] {
  if (count === 1) return [path];
  return Array.from({ length: count }, (_, i) => withSuffix(path, String(i + 1)));
}

/** `name-SUFFIX.png` */
export function withSuffix(path: string, suffix: string): string {
  const extension = extname(path);
  return `${path.slice(0, path.length - extension.length)}-${suffix}${extension}`;
}

/**
 * Returns the first of `name.png`, `name-2.png`, `name-3.png`, … with which no file would be overwritten.
 *
 * @param files returns all files that would be written under a name
 */
export async function unusedName(
  path: string,
  files: (path: string) => readonly string[],
): Promise<string> {
  for (let i = 1; ; i++) {
    const name = i === 1 ? path : withSuffix(path, String(i));
    const taken = await Promise.all(files(name).map(exists));
    if (!taken.includes(true)) return name;
  }
}

/**
 * Checks that files can be written.
 *
 * @throws UsageError that names the folder, or what is in the way of a file
 */
export async function checkWritable(paths: readonly string[]): Promise<void> {
  for (const path of paths) {
    const status = await stat(path).catch(() => undefined);
    if (status && !status.isFile()) {
      throw new UsageError(
        `Cannot write ${path}: it is ${status.isDirectory() ? "a folder" : "not a regular file"}; choose another name.`,
      );
    }
  }
  for (const folder of new Set(paths.map((path) => dirname(path)))) {
    // Only an attempt tells, because permissions, read-only disks and quotas have different rules.
    const probe = join(folder, `.patchwise-${randomBytes(6).toString("hex")}.tmp`);
    const attempt = async () => {
      await (await open(probe, "wx")).close();
      await rm(probe, { force: true });
    };
    await system(`write into the folder ${folder}`, attempt(), UsageError);
  }
}

/**
 * Writes results as PATH.md, PATH.json and PATH.png, and prints the table, or the JSON if asked to.
 *
 * @returns a sentence that names the files
 */
export async function writeResults(
  path: string,
  [table, value, png]: readonly [table: string, value: object, png: Uint8Array],
  asJson = false,
): Promise<string> {
  await writeFileAtomic(`${path}.md`, new TextEncoder().encode(table));
  await writeJson(`${path}.json`, value);
  await writeFileAtomic(`${path}.png`, png);
  if (asJson) writeJsonLine(process.stdout, value);
  else writeText(process.stdout, table);
  return `Wrote ${["md", "json", "png"].map((kind) => `${path}.${kind}`).join(", ")}.`;
}
