/** Files on disk as byte sources, opened once and read by range. */
import { close, closeSync, fstat, open, read } from "node:fs";
import { stat } from "node:fs/promises";
import { resolve } from "node:path";
import { promisify } from "node:util";
import { FormatError, PatchwiseError } from "../../engine/errors.ts";
import { describeSystemError } from "./system-error-node.ts";
import { type ByteSource, checkRange } from "./source.ts";

// One read call takes a 32-bit length.
const READ_LIMIT = 2 ** 30;

const system = {
  open: promisify(open),
  fstat: promisify(fstat),
  read: promisify(read),
  close: promisify(close),
};

// A FileHandle that is never closed ends the process when it is collected (Node 25), so plain descriptors are used, and
// those of forgotten sources are closed here.
const forgotten = new FinalizationRegistry<number>((descriptor) => closeSync(descriptor));

/**
 * Opens a file for reading on demand; `close()` releases its descriptor.
 *
 * @throws PatchwiseError if the file does not exist, cannot be read, or is not a regular file
 */
export async function fileSource(path: string): Promise<ByteSource> {
  const attempt = <T>(step: Promise<T>, verb: string): Promise<T> =>
    step.catch((cause: unknown) => {
      throw new PatchwiseError(`Cannot ${verb} ${path}: ${describeSystemError(cause)}.`, { cause });
    });
  // Checked before opening, because opening a pipe waits for a writer.
  const kind = await attempt(stat(path), "open");
  if (!kind.isFile()) {
    throw new PatchwiseError(
      `Cannot open ${path}: it is ${kind.isDirectory() ? "a folder" : "a device or pipe"}, not a file; name a file.`,
    );
  }
  const descriptor = await attempt(system.open(path, "r"), "open");
  const { size } = await system.fstat(descriptor);
  let isOpen = true;
  const source: ByteSource = {
    name: path,
    size,
    path: resolve(path),
    read: async (offset, length) => {
      checkRange(source, offset, length);
      // Another file may have the descriptor by now.
      if (!isOpen) throw new PatchwiseError(`${path} was closed; open it again to read from it.`);
      // The buffer is not zeroed first. That is safe because every byte is read or the buffer is dropped.
      const bytes = Buffer.allocUnsafeSlow(length);
      for (let done = 0; done < length;) {
        const piece = Math.min(length - done, READ_LIMIT);
        const { bytesRead } = await attempt(
          system.read(descriptor, bytes, done, piece, offset + done),
          "read",
        );
        if (bytesRead === 0) {
          throw new FormatError(
            `${path}: the file ended at byte ${offset + done}, but it had ${size} bytes when it was opened; open it again once it is no longer being written.`,
          );
        }
        done += bytesRead;
      }
      return new Uint8Array(bytes.buffer, bytes.byteOffset, length);
    },
    async close() {
      if (!isOpen) return;
      isOpen = false;
      forgotten.unregister(source);
      await system.close(descriptor);
    },
  };
  forgotten.register(source, descriptor, source);
  return source;
}
