/**
 * Normalizes text as SentencePiece (Kudo & Richardson, 2018) does: by a precompiled table of replacements,
 * NFKC of Unicode and more, stored as a double array in the format of Darts-clone. The longest match is
 * replaced.
 */
import { joined } from "../engine/bytes.ts";

/** A function that rewrites text. */
export type Rewrite = (text: string) => string;

/**
 * Parses a precompiled table: the length of the array in bytes, its elements of 4 bytes, and then the
 * replacements, each terminated by a 0. An empty table only replaces lone surrogates.
 *
 * @returns undefined if the bytes are no such table
 */
export function charsmapRewrite(table: Uint8Array): Rewrite | undefined {
  const [encoder, decoder] = [new TextEncoder(), new TextDecoder("utf-8", { ignoreBOM: true })];
  if (table.length === 0) return (text) => decoder.decode(encoder.encode(text));
  if (table.length < 8) return undefined;
  const view = new DataView(table.buffer, table.byteOffset, table.length);
  const size = view.getUint32(0, true);
  if (size === 0 || size % 4 !== 0 || size > table.length - 4) return undefined;
  const units = Uint32Array.from({ length: size / 4 }, (_, i) => view.getUint32(4 + 4 * i, true));
  const results = table.subarray(4 + size);

  const resultAt = (start: number): Uint8Array => {
    const end = results.indexOf(0, start);
    return results.subarray(start, end < 0 ? results.length : end);
  };
  return (text) => {
    const bytes = encoder.encode(text);
    const parts: Uint8Array[] = [];
    for (let at = 0; at < bytes.length;) {
      const found = longestMatch(units, bytes, at);
      const length = found?.length ?? characterLength(bytes[at]!);
      parts.push(found ? resultAt(found.value) : bytes.subarray(at, at + length));
      at += length;
    }
    return decoder.decode(joined(parts));
  };
}

interface Match {
  readonly value: number;
  /** Length of the match in bytes. */
  readonly length: number;
}

/** Follows the array along the bytes from `start` and returns the longest match. */
function longestMatch(units: Uint32Array, bytes: Uint8Array, start: number): Match | undefined {
  let found: Match | undefined;
  let node = offsetOf(units[0]!);
  for (let at = start; at < bytes.length; at++) {
    node ^= bytes[at]!;
    const unit = units[node];
    if (unit === undefined || labelOf(unit) !== bytes[at]) break;
    node ^= offsetOf(unit);
    const leaf = units[node];
    if (hasLeaf(unit) && leaf !== undefined) {
      found = { value: leaf & 0x7fffffff, length: at + 1 - start };
    }
  }
  return found;
}

/** The offset in bits 10 to 30, times 256 if bit 9 is set. */
function offsetOf(unit: number): number {
  return (unit >>> 10) << ((unit & 0x200) >>> 6);
}

function hasLeaf(unit: number): boolean {
  return (unit & 0x100) !== 0;
}

/** The label is a byte. In a leaf, the highest bit is set, so it equals no byte. */
function labelOf(unit: number): number {
  return (unit & 0x800000ff) >>> 0;
}

/** The length of the UTF-8 character that begins with a byte. */
function characterLength(first: number): number {
  return first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
}
