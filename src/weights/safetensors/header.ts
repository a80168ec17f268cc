/**
 * Parses the header of a safetensors file and checks all of it before memory is allocated for any tensor:
 * numbers must be whole and in range, each tensor must have the length of its dtype and shape, and together
 * the tensors must cover the data exactly.
 */
import type { BlockFormat } from "../../engine/arrays/blocks.ts";
import type { DType } from "../../engine/arrays/ndarray.ts";
import { FormatError, quote } from "../../engine/errors.ts";
import { JsonScanner } from "../json.ts";
import { MAX_RANK, METADATA_KEY, tags } from "./format.ts";
import type { ByteSource } from "../sources/source.ts";

/** Where a tensor is stored: enough to read it, or to map its bytes into a program. */
export interface TensorEntry {
  readonly name: string;
  /** The element type as written in the file, such as "BF16". */
  readonly tag: string;
  /** The dtype after reading; null for types that can only be listed, such as "F4". */
  readonly dtype: DType | null;
  readonly shape: readonly number[];
  /** The file that holds the tensor; `source.path` is set if it is a file on disk. */
  readonly source: ByteSource;
  /** First byte, counted from the start of the file. */
  readonly offset: number;
  /** Length in bytes. */
  readonly length: number;
  /** Set if the bytes are blocks of quantized numbers: their type, and the number in the blocks with which the tensor begins. */
  readonly blocks?: { readonly format: BlockFormat; readonly first: number };
  /** Set if the numbers are to be multiplied by a scale: one number, or one for each row. They are then read as float32. */
  readonly scale?: TensorEntry;
  /** Set if a rotation mixed each group of so many numbers along the rows (engine/arrays/hadamard.ts), which reading takes back. */
  readonly rotated?: number;
  /** Set if the axes lie in another order in the file: this tensor's axis i is axis `axes[i]` of what is stored. `shape` has them in order. */
  readonly axes?: readonly number[];
  /**
   * Set if the tensor is stored in parts that are concatenated along the first axis; `source` then presents
   * their bytes as one.
   */
  readonly parts?: readonly TensorEntry[];
  /**
   * Whether `offset` is a multiple of the element size. Old writers did not ensure it, and reading handles
   * both.
   */
  readonly aligned: boolean;
}

export interface SafetensorsHeader {
  readonly metadata: ReadonlyMap<string, string>;
  /** By name, in the order of their offsets. */
  readonly entries: ReadonlyMap<string, TensorEntry>;
}

/**
 * Parses the header.
 *
 * @param dataStart offset of the first byte after the header
 * @throws FormatError that names the file, the tensor and the wrong values
 */
export function parseHeader(
  bytes: Uint8Array,
  source: ByteSource,
  dataStart: number,
): SafetensorsHeader {
  const scanner = new JsonScanner(bytes, source.name, "the header");
  const metadata = new Map<string, string>();
  const found: TensorEntry[] = [];
  scanner.object("the header", (key) => {
    if (key !== METADATA_KEY) found.push(parseEntry(scanner, key, source, dataStart));
    else {
      scanner.object(METADATA_KEY, (field) => {
        metadata.set(field, scanner.string(`${METADATA_KEY} value ${quote(field)}`));
      });
    }
  });
  scanner.end();
  found.sort((a, b) => a.offset - b.offset || a.length - b.length);
  checkTiling(found, source, dataStart);
  return { metadata, entries: new Map(found.map((entry) => [entry.name, entry])) };
}

