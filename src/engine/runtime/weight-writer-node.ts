/** Writes weights to a file, in several threads. */
import { once } from "node:events";
import { constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { Worker } from "node:worker_threads";
import { DeviceError } from "../errors.ts";
import { moduleFile } from "../package-node.ts";
import { readFileRange } from "./read-file-node.ts";
import { readWeight, type StoredWeight } from "./stored-weight.ts";
import { type Failure, revive } from "./worker-protocol.ts";

/** A weight, and the byte of the file from which on it is written. */
export interface PlacedWeight {
  readonly weight: StoredWeight;
  readonly offset: number;
}

/** The file that is written, and how large it will be in all. */
export interface WrittenFile {
  readonly path: string;
  readonly mebibytes: number;
}

/** Weights that are written one after another. */
export type WeightGroup = readonly PlacedWeight[];

export type FromWriter = { readonly kind: "written" } | Failure;

/** Bytes in memory that are copied to send a weight to a thread. */
const MOST_SENT = 2 ** 24;

/** The most threads, each of which holds a weight. */
const MOST_THREADS = 8;

/** @throws DeviceError if the file cannot be written, and what reading the weights throws */
export async function writeWeights(
  file: WrittenFile,
  groups: readonly WeightGroup[],
  threads: number,
): Promise<void> {
  const sent = groups.filter(isSendable);
  const here = groups.filter((group) => !isSendable(group));
  const count = Math.min(threads, MOST_THREADS, sent.length);
  // Threads take from the same list, so that none waits for one with larger weights.
  const left = [...(count > 1 ? sent : [])].values();
  const handle = await openToWrite(file);
  const work = [
    ...Array.from({ length: count > 1 ? count : 0 }, () => writeInThread(file, left)),
    writeHere(handle, file, count > 1 ? here : groups),
  ];
  try {
    await Promise.all(work);
  } catch (error) {
    // The others end after what they are writing.
    while (!left.next().done);
    await Promise.allSettled(work);
    throw error;
  } finally {
    await handle.close();
  }
}

async function writeHere(handle: FileHandle, file: WrittenFile, groups: readonly WeightGroup[]) {
  for (const group of groups) await writeGroup(handle, file, group);
}

async function writeInThread(file: WrittenFile, groups: Iterator<WeightGroup>): Promise<void> {
  const worker = new Worker(moduleFile("engine/runtime/weight-writer-worker-node"), {
    workerData: file,
  });
  try {
    for (let { value, done } = groups.next(); !done; { value, done } = groups.next()) {
      worker.postMessage(value, []);
      const [told] = (await once(worker, "message")) as [FromWriter];
      if (told.kind === "failed") throw revive(told);
    }
  } finally {
    await worker.terminate();
  }
}

/** Opens the file, which it makes if it is not there. */
export async function openToWrite({ path, mebibytes }: WrittenFile): Promise<FileHandle> {
  try {
    return await open(path, constants.O_CREAT | constants.O_RDWR, 0o600);
  } catch (error) {
    throw cannotWrite(mebibytes, error);
  }
}

/** Reads weights and writes each to its place. */
export async function writeGroup(
  handle: FileHandle,
  { mebibytes }: WrittenFile,
  group: WeightGroup,
): Promise<void> {
  for (const { weight, offset } of group) {
    const { data } = await readWeight(weight, readFileRange);
    const content = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    try {
      // One write call takes a 32-bit length.
      for (let done = 0; done < content.length;) {
        const part = content.subarray(done, done + 2 ** 30);
        done += (await handle.write(part, 0, part.length, offset + done)).bytesWritten;
      }
    } catch (error) {
      throw cannotWrite(mebibytes, error);
    }
  }
}

export function cannotWrite(mebibytes: number, cause: unknown): DeviceError {
  return new DeviceError(
    `The ${mebibytes} MiB of expanded weights cannot be written to ${tmpdir()}: free space there, or name another folder in TMPDIR.`,
    { cause },
  );
}

/** Returns true if weights can be sent to a thread: they are stored in files, with at most a few megabytes in memory. */
function isSendable(value: unknown): boolean {
  if (typeof value === "function") return false;
  if (ArrayBuffer.isView(value)) return value.buffer.byteLength <= MOST_SENT;
  if (typeof value !== "object" || value === null) return true;
  return Object.values(value).every(isSendable);
}
