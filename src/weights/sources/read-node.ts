/** Whole files in memory. */
import { readFile, stat } from "node:fs/promises";

/**
 * Reads a regular file. Reading a pipe would wait for its writer, and a device such as /dev/zero never ends.
 *
 * @throws Error of the operating system, or one that says what is at the path instead of a file
 */
export async function readRegularFile(path: string): Promise<Buffer<ArrayBuffer>> {
  const kind = await stat(path);
  if (kind.isFile() || kind.isDirectory()) return readFile(path);
  throw new Error("it is a device or pipe, not a regular file; name a file");
}
