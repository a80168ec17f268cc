/** Finds the files of a data set. */
import type { DataSet } from "../dataset.ts";
import { closeAll, closingOnFailure } from "../../weights/sources/closing.ts";
import { readdir, realpath, stat } from "node:fs/promises";
import { join, basename, extname } from "node:path";
import { nearestNames, quote, UsageError } from "../../engine/errors.ts";
import { describeSystemError } from "../../weights/sources/system-error-node.ts";
import { byCodeUnits } from "./columns.ts";
import { fileSource } from "../../weights/sources/file-node.ts";
import { type ByteSource, refuseLfsPointer } from "../../weights/sources/source.ts";

/**
 * Lists all files below a folder as sorted relative paths with "/". Symbolic links are followed, and hidden
 * files and folders are skipped.
 *
 * @throws UsageError if the folder or a part of it cannot be opened
 */
export async function listFiles(root: string): Promise<string[]> {
  const found: string[] = [];
  const visit = async (folder: string, above: readonly string[]): Promise<void> => {
    const path = join(root, folder);
    const real = await attempt(realpath(path), path);
    // A link to one of its own parent folders would be followed forever.
    if (above.includes(real)) return;
    for (const entry of await attempt(readdir(path, { withFileTypes: true }), path)) {
      // macOS hides "._" companions that are named like pictures, and zip files keep them in __MACOSX.
      if (entry.name.startsWith(".") || entry.name === "__MACOSX") continue;
      const name = folder === "" ? entry.name : `${folder}/${entry.name}`;
      // A broken link is listed, so that reading it gives an error that names it.
      const kind = entry.isSymbolicLink()
        ? await stat(join(root, name)).catch(() => undefined)
        : entry;
      if (kind?.isDirectory()) await visit(name, [...above, real]);
      else found.push(name);
    }
  };
  await visit("", []);
  return found.sort(byCodeUnits);
}

function attempt<T>(step: Promise<T>, path: string): Promise<T> {
  return step.catch((cause: unknown) => {
    throw new UsageError(`Cannot open the folder ${path}: ${describeSystemError(cause)}.`, {
      cause,
    });
  });
}

/**
 * Returns the file at `path`, or the sorted files in the folder at `path`.
 *
 * @param ending the end of their names, such as ".tar"
 * @param split the split to choose, if names or folders distinguish several
 * @throws UsageError if there are no such files, or there are several splits and none is chosen
 */
export async function findShards(
  path: string,
  ending: string,
  split: string | undefined,
): Promise<string[]> {
  const kind = await stat(path).catch((cause: unknown) => {
    throw new UsageError(`Cannot open ${path}: ${describeSystemError(cause)}.`, { cause });
  });
  if (!kind.isDirectory()) {
    if (split === undefined) return [path];
    throw new UsageError(
      `${path} is a single file, so \`split: ${split}\` cannot be applied; remove it.`,
    );
  }
  const all = await listFiles(path);
  const files = all.filter((file) => file.toLowerCase().endsWith(ending));
  const packed = all.filter((file) =>
    /\.tgz$|\.(?:parquet|tar)\.(?:bz2|crdownload|gz|part|xz|zst)$/i.test(file),
  );
  if (packed.length > 0) {
    throw new UsageError(
      `${path} holds compressed or unfinished files, such as ${packed[0]}, which are not read; unpack them or download them again, or move them away.`,
    );
  }
  if (files.length === 0) {
    throw new UsageError(`The folder ${path} holds no ${ending} files; set \`path\` to some.`);
  }
  const names = [...new Set(files.map(splitOf))];
  if (split !== undefined && !names.includes(split)) {
    const near = nearestNames(split, names);
    throw new UsageError(
      `${path} has no split ${quote(split)}; there ${names.length === 1 ? "is" : "are"} ${(near.length > 0 ? near : names).slice(0, 8).map(quote).join(", ")}.`,
    );
  }
  // Shards whose names are only numbers form one split.
  if (split === undefined && names.length > 1) {
    throw new UsageError(
      `${path} has the splits ${names.slice(0, 8).join(", ")}; say with \`split\` which one to use.`,
    );
  }
  return files
    .filter((file) => split === undefined || splitOf(file) === split)
    .map((file) => join(path, file));
}

/**
 * Opens the shards of a data set, which are closed with it.
 *
 * @param read the parts of one shard
 * @param describe the data set of all parts
 */
export function openShards<Part>(
  { path: folder, split }: { readonly path: string; readonly split?: string | undefined },
  extension: string,
  read: (source: ByteSource, path: string) => Promise<readonly Part[]>,
  describe: (parts: readonly Part[]) => Promise<Omit<DataSet, "close">>,
): Promise<DataSet> {
  return closingOnFailure([] as ByteSource[], async (opened) => {
    const parts: Part[] = [];
    for (const path of await findShards(folder, extension, split)) {
      const source = await fileSource(path);
      opened.push(source);
      refuseLfsPointer(await source.read(0, Math.min(64, source.size)), path);
      // Pushed one by one, because the number of arguments of a call is limited by the stack.
      for (const part of await read(source, path)) parts.push(part);
    }
    return { ...(await describe(parts)), close: () => closeAll(opened) };
  });
}

/**
 * Returns "train" for train-00000-of-00004.parquet, train/0000.parquet and train.parquet, and "" for
 * 0000.tar.
 */
function splitOf(file: string): string {
  const name = basename(file, extname(file));
  const [, stem = ""] = /^(.*?)[-_.]?\d*(?:-of-\d+)?(?:-[0-9a-f]{16})?$/.exec(name) ?? [];
  if (stem !== "") return stem;
  return file.includes("/") ? file.split("/").at(-2)! : "";
}
