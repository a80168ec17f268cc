/** Expanded weights in a temporary file, from which ONNX Runtime maps them, because a model holds at most 2 GiB of its own. */
import { rmSync } from "node:fs";
import { mkdtemp, open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DeviceError } from "../errors.ts";
import type { WeightStore } from "./expanded-weights.ts";
import { fileWeight } from "./stored-weight.ts";

/** Weights that take less stay in the model, of which there are up to four copies while it is opened. */
const LEAST_BYTES = 2 ** 26;

/** The alignment of offsets at which every system can map a file. */
const PAGE = 2 ** 16;

export interface WeightFile extends WeightStore {
  /** Closes the file for writing. */
  finish(): Promise<void>;
  /** Deletes the file, which a program must no longer need. */
  remove(): void;
}

/** Folders of files that are still in use, which are deleted when the process ends. */
const folders = new Set<string>();
let removesAtExit = false;

function removeFolder(folder: string): void {
  folders.delete(folder);
  rmSync(folder, { recursive: true, force: true });
}

function removeAll(): void {
  for (const folder of folders) removeFolder(folder);
}

/**
 * A file for this number of bytes in the system's folder for temporary files (`TMPDIR`); undefined if they are few.
 *
 * @throws DeviceError if it cannot be made
 */
export async function weightFile(bytes: number): Promise<WeightFile | undefined> {
  if (bytes < LEAST_BYTES) return undefined;
  const refused = (error: unknown) =>
    new DeviceError(
      `The ${Math.ceil(bytes / 2 ** 20)} MiB of expanded weights cannot be written to ${tmpdir()}: free space there, or name another folder in TMPDIR.`,
      { cause: error },
    );
  let folder: string;
  try {
    folder = await mkdtemp(join(tmpdir(), "patchwise-weights-"));
  } catch (error) {
    throw refused(error);
  }
  if (!removesAtExit) process.once("exit", removeAll);
  removesAtExit = true;
  folders.add(folder);
  const path = join(folder, "weights.bin");
  const file = await open(path, "wx");
  let end = 0;
  return {
    async put(array) {
      const { dtype, shape, data } = array;
      const offset = Math.ceil(end / PAGE) * PAGE;
      const content = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
      try {
        // One write call takes a 32-bit length.
        for (let done = 0; done < content.length;) {
          const part = content.subarray(done, done + 2 ** 30);
          done += (await file.write(part, 0, part.length, offset + done)).bytesWritten;
        }
      } catch (error) {
        await file.close();
        removeFolder(folder);
        throw refused(error);
      }
      end = offset + content.length;
      return fileWeight(path, offset, dtype, shape);
    },
    finish: () => file.close(),
    remove: () => removeFolder(folder),
  };
}
