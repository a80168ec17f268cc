/** Reads the values of a GGUF file in order. */
import { FormatError } from "../../engine/errors.ts";
import type { ByteSource } from "../sources/source.ts";

/** Thrown where the bytes that were read so far end before a value does. */
export class EndOfBytes extends Error {
  readonly what: string;
  constructor(what: string) {
    super(what);
    this.what = what;
  }
}

/** A value of the metadata; whole numbers of 64 bits are numbers where these are exact. */
export type MetadataValue = string | number | bigint | boolean | readonly MetadataValue[];

/** The nesting of lists that is read; no program writes lists in lists. */
const MAX_NESTING = 8;

export class GGUFReader {
  position = 0;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #source: ByteSource;

  constructor(bytes: Uint8Array, source: ByteSource) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#source = source;
  }

  /** Skips `length` bytes and returns where they begin. */
  #take(length: number, what: string): number {
    const start = this.position;
    if (start + length > this.#bytes.length) throw new EndOfBytes(what);
    this.position += length;
    return start;
  }

  uint32(what: string): number {
    return this.#view.getUint32(this.#take(4, what), true);
  }

  /** A number of 64 bits; one too large to be exact is more than any file has. */
  uint64(what: string): number {
    const value = this.#view.getBigUint64(this.#take(8, what), true);
    if (value <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(value);
    throw new FormatError(
      `${this.#source.name}: ${what} is ${value}, which is no size; download or copy the file again.`,
    );
  }

  /**
   * A number of items.
   *
   * @param least bytes that an item takes, so that a wrong number is found before memory is taken for it
   */
  count(what: string, least: number): number {
    const count = this.uint64(what);
    if (count * least <= this.#source.size - this.position) return count;
    throw new FormatError(
      `${this.#source.name}: ${what} is ${count}, for which the file of ${this.#source.size} bytes is too small; download or copy it again.`,
    );
  }

  string(what: string): string {
    const length = this.count(`the length of ${what}`, 1);
    const start = this.#take(length, what);
    return new TextDecoder().decode(this.#bytes.subarray(start, start + length));
  }

  /** A value and its type. */
  value(what: string): MetadataValue {
    return this.#typed(this.uint32(what), what, 0);
  }

  #typed(type: number, what: string, depth: number): MetadataValue {
    if (type === 8) return this.string(what);
    if (type === 9 && depth < MAX_NESTING) {
      const of = this.uint32(what);
      const count = this.count(`the length of ${what}`, of === 8 ? 8 : 1);
      const values: MetadataValue[] = [];
      for (let i = 0; i < count; i++) values.push(this.#typed(of, what, depth + 1));
      return values;
    }
    const scalar = scalars[type];
    if (scalar) return scalar.read(this.#view, this.#take(scalar.bytes, what));
    throw new FormatError(
      `${this.#source.name}: ${what} has the type ${type}, which is not known; make the file again with a current program.`,
    );
  }
}

interface Scalar {
  readonly bytes: number;
  read(view: DataView, at: number): number | bigint | boolean;
}

/** A whole number of 64 bits as a number, where that is exact. */
function exact(value: bigint): number | bigint {
  return BigInt.asIntN(54, value) === value ? Number(value) : value;
}

/** Types of metadata by their number in the file; 8 is a string and 9 a list. */
const scalars: Readonly<Record<number, Scalar>> = {
  0: { bytes: 1, read: (view, at) => view.getUint8(at) },
  1: { bytes: 1, read: (view, at) => view.getInt8(at) },
  2: { bytes: 2, read: (view, at) => view.getUint16(at, true) },
  3: { bytes: 2, read: (view, at) => view.getInt16(at, true) },
  4: { bytes: 4, read: (view, at) => view.getUint32(at, true) },
  5: { bytes: 4, read: (view, at) => view.getInt32(at, true) },
  6: { bytes: 4, read: (view, at) => view.getFloat32(at, true) },
  7: { bytes: 1, read: (view, at) => view.getUint8(at) !== 0 },
  10: { bytes: 8, read: (view, at) => exact(view.getBigUint64(at, true)) },
  11: { bytes: 8, read: (view, at) => exact(view.getBigInt64(at, true)) },
  12: { bytes: 8, read: (view, at) => view.getFloat64(at, true) },
};
