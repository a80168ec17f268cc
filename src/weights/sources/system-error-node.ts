/** Calls of the operating system whose errors say what to do. */
import { mkdir, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { PatchwiseError } from "../../engine/errors.ts";

const meanings = new Map([
  ["ENOENT", "there is no such file or folder; check the path"],
  ["EEXIST", "something else has this name; choose another one"],
  ["EACCES", "permission is denied; check who may use it"],
  ["EPERM", "permission is denied; check who may use it"],
  ["EISDIR", "it is a folder; name a file"],
  ["ENOTDIR", "a part of the path is a file, not a folder; check the path"],
  ["EROFS", "the file system is read-only; choose another folder"],
  ["ENOSPC", "the disk is full; free some space and try again"],
  ["EDQUOT", "the disk quota is used up; free some space and try again"],
  ["EFBIG", "the file would be larger than the file system or a limit allows"],
  ["EMFILE", "too many files are open; close some and try again"],
  ["ENAMETOOLONG", "the name is too long; choose a shorter one"],
]);

/** Returns a clause such as "the disk is full; free some space and try again (ENOSPC)". */
export function describeSystemError(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException;
  const meaning = code === undefined ? undefined : meanings.get(code);
  return meaning ? `${meaning} (${code})` : message;
}

type ErrorType = new (message: string, options: ErrorOptions) => PatchwiseError;

/** Awaits a call, such as one that would "read FILE". If it fails, the error is "Cannot read FILE: the reason". */
export async function system<T>(
  what: string,
  call: Promise<T>,
  Kind: ErrorType = PatchwiseError,
): Promise<T> {
  try {
    return await call;
  } catch (cause) {
    throw new Kind(`Cannot ${what}: ${describeSystemError(cause)}.`, { cause });
  }
}

/** Does the same, but returns `otherwise` if the file or folder does not exist. */
export function ifThere<T, O>(
  what: string,
  call: Promise<T>,
  otherwise: O,
  Kind?: ErrorType,
): Promise<T | O> {
  const found = call.catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return otherwise;
    throw error;
  });
  return system(what, found, Kind);
}

/** Creates a folder with those above it, unless it exists. */
export async function createFolder(path: string): Promise<void> {
  await system(`create the folder ${path}`, makeFolders(path));
}

/**
 * Does the same, and throws the errors of the system. Node's own `recursive` never ends where a folder exists in which none can be made,
 * such as /proc.
 */
export async function makeFolders(path: string): Promise<void> {
  const isFolder = async () => (await stat(path).catch(() => undefined))?.isDirectory() === true;
  const make = async () => {
    try {
      await mkdir(path);
    } catch (error) {
      // Another process may have made it meanwhile.
      if (!(await isFolder())) throw error;
    }
  };
  const parent = dirname(path);
  await make().catch(async (error: NodeJS.ErrnoException) => {
    if (error.code !== "ENOENT" || parent === path) throw error;
    await makeFolders(parent);
    await make();
  });
}
