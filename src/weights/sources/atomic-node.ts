/**
 * Writes files atomically: into a temporary file in the same folder, which is synced and renamed to the
 * target. A crash, a full disk or a failing producer leaves the old file unchanged.
 */
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import { type FileHandle, open, realpath, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { promisify } from "node:util";
import { PatchwiseError } from "../../engine/errors.ts";
import { jsonBytes } from "../json.ts";
import { describeSystemError } from "./system-error-node.ts";

/** Bytes, or pieces of bytes that may be produced during the write. */
export type FileContent = Uint8Array | Iterable<Uint8Array> | AsyncIterable<Uint8Array>;

// One write call takes a 32-bit length.
const WRITE_LIMIT = 2 ** 30;

/**
 * Creates or replaces a file. Symbolic links are followed, and the permissions of an existing file are kept.
 *
 * @throws PatchwiseError if the file cannot be written, and any error of the producer of the pieces
 *   unchanged. Either way, the temporary file is removed and the old file stays complete
 */
export async function writeFileAtomic(path: string, content: FileContent): Promise<void> {
  const old = await findOld(path);
  const target = old?.path ?? path;
  const outcome = old ? "the old file is unchanged" : "nothing is left behind";
  const attempt = <T>(step: Promise<T>): Promise<T> =>
    step.catch((error: unknown) => {
      throw new PatchwiseError(
        `Cannot write ${path} (${outcome}): ${describeSystemError(error)}.`,
        { cause: error },
      );
    });

  // In the same folder, because a rename is atomic only within a file system.
  const random = randomBytes(6).toString("hex");
  const temporary = join(dirname(target), `.${basename(target)}.${random}.tmp`);
  const handle = await attempt(open(temporary, "wx", old?.mode));
  try {
    const pieces = content instanceof Uint8Array ? [content] : content;
    for await (const piece of pieces) await attempt(writeFully(handle, piece));
    // Without this, a power failure after the rename could leave the new name without its content.
    await attempt(syncFile(handle));
    await attempt(handle.close());
    await attempt(rename(temporary, target));
  } catch (error) {
    // Errors of the cleanup must not hide the first error.
    await handle.close().catch(() => undefined);
    await rm(temporary, { force: true }).catch(() => undefined);
    throw error;
  }
  await syncFolder(dirname(target));
}

/** Writes indented JSON, as `writeFileAtomic` does. */
export function writeJson(path: string, value: unknown): Promise<void> {
  return writeFileAtomic(path, jsonBytes(value));
}

async function findOld(path: string): Promise<{ path: string; mode: number } | undefined> {
  try {
    const real = await realpath(path);
    const status = await stat(real);
    if (status.isFile()) return { path: real, mode: status.mode & 0o777 };
  } catch {
    // The file does not exist yet or cannot be reached; opening the temporary file reports the latter.
    return undefined;
  }
  // The rename would replace a folder, a device or a pipe by a file.
  throw new PatchwiseError(
    `Cannot write ${path}: something that is not a regular file has this name; choose another.`,
  );
}

async function writeFully(handle: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    const length = Math.min(bytes.length - done, WRITE_LIMIT);
    done += (await handle.write(bytes, done, length)).bytesWritten;
  }
}

/**
 * Makes the rename durable. Windows and some network file systems cannot do this, which is no error: the file
 * is complete.
 */
async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, "r").catch(() => undefined);
  if (!folder) return;
  await syncFile(folder).catch(() => undefined);
  await folder.close();
}

/** Waits until the disk has the content of a file, by its descriptor: the handles of Yarn's Plug'n'Play have no `sync`. */
export function syncFile({ fd }: FileHandle): Promise<void> {
  return promisify(fs.fsync)(fd);
}
