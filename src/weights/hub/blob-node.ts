/**
 * Downloads one file of the Hub into the cache. Interrupted downloads resume, the hash is checked, and the
 * file gets its name only when it is complete.
 */
import { createHash, type Hash } from "node:crypto";
import { createReadStream } from "node:fs";
import { type FileHandle, mkdir, open, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { FormatError, PatchwiseError, quote } from "../../engine/errors.ts";
import { type HubFile, refusing } from "./cache-node.ts";
import type { HubSend } from "./http-node.ts";
import {
  claimPartial,
  releasePartial,
  SHOW_WORK_EVERY,
  showWork,
  type Waiting,
} from "./partial-node.ts";
import { reasonOf } from "../sources/url.ts";

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
    await mkdir(folder, { recursive: true });
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
      await refusing(folder, () => handle.sync());
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
