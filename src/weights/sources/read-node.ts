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

/**
 * Reads a text of at most `most` bytes, such as a config.
 *
 * @throws Error as `readRegularFile`, or if the file is larger
 */
export async function readRegularText(path: string, most: number): Promise<string> {
  const { size } = await stat(path);
  if (size <= most) return (await readRegularFile(path)).toString("utf8");
  throw new Error(`it has ${size} bytes, more than the ${most} that are read; name a smaller file`);
}
