/** A lock on a folder that ends with its process: two trainings in one folder would mix their checkpoints. */
import { readFile, rm, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import * as z from "zod";
import { tryJson } from "../../engine/bytes.ts";
import { UsageError } from "../../engine/errors.ts";
import type { Closable } from "../../weights/sources/closing.ts";

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
 * @throws UsageError that names the process which is at work in the folder
 */
export async function lockFolder(folder: string): Promise<Closable> {
  const path = join(folder, lockFile);
  const own = {
    pid: process.pid,
    host: hostname(),
    since: new Date().toISOString(),
    process: await startOf(process.pid),
  };
  for (;;) {
    try {
      await writeFile(path, `${JSON.stringify(own)}\n`, { flag: "wx" });
      return { close: () => rm(path, { force: true }) };
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    }
    const holder = lockSchema.safeParse(tryJson(await readFile(path, "utf8").catch(() => ""))).data;
    if (holder && (await isAlive(holder))) {
      throw new UsageError(
        `Process ${holder.pid}${holder.host === own.host ? "" : ` on ${holder.host}`} has been at work in ${folder} since ${holder.since}; wait for its end, choose another folder with --out, or remove ${path} if there is no such process.`,
      );
    }
    await rm(path, { force: true });
  }
}

/** Processes of other machines cannot be seen from here, so they count as alive. */
async function isAlive({ pid, host, process: start }: z.output<typeof lockSchema>) {
  if (host !== hostname()) return true;
  try {
    process.kill(pid, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ESRCH") return false;
  }
  return start === undefined || start === (await startOf(pid));
}

/** The 22nd field of Linux's /proc/PID/stat; the second one, in parentheses, may hold spaces. */
async function startOf(pid: number): Promise<string | undefined> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => undefined);
  return stat?.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
}
