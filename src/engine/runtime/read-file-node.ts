/** Reads ranges of files on disk. */
import { open } from "node:fs/promises";
import { FormatError } from "../errors.ts";

/**
 * Fills `target` with the bytes of a file from `offset` on.
 *
 * @throws FormatError if the file ends before
 */
export async function readFileRange(
  target: Uint8Array,
  path: string,
  offset: number,
): Promise<void> {
  const file = await open(path);
  try {
    // One read call takes a 32-bit length.
    for (let done = 0; done < target.length;) {
      const length = Math.min(target.length - done, 2 ** 30);
      const { bytesRead } = await file.read(target, done, length, offset + done);
      if (bytesRead === 0) {
        throw new FormatError(
          `${path} ended at byte ${offset + done} while it was being read; check that no other program writes to it.`,
        );
      }
      done += bytesRead;
    }
  } finally {
    await file.close();
  }
}
