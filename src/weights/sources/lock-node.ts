/** A lock on a folder that ends with its process: two trainings in one folder would mix their checkpoints, for example. */
import { readFile, rm, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import * as z from "zod";
import { tryJson } from "../../engine/bytes.ts";
import { PatchwiseError, UsageError } from "../../engine/errors.ts";
import type { Closable } from "./closing.ts";
import { exists } from "./folder-node.ts";
import { describeSystemError } from "./system-error-node.ts";

const lockFile = ".lock";

const lockSchema = z.object({
  pid: z.int(),
  host: z.string(),
  /** When the lock was taken. */
  since: z.string(),
  /** What the system says about the start of the process, where it does; a number may be given to another process. */
  process: z.string().optional(),
});

/**
 * Locks a folder until it is closed, or its process is gone.
 *
 * @param option with which users choose another folder
 * @throws UsageError that names the process which is at work in the folder
 */
export async function lockFolder(folder: string, option = "--out"): Promise<Closable> {
  const path = join(folder, lockFile);
  const own = {
    pid: process.pid,
    host: hostname(),
    since: new Date().toISOString(),
    process: (await statOf(process.pid))?.start,
  };
  for (;;) {
    try {
      await writeFile(path, `${JSON.stringify(own)}\n`, { flag: "wx" });
      return { close: () => rm(path, { force: true }) };
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code !== "EEXIST") {
        // A full disk has room for the name of a file, but not for its content.
        if (code === "ENOSPC" || code === "EDQUOT") await rm(path, { force: true });
        throw new PatchwiseError(`Cannot write ${path}: ${describeSystemError(error)}.`, {
          cause: error,
        });
      }
    }
    const holder = lockSchema.safeParse(await written(path)).data;
    if (holder && (await isAlive(holder))) {
      throw new UsageError(
        `Process ${holder.pid}${holder.host === own.host ? "" : ` on ${holder.host}`} has been at work in ${folder} since ${holder.since}; wait for its end, choose another folder with ${option}, or remove ${path} if there is no such process.`,
      );
    }
    await rm(path, { force: true });
  }
}

/** Waits until no other process is at work in a folder, at most for a time in milliseconds. */
export async function untilUnlocked(folder: string, most: number): Promise<void> {
  const path = join(folder, lockFile);
  for (const end = Date.now() + most; Date.now() < end && (await exists(path));) {
    const holder = lockSchema.safeParse(await written(path)).data;
    if (!holder || !(await isAlive(holder))) return;
    await setTimeout(100);
  }
}

/** The content of a lock; a file that was created just now may still be empty. */
async function written(path: string): Promise<unknown> {
  const content = async () => tryJson(await readFile(path, "utf8").catch(() => ""));
  const first = await content();
  if (first !== undefined) return first;
  await setTimeout(300);
  return content();
}

/** Processes of other machines cannot be seen from here, so they count as alive. */
async function isAlive({ pid, host, process: start }: z.output<typeof lockSchema>) {
  if (host !== hostname()) return true;
  try {
    process.kill(pid, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ESRCH") return false;
  }
  const stat = await statOf(pid);
  // A process that has ended stays listed until its parent has asked how, which some never do.
  if (stat && ["Z", "X"].includes(stat.state)) return false;
  return start === undefined || start === stat?.start;
}

/** The 3rd and the 22nd field of Linux's /proc/PID/stat; the second one, in parentheses, may hold spaces. */
async function statOf(pid: number): Promise<{ state: string; start: string } | undefined> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => undefined);
  const fields = stat?.slice(stat.lastIndexOf(")") + 2).split(" ");
  return fields && { state: fields[0]!, start: fields[19]! };
}
