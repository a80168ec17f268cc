/**
 * Builds safetensors files by hand, sound and unsound, from the text of their header.
 */
import { type ByteSource, bytesSource } from "../../src/weights/sources/source.ts";

/** Header length, header text as it is given, then data. */
export function fileOf(header: string | Uint8Array, data: Uint8Array | number = 0): Uint8Array {
  const text = typeof header === "string" ? new TextEncoder().encode(header) : header;
  return concat([
    lengthField(text.length),
    text,
    typeof data === "number" ? new Uint8Array(data) : data,
  ]);
}

export function lengthField(length: number | bigint): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(length), true);
  return bytes;
}

export function concat(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    whole.set(part, offset);
    offset += part.length;
  }
  return whole;
}

export interface Range {
  readonly offset: number;
  readonly length: number;
}

/** A source in memory that writes down what was asked of it. */
export function recordedSource(
  bytes: Uint8Array,
  name = "m.safetensors",
): ByteSource & { reads: Range[] } {
  const source = bytesSource(bytes, name);
  const reads: Range[] = [];
  return {
    name,
    size: source.size,
    reads,
    read: (offset, length) => {
      reads.push({ offset, length });
      return source.read(offset, length);
    },
  };
}
