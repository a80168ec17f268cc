/**
 * Downloads one file of the Hub into the cache. Interrupted downloads resume, the hash is checked, and the
 * file gets its name only when it is complete.
 *
 * An idle partial file is named `<blob>.incomplete`. A process claims it by renaming it to a name of its own,
 * which can succeed only once, and other processes wait. Renaming is atomic on every file system, unlike
 * locking. A file whose owner no longer runs is taken over.
 */
import { createHash, type Hash, randomBytes } from "node:crypto";
import { createReadStream } from "node:fs";
import { type FileHandle, open, readdir, rename, rm, stat, utimes } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { FormatError, PatchwiseError, quote } from "../../engine/errors.ts";
import { type HubFile, refusing, sizeOfFile } from "./cache-node.ts";
import type { HubSend } from "./http-node.ts";
import { syncFile } from "../sources/atomic-node.ts";
import { makeFolders } from "../sources/system-error-node.ts";
import { reasonOf } from "../sources/url.ts";
import { hostname } from "node:os";

/** Milliseconds without data after which a connection is dropped. */
const STALLED_AFTER = 30_000;

export interface BlobOrder extends Waiting {
  readonly file: HubFile;
  readonly url: string;
  /** Path of the finished file. */
  readonly blob: string;
  /** Consecutive connections without new data before the download fails. */
  readonly attempts: number;
  readonly send: HubSend;
}

/** What has been downloaded so far. */
interface Arrived {
  readonly handle: FileHandle;
  bytes: number;
  hash: Hash;
}

/**
 * Downloads a file.
 *
 * @throws FormatError if the content differs from the listing, after which the partial file is removed;
 *   PatchwiseError if the connection or the disk fails, after which the next call resumes; the signal's
 *   reason
 */
export async function downloadBlob(order: BlobOrder): Promise<void> {
  const { blob, file } = order;
  const folder = dirname(blob);
  const partial = await refusing(folder, async () => {
    await makeFolders(folder);
    return claimPartial(blob, file.size, order);
  });
  if (partial === undefined) return;
  // Reading the existing part, or syncing, may take longer than other processes wait.
  const working = setInterval(() => {
    showWork(partial).catch(() => undefined);
  }, SHOW_WORK_EVERY);
  try {
    const handle = await refusing(folder, () => open(partial, "r+"));
    try {
      await fill(handle, partial, order);
      // Without this, a power failure after the rename could leave the name without its content.
      await refusing(folder, () => syncFile(handle));
    } finally {
      await handle.close();
    }
    await refusing(folder, () => rename(partial, blob));
  } catch (error) {
    // There is no way to know which bytes are wrong.
    if (error instanceof FormatError) await rm(partial, { force: true });
    else await releasePartial(blob, partial).catch(() => undefined);
    throw error;
  } finally {
    clearInterval(working);
  }
}

async function fill(handle: FileHandle, partial: string, order: BlobOrder): Promise<void> {
  const { file, url, signal } = order;
  const arrived: Arrived = { handle, bytes: 0, hash: hashFor(file) };
  const whole = () => arrived.bytes === file.size && arrived.hash.digest("hex") === file.oid;

  for await (const chunk of createReadStream(partial, { signal })) {
    arrived.hash.update(chunk as Buffer);
    arrived.bytes += (chunk as Buffer).length;
  }
  const resumed = arrived.bytes > 0;
  // After a crash, or written by another program, the partial file may hold anything.
  if (arrived.bytes > file.size) await restart(arrived, file);
  await transferAll(arrived, order);
  if (whole()) return;
  if (resumed) {
    await restart(arrived, file);
    await transferAll(arrived, order);
    if (whole()) return;
  }
  throw new FormatError(
    `${quote(file.path)} from ${new URL(url).host} is not what the Hub lists: its content has another hash than ${file.oid}; it was removed, try again.`,
  );
}

/** Reconnects as long as each connection brings new data. */
async function transferAll(arrived: Arrived, order: BlobOrder): Promise<void> {
  const { file, signal, attempts, url } = order;
  for (let failed = 0; arrived.bytes < file.size;) {
    const before = arrived.bytes;
    try {
      await transfer(arrived, order);
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof PatchwiseError) throw error;
      failed = arrived.bytes > before ? 1 : failed + 1;
      if (failed >= attempts) {
        throw new PatchwiseError(
          `The download of ${quote(file.path)} from ${new URL(url).host} broke off after ${arrived.bytes} of ${file.size} bytes (${reasonOf(error)}); try again, and it resumes from there.`,
          { cause: error },
        );
      }
      await delay(250 * 2 ** failed, undefined, { signal });
    }
  }
}

