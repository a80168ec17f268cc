/**
 * Partial downloads, and which process is working on them.
 *
 * An idle partial file is named `<blob>.incomplete`. A process claims it by renaming it to a name of its own,
 * which can succeed only once, and other processes wait. Renaming is atomic on every file system, unlike
 * locking. A file whose owner no longer runs is taken over.
 */
import { open, readdir, rename, rm, stat, utimes } from "node:fs/promises";
import { randomBytes } from "node:crypto";
import { hostname } from "node:os";
import { basename, dirname, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { sizeOfFile } from "./cache-node.ts";

/** A partial file that was not touched for this many milliseconds has no active owner. */
const ABANDONED_AFTER = 60_000;

/** Milliseconds between two updates of the modification time. */
export const SHOW_WORK_EVERY = ABANDONED_AFTER / 6;

const LOOK_AGAIN_AFTER = 500;

const host = hostname().replaceAll(/[^\w.-]/g, "_");

export interface Waiting {
  readonly signal: AbortSignal;
  /** Reports the bytes that another process has downloaded. */
  readonly onBytes: (bytes: number) => void;
}

/**
 * Claims the partial file of a blob, which may be empty, for this process.
 *
 * @returns undefined if another process has completed the blob
 */
export async function claimPartial(
  blob: string,
  size: number,
  { signal, onBytes }: Waiting,
): Promise<string | undefined> {
  const own = `${blob}.${process.pid}-${host}-${randomBytes(3).toString("hex")}.incomplete`;
  const resting = restingName(blob);
  for (;;) {
    if ((await sizeOfFile(blob)) === size) {
      await rm(resting, { force: true });
      return undefined;
    }
    const found = await partialsOf(blob);
    const busy = found.find((each) => each.busy);
    if (busy) {
      onBytes(Math.min(busy.size, size));
      await delay(LOOK_AGAIN_AFTER, undefined, { signal });
      continue;
    }
    const [longest, ...others] = found.toSorted((a, b) => b.size - a.size);
    for (const { path } of others) await rm(path, { force: true });
    try {
      if (longest) {
        await showWork(longest.path);
        await rename(longest.path, own);
        return own;
      }
      // A new file is idle first, too, so that only one of two processes can claim it.
      await (await open(resting, "wx")).close();
      await utimes(resting, 0, 0);
    } catch (error) {
      // Another process was faster.
      if (!["EEXIST", "ENOENT"].includes((error as NodeJS.ErrnoException).code ?? "")) throw error;
    }
  }
}

/** Updates the modification time, so that other processes do not take over the file. */
export async function showWork(path: string): Promise<void> {
  const now = new Date();
  await utimes(path, now, now);
}

/** Leaves a partial file to the next process. */
export async function releasePartial(blob: string, own: string): Promise<void> {
  if ((await sizeOfFile(own)) === 0) return rm(own, { force: true });
  // With this modification time, no process regards it as active.
  await utimes(own, 0, 0);
  await rename(own, restingName(blob));
}

function restingName(blob: string): string {
  return `${blob}.incomplete`;
}

interface Partial {
  readonly path: string;
  readonly size: number;
  readonly busy: boolean;
}

async function partialsOf(blob: string): Promise<Partial[]> {
  const found: Partial[] = [];
  for (const name of await readdir(dirname(blob))) {
    if (!name.startsWith(basename(blob))) continue;
    // Partial files of Python have random names and are never resumed.
    const parts = /^(?:\.(\d+)-(.+)-[0-9a-f]{6})?\.incomplete$/.exec(
      name.slice(basename(blob).length),
    );
    const path = join(dirname(blob), name);
    const status = parts && (await stat(path).catch(() => undefined));
    if (!status) continue;
    const [, pid, owner] = parts;
    const dead = owner === host && !isAlive(Number(pid));
    const touched = Date.now() - status.mtimeMs < ABANDONED_AFTER;
    found.push({ path, size: status.size, busy: touched && !dead });
  }
  return found;
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    // The process exists but belongs to another user.
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}
