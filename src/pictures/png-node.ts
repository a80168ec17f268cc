/**
 * Reads PNG files chunk by chunk (PNG specification, third edition, sections 5 and 11). sharp lists texts too, but
 * neither those behind the pixels, nor more than 50, nor Latin-1, and damage goes unnoticed.
 */
import { crc32, inflateSync } from "node:zlib";
import { FormatError } from "../engine/errors.ts";
import { CHUNK_FRAME, isPng, pngSignature } from "./png.ts";

interface Chunk {
  readonly type: string;
  readonly data: Uint8Array;
}

/** Bytes of an uncompressed text: more than any program writes about a picture, and little memory. */
const LONGEST_TEXT = 2 ** 24;

/** Channels by colour type; a palette holds colours. */
const channelsOf = new Map([
  [0, 1],
  [2, 3],
  [3, 3],
  [4, 2],
  [6, 4],
]);

/**
 * Reads the size and channels of a PNG file: 1 for grey, 3 for colour, and one more with alpha.
 *
 * @param name how errors name the file, here and below
 * @throws FormatError if it is not a PNG file
 */
export function pngShape(
  bytes: Uint8Array,
  name: string,
): { width: number; height: number; channels: number } {
  const [first] = pngChunks(bytes, name);
  const { data } = first!;
  const view = new DataView(data.buffer, data.byteOffset, data.length);
  const channels = data.length === 13 ? channelsOf.get(data[9]!) : undefined;
  if (first!.type !== "IHDR" || channels === undefined) damaged(name, "its header is invalid");
  return { width: view.getUint32(0), height: view.getUint32(4), channels };
}

/**
 * Reads the texts of a PNG file by their keywords. If a keyword occurs twice, the first text is returned.
 *
 * @throws FormatError if the file ends inside a chunk, a checksum is wrong or a text cannot be decompressed
 */
export function pngTexts(bytes: Uint8Array, name: string): Map<string, string> {
  const texts = new Map<string, string>();
  for (const chunk of pngChunks(bytes, name)) {
    if (!/^(?:tEXt|zTXt|iTXt)$/.test(chunk.type)) continue;
    const [keyword, text] = textOf(chunk, name);
    if (!texts.has(keyword)) texts.set(keyword, text);
  }
  return texts;
}

/**
 * The chunks of a PNG file in order.
 *
 * @throws FormatError if the file ends inside a chunk or a checksum is wrong
 */
export function* pngChunks(bytes: Uint8Array, name: string): Generator<Chunk> {
  if (!isPng(bytes)) damaged(name, "it does not begin with the PNG signature");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let at = pngSignature.length; ;) {
    const rest = bytes.length - at;
    const length = rest < CHUNK_FRAME ? 0 : view.getUint32(at);
    if (rest < CHUNK_FRAME + length) damaged(name, "it ends too early");
    const checked = bytes.subarray(at + 4, at + 8 + length);
    const type = Buffer.from(checked.subarray(0, 4)).toString("latin1");
    if (!/^[A-Za-z]{4}$/.test(type)) damaged(name, `no chunk begins at byte ${at}`);
    if (crc32(checked) !== view.getUint32(at + 8 + length)) {
      damaged(name, `the checksum of its ${type} chunk at byte ${at} is wrong`);
    }
    yield { type, data: checked.subarray(4) };
    if (type === "IEND") return;
    at += CHUNK_FRAME + length;
  }
}

function textOf({ type, data }: Chunk, name: string): [keyword: string, text: string] {
  const [keyword, afterKeyword] = untilNull(data, 0);
  const latin1 = (bytes: Uint8Array) => Buffer.from(bytes).toString("latin1");
  if (type === "tEXt") return [latin1(keyword), latin1(data.subarray(afterKeyword))];
  if (type === "zTXt") {
    return [latin1(keyword), latin1(inflated(data.subarray(afterKeyword + 1), name))];
  }
  const [, afterLanguage] = untilNull(data, afterKeyword + 2);
  const [, begin] = untilNull(data, afterLanguage);
  const compressed = data[afterKeyword] === 1;
  const text = compressed ? inflated(data.subarray(begin), name) : data.subarray(begin);
  return [latin1(keyword), Buffer.from(text).toString("utf8")];
}

/** Returns the bytes before the next null, and the index of the byte after it. */
function untilNull(data: Uint8Array, from: number): [bytes: Uint8Array, after: number] {
  const end = data.indexOf(0, from);
  const stop = end < 0 ? data.length : end;
  return [data.subarray(from, stop), Math.min(stop + 1, data.length)];
}

function inflated(data: Uint8Array, name: string): Uint8Array {
  try {
    return inflateSync(data, { maxOutputLength: LONGEST_TEXT });
  } catch {
    return damaged(name, `a text in it cannot be decompressed to ${LONGEST_TEXT} bytes or fewer`);
  }
}

function damaged(name: string, reason: string): never {
  throw new FormatError(`${name} is not a valid PNG file: ${reason}; create or download it again.`);
}