/**
 * Downloads over one connection. No If-Range is needed: a blob is named by its content, storage hosts have
 * ETags of their own, and a wrong remainder has the wrong hash.
 */
async function transfer(arrived: Arrived, order: BlobOrder): Promise<void> {
  const { file, url, send, onBytes, signal } = order;
  const silence = new AbortController();
  const timer = setTimeout(
    () => silence.abort(new Error(`no data for ${STALLED_AFTER / 1000} s`)),
    STALLED_AFTER,
  );
  try {
    const { response, linkedEtag } = await send(
      url,
      // Compression would shift the offsets.
      {
        "accept-encoding": "identity",
        ...(arrived.bytes > 0 && { range: `bytes=${arrived.bytes}-` }),
      },
      AbortSignal.any([signal, silence.signal]),
    );
    const { body } = response;
    if (!body) throw new Error("the response is empty");
    try {
      checkAnswer(response, linkedEtag, arrived, order);
      if (response.status !== 206) await restart(arrived, file);
      onBytes(arrived.bytes);
      for await (const chunk of body) {
        timer.refresh();
        if (arrived.bytes + chunk.length > file.size) throw changed(order, "sends more bytes");
        await append(arrived, chunk, order);
        onBytes(arrived.bytes);
      }
    } finally {
      // A body that was read to the end, or that failed, cannot be cancelled.
      await body.cancel().catch(() => undefined);
    }
    if (arrived.bytes < file.size) throw new Error("the connection was closed early");
  } finally {
    clearTimeout(timer);
  }
}

function checkAnswer(
  { status, headers }: Response,
  linkedEtag: string | undefined,
  { bytes }: Arrived,
  order: BlobOrder,
): void {
  const { file } = order;
  if (linkedEtag !== undefined && linkedEtag !== file.oid) throw changed(order, "has another hash");
  const range = headers.get("content-range");
  if (status === 206 && range !== `bytes ${bytes}-${file.size - 1}/${file.size}`) {
    throw changed(order, `answers with ${range ?? "an unnamed range"}`);
  }
}

function changed({ file, url }: BlobOrder, how: string): FormatError {
  return new FormatError(
    `${new URL(url).host} ${how} for ${quote(file.path)} than it lists (${file.size} bytes, ${file.oid}); nothing of the file was kept, try again.`,
  );
}

async function append(arrived: Arrived, chunk: Uint8Array, order: BlobOrder): Promise<void> {
  for (let done = 0; done < chunk.length;) {
    const at = arrived.bytes + done;
    const { bytesWritten } = await refusing(dirname(order.blob), () =>
      arrived.handle.write(chunk, done, chunk.length - done, at),
    );
    done += bytesWritten;
  }
  arrived.hash.update(chunk);
  arrived.bytes += chunk.length;
}

async function restart(arrived: Arrived, file: HubFile): Promise<void> {
  await arrived.handle.truncate(0);
  arrived.bytes = 0;
  arrived.hash = hashFor(file);
}

/**
 * Small files are stored in Git itself, under the hash of a Git object: its type and length, then the
 * content.
 */
function hashFor({ oid, size }: HubFile): Hash {
  return oid.length === 40 ? createHash("sha1").update(`blob ${size}\0`) : createHash("sha256");
}

/** A partial file that was not touched for this many milliseconds has no active owner. */
const ABANDONED_AFTER = 60_000;

/** Milliseconds between two updates of the modification time. */
const SHOW_WORK_EVERY = ABANDONED_AFTER / 6;

const LOOK_AGAIN_AFTER = 500;

const host = hostname().replaceAll(/[^\w.-]/g, "_");

interface Waiting {
  readonly signal: AbortSignal;
  /** Reports the bytes that another process has downloaded. */
  readonly onBytes: (bytes: number) => void;
}

/**
 * Claims the partial file of a blob, which may be empty, for this process.
 *
 * @returns undefined if another process has completed the blob
 */
async function claimPartial(
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
async function showWork(path: string): Promise<void> {
  const now = new Date();
  await utimes(path, now, now);
}

/** Leaves a partial file to the next process. */
async function releasePartial(blob: string, own: string): Promise<void> {
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
