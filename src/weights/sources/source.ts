/**
 * Where bytes come from: one interface over memory, Blobs, URLs and files, read by range, so that a
 * checkpoint is never loaded whole to look at one tensor.
 */
import { PatchwiseError } from "../../engine/errors.ts";

export interface ByteSource {
  /** How messages call it: a path, a URL, a file's name. */
  readonly name: string;
  /** Bytes in total. */
  readonly size: number;
  /** The absolute path, where the bytes are a file that this process can open by name. */
  readonly path?: string;
  /** The bytes themselves, where they are in memory. */
  readonly bytes?: Uint8Array<ArrayBuffer>;
  /**
   * Exactly `length` bytes from `offset`, as memory that belongs to the caller.
   *
   * @throws PatchwiseError when the range is not inside the source, FormatError when it can no longer be had
   */
  read(offset: number, length: number): Promise<Uint8Array<ArrayBuffer>>;
  close?(): Promise<void>;
}

/** Bytes in memory; reads copy, so that a tensor never aliases the source. */
export function bytesSource(bytes: Uint8Array | ArrayBuffer, name = "bytes"): ByteSource {
  const view = bytes instanceof Uint8Array ? bytes : new Uint8Array(bytes);
  const source: ByteSource = {
    name,
    size: view.byteLength,
    ...(isUnshared(view) && { bytes: view }),
    read: async (offset, length) => {
      checkRange(source, offset, length);
      // Not view.slice(): a Node Buffer's own slice() does not copy.
      return new Uint8Array(view.subarray(offset, offset + length));
    },
  };
  return source;
}

function isUnshared(view: Uint8Array): view is Uint8Array<ArrayBuffer> {
  return view.buffer instanceof ArrayBuffer;
}

/** A Blob, or a File that a person picked; the browser reads only the ranges asked for. */
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

/** @throws PatchwiseError when `offset` and `length` do not name a range inside the source */
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
