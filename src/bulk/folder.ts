/** A folder of drawn pictures. */
import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { FormatError, UsageError } from "../engine/errors.ts";
import { readPictureMetadata } from "../pictures/file-node.ts";
import { writeFileAtomic } from "../weights/sources/atomic-node.ts";
import { exists } from "../weights/sources/folder-node.ts";
import { isDrawnAs, type LineTask } from "./tasks.ts";

/** Where pictures are kept, from one run to the next. */
export interface PictureStore {
  /**
   * Returns true if the picture of a task is there, as it would be drawn now.
   *
   * @throws UsageError if a file that is no drawing has its name
   */
  readonly has: (task: LineTask) => Promise<boolean>;
  /** Keeps a picture, whole or not at all. */
  readonly put: (task: LineTask, file: Uint8Array) => Promise<void>;
  /** Writes what is left to write once all pictures are drawn that can be. */
  readonly finish: () => Promise<void>;
}

/** Each picture as a file. */
export function pictureFolder(folder: string): PictureStore {
  return {
    has: (task) => isThere(join(folder, task.file), task),
    put: ({ file }, bytes) => writeFileAtomic(join(folder, file), bytes),
    finish: async () => {},
  };
}

async function isThere(path: string, task: LineTask): Promise<boolean> {
  if (!(await exists(path))) return false;
  try {
    return isDrawnAs(await readPictureMetadata(path), task);
  } catch (error) {
    // What a broken disk has left is drawn anew.
    if (error instanceof FormatError) return false;
    if (!(error instanceof UsageError)) throw error;
    throw new UsageError(
      `${path} is in the way of a picture and was not drawn by Patchwise; move it away, or choose another folder with --out.`,
      { cause: error },
    );
  }
}

/** Removes the unfinished files of a process that was killed. */
export async function removeUnfinished(folder: string): Promise<void> {
  for (const name of await readdir(folder)) {
    if (/^\..+\.[0-9a-f]{12}\.tmp$/.test(name)) await rm(join(folder, name), { force: true });
  }
}
