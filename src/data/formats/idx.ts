/** The IDX format of MNIST's files: arrays of bytes behind a header of big-endian sizes. */
import { FormatError } from "../../engine/errors.ts";

/** What the third byte of the magic number says the elements are. */
const UNSIGNED_BYTE = 0x08;

export interface IdxArray {
  readonly shape: readonly number[];
  /** Row-major; a view of the bytes that were parsed. */
  readonly data: Uint8Array;
}

/**
 * Parses an array of unsigned bytes, which images [count, height, width] and labels [count] are.
 *
 * @param name how messages call the file
 * @throws FormatError unless the header names `rank` axes of unsigned bytes and exactly their bytes follow
 */
export function parseIdx(bytes: Uint8Array, rank: number, name: string): IdxArray {
  const header = 4 + 4 * rank;
  const [zero0, zero1, type, axes] = bytes;
  if (bytes.length < 4 || zero0 !== 0 || zero1 !== 0) {
    throw new FormatError(`${name} is not an IDX file: it does not begin with two zero bytes.`);
  }
  if (type !== UNSIGNED_BYTE) {
    throw new FormatError(
      `${name} holds elements of type 0x${type!.toString(16).padStart(2, "0")}; only unsigned bytes (0x08) are read.`,
    );
  }
  if (axes !== rank) {
    throw new FormatError(
      `${name} has ${axes} axes, but ${rank} were expected; images and labels may be mixed up.`,
    );
  }
  if (bytes.length < header) throw new FormatError(`${name} ends inside its header.`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const shape = Array.from({ length: rank }, (_, axis) => view.getUint32(4 + 4 * axis));
  // At most 2^96, which a double holds roughly; what equals a file's length it holds exactly.
  const size = shape.reduce((product, length) => product * length, 1);
  if (size !== bytes.length - header) {
    throw new FormatError(
      `${name} says that it holds ${shape.join("×")} bytes, but ${bytes.length - header} follow its header; fetch it again.`,
    );
  }
  return { shape, data: bytes.subarray(header) };
}
