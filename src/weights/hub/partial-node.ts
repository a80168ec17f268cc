/**
 * Files that have not wholly arrived, and which process is at work on them.
 *
 * At rest one is called `<blob>.incomplete`. Who works on it renames it first to a name of its own, which only one can
 * do; who finds another at work waits. Renaming is atomic on every file system, locks are not. A name without a living
 * owner is taken over.
 */
import { open, readdir, rename, rm, stat, utimes } from "node:fs/promises";
import { randomBytes } from "node:crypto";
import { hostname } from "node:os";
import { basename, dirname, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { sizeOfFile } from "./cache-node.ts";

/** Milliseconds after which a file that was not touched has no one who works on it. */
const ABANDONED_AFTER = 60_000;

/** Milliseconds from one sign of work to the next. */
export const SHOW_WORK_EVERY = ABANDONED_AFTER / 6;

const LOOK_AGAIN_AFTER = 500;

const host = hostname().replaceAll(/[^\w.-]/g, "_");

export interface Waiting {
  readonly signal: AbortSignal;
  /** Bytes that another process has. */
  readonly onBytes: (bytes: number) => void;
}

/**
 * The name of a partial file, perhaps empty, that is this process's alone.
 *
 * @returns undefined when the blob has arrived in the meantime
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
      // A new one too is first at rest, so that of two who begin at once only one gets it.
      await (await open(resting, "wx")).close();
      await utimes(resting, 0, 0);
    } catch (error) {
      // Another was faster.
      if (!["EEXIST", "ENOENT"].includes((error as NodeJS.ErrnoException).code ?? "")) throw error;
    }
  }
}

/** Keeps others from taking a partial file over. */
export async function showWork(path: string): Promise<void> {
  const now = new Date();
  await utimes(path, now, now);
}

/** Leaves what has arrived to whoever comes next. */
export async function releasePartial(blob: string, own: string): Promise<void> {
  if ((await sizeOfFile(own)) === 0) return rm(own, { force: true });
  // So old that no one takes it for one that is worked on.
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
    // Python's have a random name, are never resumed, and are none of ours.
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
    // It lives, but is another's.
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}
