/** Expanded weights in a temporary file, from which ONNX Runtime maps them, because a model holds at most 2 GiB of its own. */
import { rmSync } from "node:fs";
import { mkdtemp } from "node:fs/promises";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { byteSize, sizeOf } from "../arrays/ndarray.ts";
import type { WeightStore } from "./expanded-weights.ts";
import { fileWeight, weightType } from "./stored-weight.ts";
import { cannotWrite, writeWeights } from "./weight-writer-node.ts";

/** Weights that take less stay in the model, of which there are up to four copies while it is opened. */
const LEAST_BYTES = 2 ** 26;

/** The alignment of offsets at which every system can map a file. */
const PAGE = 2 ** 16;

export interface WeightFile extends WeightStore {
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
 * @param threads how many read and write weights at the same time
 * @throws DeviceError if it cannot be made
 */
export async function weightFile(
  bytes: number,
  threads = availableParallelism(),
): Promise<WeightFile | undefined> {
  if (bytes < LEAST_BYTES) return undefined;
  const mebibytes = Math.ceil(bytes / 2 ** 20);
  let folder: string;
  try {
    folder = await mkdtemp(join(tmpdir(), "patchwise-weights-"));
  } catch (error) {
    throw cannotWrite(mebibytes, error);
  }
  if (!removesAtExit) process.once("exit", removeAll);
  removesAtExit = true;
  folders.add(folder);
  const path = join(folder, "weights.bin");
  return {
    async put(groups) {
      let end = 0;
      const placed = groups.map((group) =>
        group.map((weight) => {
          const { dtype, shape } = weightType(weight);
          const offset = Math.ceil(end / PAGE) * PAGE;
          end = offset + sizeOf(shape) * byteSize(dtype);
          return { weight, offset, stored: fileWeight(path, offset, dtype, shape) };
        }),
      );
      try {
        await writeWeights({ path, mebibytes }, placed, threads);
      } catch (error) {
        removeFolder(folder);
        throw error;
      }
      return placed.map((group) => group.map(({ stored }) => stored));
    },
    remove: () => removeFolder(folder),
  };
}
