/** PNG files chunk by chunk: their texts and their shape (PNG specification, third edition, sections 5 and 11). */
import { crc32, inflateSync } from "node:zlib";
import { FormatError } from "../engine/errors.ts";

interface Chunk {
  readonly type: string;
  readonly data: Uint8Array;
}

const signature = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a);
/** Length, type and checksum around a chunk's data. */
const FRAME = 12;
/** Of an unpacked text: more than any program writes about a picture, and little memory. */
const LONGEST_TEXT = 2 ** 24;

const channelsOf = new Map([
  [0, 1],
  [2, 3],
  // A palette has colours.
  [3, 3],
  [4, 2],
  [6, 4],
]);

/** Whether bytes begin as PNG files do. */
export function isPng(bytes: Uint8Array): boolean {
  return signature.every((byte, i) => bytes[i] === byte);
}

/**
 * The size of a PNG file, and its channels: 1 for grey, 3 for colours, one more where there is alpha.
 *
 * @param name how messages call it, as in all of this file
 * @throws FormatError when it is no PNG file
 */
export function pngShape(
  bytes: Uint8Array,
  name: string,
): { width: number; height: number; channels: number } {
  const [first] = chunks(bytes, name);
  const { data } = first!;
  const view = new DataView(data.buffer, data.byteOffset, data.length);
  const channels = data.length === 13 ? channelsOf.get(data[9]!) : undefined;
  if (first!.type !== "IHDR" || channels === undefined) damaged(name, "its header is none");
  return { width: view.getUint32(0), height: view.getUint32(4), channels };
}

/**
 * The texts of a PNG file by their keywords; where two have the same, the first.
 *
 * @throws FormatError when a chunk does not end with the file, its checksum is wrong or a text cannot be unpacked
 */
export function pngTexts(bytes: Uint8Array, name: string): Map<string, string> {
  const texts = new Map<string, string>();
  for (const chunk of chunks(bytes, name)) {
    if (!/^(?:tEXt|zTXt|iTXt)$/.test(chunk.type)) continue;
    const [keyword, text] = textOf(chunk, name);
    if (!texts.has(keyword)) texts.set(keyword, text);
  }
  return texts;
}

/** A PNG file with texts in UTF-8 (iTXt) before its pixels, where readers find them without decoding. */
export function withPngTexts(png: Uint8Array, texts: Readonly<Record<string, string>>): Uint8Array {
  // The header comes first and is always as long.
  const header = signature.length + FRAME + 13;
  const added = Object.entries(texts).map(([keyword, text]) =>
    // Neither packed (2 bytes), nor in a language, nor with the keyword in it.
    chunkBytes("iTXt", Buffer.from(`${keyword}\0\0\0\0\0${text}`)),
  );
  return Buffer.concat([png.subarray(0, header), ...added, png.subarray(header)]);
}

function* chunks(bytes: Uint8Array, name: string): Generator<Chunk> {
  if (!isPng(bytes)) damaged(name, "it does not begin as one");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let at = signature.length; ;) {
    const rest = bytes.length - at;
    const length = rest < FRAME ? 0 : view.getUint32(at);
    if (rest < FRAME + length) damaged(name, "it ends too early");
    const checked = bytes.subarray(at + 4, at + 8 + length);
    const type = Buffer.from(checked.subarray(0, 4)).toString("latin1");
    if (!/^[A-Za-z]{4}$/.test(type)) damaged(name, `byte ${at} begins no chunk`);
    if (crc32(checked) !== view.getUint32(at + 8 + length)) {
      damaged(name, `the checksum of its ${type} chunk at byte ${at} is wrong`);
    }
    yield { type, data: checked.subarray(4) };
    if (type === "IEND") return;
    at += FRAME + length;
  }
}

function textOf({ type, data }: Chunk, name: string): [keyword: string, text: string] {
  const [keyword, afterKeyword] = untilNull(data, 0);
  const latin1 = (bytes: Uint8Array) => Buffer.from(bytes).toString("latin1");
  if (type === "tEXt") return [latin1(keyword), latin1(data.subarray(afterKeyword))];
  if (type === "zTXt") {
    return [latin1(keyword), latin1(unpacked(data.subarray(afterKeyword + 1), name))];
  }
  const [, afterLanguage] = untilNull(data, afterKeyword + 2);
  const [, begin] = untilNull(data, afterLanguage);
  const packed = data[afterKeyword] === 1;
  const text = packed ? unpacked(data.subarray(begin), name) : data.subarray(begin);
  return [latin1(keyword), Buffer.from(text).toString("utf8")];
}

/** The bytes before the next null, and where those after it begin. */
function untilNull(data: Uint8Array, from: number): [bytes: Uint8Array, after: number] {
  const end = data.indexOf(0, from);
  const stop = end < 0 ? data.length : end;
  return [data.subarray(from, stop), Math.min(stop + 1, data.length)];
}

function unpacked(data: Uint8Array, name: string): Uint8Array {
  try {
    return inflateSync(data, { maxOutputLength: LONGEST_TEXT });
  } catch {
    return damaged(name, `a text in it cannot be unpacked to ${LONGEST_TEXT} bytes or less`);
  }
}

function chunkBytes(type: string, data: Uint8Array): Uint8Array {
  const chunk = Buffer.alloc(FRAME + data.length);
  chunk.writeUInt32BE(data.length, 0);
  chunk.write(type, 4, "latin1");
  chunk.set(data, 8);
  chunk.writeUInt32BE(crc32(chunk.subarray(4, 8 + data.length)), 8 + data.length);
  return chunk;
}

function damaged(name: string, reason: string): never {
  throw new FormatError(`${name} is not a sound PNG file: ${reason}; make or fetch it again.`);
}
