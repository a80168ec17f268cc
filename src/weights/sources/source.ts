/**
 * One interface for bytes in memory, Blobs, URLs and files. They are read by range, so that reading one
 * tensor does not load a whole checkpoint.
 */
import { FormatError, PatchwiseError } from "../../engine/errors.ts";

export interface ByteSource {
  /** How errors name the source: a path, a URL or the name of a file. */
  readonly name: string;
  /** Total number of bytes. */
  readonly size: number;
  /** The absolute path, if the source is a file that this process can open by name. */
  readonly path?: string;
  /** The bytes, if they are in memory. */
  readonly bytes?: Uint8Array<ArrayBuffer>;
  /**
   * Reads `length` bytes from `offset`. The caller owns the returned memory.
   *
   * @throws PatchwiseError if the range is outside the source; FormatError if the source has changed
   */
  read(offset: number, length: number): Promise<Uint8Array<ArrayBuffer>>;
  close?(): Promise<void>;
}

/** Bytes in memory. Reads copy, so that a tensor never aliases the source. */
export function bytesSource(bytes: Uint8Array | ArrayBuffer, name = "bytes"): ByteSource {
  const view = bytes instanceof Uint8Array ? bytes : new Uint8Array(bytes);
  const source: ByteSource = {
    name,
    size: view.byteLength,
    ...(isUnshared(view) && { bytes: view }),
    read: async (offset, length) => {
      checkRange(source, offset, length);
      // Not view.slice(), which does not copy if the view is a Node Buffer.
      return new Uint8Array(view.subarray(offset, offset + length));
    },
  };
  return source;
}

function isUnshared(view: Uint8Array): view is Uint8Array<ArrayBuffer> {
  return view.buffer instanceof ArrayBuffer;
}

/** A Blob, or a File that a user picked. The browser reads only the requested ranges. */
export function blobSource(
  blob: Blob,
  name = "name" in blob ? String(blob.name) : "blob",
): ByteSource {
  const source: ByteSource = {
    name,
    size: blob.size,
    read: async (offset, length) => {
      checkRange(source, offset, length);
      return new Uint8Array(await blob.slice(offset, offset + length).arrayBuffer());
    },
  };
  return source;
}

/** @throws PatchwiseError unless `offset` and `length` are a range inside the source */
export function checkRange(source: ByteSource, offset: number, length: number): void {
  const valid =
    Number.isSafeInteger(offset) &&
    Number.isSafeInteger(length) &&
    offset >= 0 &&
    length >= 0 &&
    offset + length <= source.size;
  if (valid) return;
  throw new PatchwiseError(
    `${source.name}: cannot read ${length} bytes from byte ${offset}: it has ${source.size} bytes; ask for a range inside.`,
  );
}

/** Git LFS leaves small text files that begin so in place of large files until they are pulled. */
const LFS_POINTER = new TextEncoder().encode("version https://git-lfs.github.com/spec/");

/**
 * @param bytes the file, or its beginning
 * @throws FormatError if it is a pointer instead of the file itself
 */
export function refuseLfsPointer(bytes: Uint8Array, name: string): void {
  if (!LFS_POINTER.every((byte, i) => bytes[i] === byte)) return;
  throw new FormatError(
    `${name} is a Git LFS pointer instead of the file; run "git lfs pull" where it was cloned.`,
  );
}