function parseEntry(
  scanner: JsonScanner,
  name: string,
  source: ByteSource,
  dataStart: number,
): TensorEntry {
  const tensor = `tensor ${quote(name)}`;
  let tag: string | undefined;
  let shape: number[] | undefined;
  let offsets: number[] | undefined;
  scanner.object(tensor, (field) => {
    if (field === "dtype") tag = scanner.string(`${tensor}: dtype`);
    else if (field === "shape") shape = sizes(scanner, `${tensor}: shape`, MAX_RANK, source.name);
    else if (field === "data_offsets") {
      offsets = sizes(scanner, `${tensor}: data_offsets`, 2, source.name);
    } else scanner.skip();
  });
  const fail = (problem: string): never => {
    throw new FormatError(`${source.name}: ${tensor} ${problem}.`);
  };
  if (tag === undefined) return fail("has no dtype");
  if (shape === undefined) return fail("has no shape");
  if (offsets === undefined) return fail("has no data_offsets");
  const [begin, end] = offsets;
  if (begin === undefined || end === undefined) {
    return fail(`has data_offsets [${offsets.join(", ")}], but they must be [begin, end]`);
  }
  const type =
    tags.get(tag) ?? fail(`has the dtype ${quote(tag)}, which the format does not define`);
  const dataSize = source.size - dataStart;
  if (begin > end) fail(`begins at byte ${begin} of the data, after its end at byte ${end}`);
  if (end > dataSize) {
    fail(
      `ends at byte ${end} of the data, but the file has only ${dataSize} bytes of data: it is truncated, so download or copy it again`,
    );
  }
  const bits = elementsOf(shape) * type.bits;
  const spelt = `is ${tag} of shape [${shape.join(", ")}]`;
  if (!Number.isSafeInteger(bits)) fail(`${spelt}, which is more bytes than can be counted`);
  if (bits % 8 !== 0) fail(`${spelt}: ${bits} bits, which is not a whole number of bytes`);
  if (bits / 8 !== end - begin) {
    fail(
      `${spelt}: ${bits / 8} bytes, but its data_offsets [${begin}, ${end}] hold ${end - begin}`,
    );
  }
  const offset = dataStart + begin;
  const aligned = offset % Math.ceil(type.bits / 8) === 0;
  return { name, tag, dtype: type.dtype, shape, source, offset, length: end - begin, aligned };
}

function sizes(scanner: JsonScanner, what: string, limit: number, file: string): number[] {
  const values: number[] = [];
  scanner.array(what, (index) => {
    if (index === limit) {
      throw new FormatError(`${file}: ${what} has more than ${limit} numbers, which is the limit.`);
    }
    values.push(scanner.size(`${what}[${index}]`));
  });
  return values;
}

/**
 * The number of elements. Dimensions beside a zero are multiplied, too, so that strides cannot overflow
 * either.
 */
function elementsOf(shape: readonly number[]): number {
  let product = 1;
  for (const dim of shape) {
    // Above 2^53 a product is inexact, but no further factor makes it smaller, so it is still rejected.
    if (dim > 0) product *= dim;
  }
  return Number.isSafeInteger(product) && shape.includes(0) ? 0 : product;
}

/** Every byte must belong to exactly one tensor, so that a file can neither hide bytes nor use some twice. */
function checkTiling(sorted: readonly TensorEntry[], source: ByteSource, dataStart: number): void {
  let previous: TensorEntry | undefined;
  let position = dataStart;
  for (const entry of sorted) {
    if (entry.offset < position) {
      throw new FormatError(
        `${source.name}: ${describe(entry, dataStart)} overlaps ${describe(previous!, dataStart)}.`,
      );
    }
    if (entry.offset > position) {
      throw new FormatError(
        `${source.name}: bytes ${position - dataStart} to ${entry.offset - dataStart} of the data, before ${describe(entry, dataStart)}, belong to no tensor.`,
      );
    }
    position += entry.length;
    previous = entry;
  }
  if (position < source.size) {
    throw new FormatError(
      `${source.name}: the tensors end at byte ${position} of the file, but the file has ${source.size} bytes; the rest belongs to no tensor.`,
    );
  }
}

function describe(entry: TensorEntry, dataStart: number): string {
  const begin = entry.offset - dataStart;
  return `tensor ${quote(entry.name)} at bytes ${begin} to ${begin + entry.length}`;
}
