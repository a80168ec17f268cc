/** Writes PNG files (PNG specification, third edition) with what every runtime has, a browser included. */
import { joined } from "../engine/bytes.ts";
import { parametersText, type PictureMetadata } from "./metadata.ts";
import { type Picture, type PictureShape, requirePicture } from "./picture.ts";

export const pngSignature = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a);
/** Bytes around the data of a chunk: its length, type and checksum. */
export const CHUNK_FRAME = 12;
/** The header chunk comes first and always has this much data. */
const HEADER_BYTES = 13;
/** The keyword of the text chunk, and the name of the XMP element, that hold the metadata as JSON. */
export const METADATA_KEYWORD = "patchwise";

/** Returns true if bytes begin as PNG files do. */
export function isPng(bytes: Uint8Array): boolean {
  return pngSignature.every((byte, i) => bytes[i] === byte);
}

/** Returns true if a PNG file says, in front of its pixels, that it is animated. */
export function isAnimatedPng(png: Uint8Array): boolean {
  const view = new DataView(png.buffer, png.byteOffset, png.length);
  for (let at = pngSignature.length; at + CHUNK_FRAME <= png.length;) {
    const type = new TextDecoder().decode(png.subarray(at + 4, at + 8));
    if (type === "acTL" || type === "IDAT") return type === "acTL";
    at += CHUNK_FRAME + view.getUint32(at);
  }
  return false;
}

/**
 * Encodes a picture as a PNG file without loss.
 *
 * @param metadata how the picture was drawn; it is written as text that other programs can show
 * @example const url = URL.createObjectURL(new Blob([await toPng(picture)]));
 * @throws UsageError for what is no picture with all of its bytes
 */
export async function toPng(
  picture: Picture,
  metadata?: PictureMetadata,
): Promise<Uint8Array<ArrayBuffer>> {
  requirePicture("toPng", picture);
  return pngOf(picture, ([data]) => [{ type: "IDAT", data: data! }], [picture], metadata);
}

/** A part of a PNG file. */
export interface PngChunk {
  readonly type: string;
  readonly data: Uint8Array;
}

/**
 * Encodes a file of pictures of one size.
 *
 * @param chunksOf the chunks between header and end, made of the compressed rows of each picture
 */
export async function pngOf(
  { width, height, channels }: PictureShape,
  chunksOf: (rows: readonly Uint8Array<ArrayBuffer>[]) => readonly PngChunk[],
  pictures: readonly Picture[],
  metadata?: PictureMetadata,
): Promise<Uint8Array<ArrayBuffer>> {
  const header = new Uint8Array(HEADER_BYTES);
  const view = new DataView(header.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  // 8 bits a channel; colour type 0 is grey, 2 is RGB.
  header.set([8, channels === 1 ? 0 : 2], 8);
  const rows = await Promise.all(
    pictures.map(({ pixels }) => deflated(filteredRows(pixels, width * channels, channels))),
  );
  const png = pngOfChunks([
    { type: "IHDR", data: header },
    ...chunksOf(rows),
    { type: "IEND", data: new Uint8Array(0) },
  ]);
  return metadata ? withPngTexts(png, metadataTexts(metadata)) : png;
}

/** A PNG file of chunks, whose lengths and checksums are added. */
export function pngOfChunks(chunks: readonly PngChunk[]): Uint8Array<ArrayBuffer> {
  return joined([pngSignature, ...chunks.map(({ type, data }) => chunk(type, data))]);
}

/** The text chunks that describe how a picture was drawn, by their keywords. */
function metadataTexts(metadata: PictureMetadata): Record<string, string> {
  return { parameters: parametersText(metadata), [METADATA_KEYWORD]: JSON.stringify(metadata) };
}

/** Adds texts in UTF-8 (iTXt) to a PNG file, before its pixels, where readers find them without decoding. */
export function withPngTexts(
  png: Uint8Array,
  texts: Readonly<Record<string, string>>,
): Uint8Array<ArrayBuffer> {
  const header = pngSignature.length + CHUNK_FRAME + HEADER_BYTES;
  const added = Object.entries(texts).map(([keyword, text]) =>
    // The nulls say that the text is not compressed and names no language.
    chunk("iTXt", new TextEncoder().encode(`${keyword}\0\0\0\0\0${text}`)),
  );
  return joined([png.subarray(0, header), ...added, png.subarray(header)]);
}

/**
 * The rows of a picture, each with the filter in front that leaves the smallest differences (section 12.7).
 *
 * @param stride bytes of a row
 * @param step bytes of a pixel
 */
function filteredRows(pixels: Uint8Array, stride: number, step: number): Uint8Array<ArrayBuffer> {
  const rows = pixels.length / stride;
  const filtered = new Uint8Array(rows * (1 + stride));
  const candidate = new Uint8Array(stride);
  for (let row = 0; row < rows; row++) {
    const start = row * stride;
    let least = Infinity;
    for (const [type, predict] of predictors.entries()) {
      let sum = 0;
      for (let i = 0; i < stride; i++) {
        const at = start + i;
        const left = i < step ? 0 : pixels[at - step]!;
        const above = row === 0 ? 0 : pixels[at - stride]!;
        const corner = i < step || row === 0 ? 0 : pixels[at - stride - step]!;
        const difference = (pixels[at]! - predict(left, above, corner)) & 0xff;
        candidate[i] = difference;
        sum += difference < 128 ? difference : 256 - difference;
      }
      if (sum >= least) continue;
      least = sum;
      filtered[row * (1 + stride)] = type;
      filtered.set(candidate, row * (1 + stride) + 1);
    }
  }
  return filtered;
}

/** PNG's filters by their types: none, sub, up, average and Paeth (section 9.2). */
const predictors: readonly ((left: number, above: number, corner: number) => number)[] = [
  () => 0,
  (left) => left,
  (_, above) => above,
  (left, above) => (left + above) >> 1,
  (left, above, corner) => {
    const estimate = left + above - corner;
    const a = Math.abs(estimate - left);
    const b = Math.abs(estimate - above);
    const c = Math.abs(estimate - corner);
    if (a <= b && a <= c) return left;
    return b <= c ? above : corner;
  },
];

async function deflated(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
  const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream("deflate"));
  // By a reader: `new Response(stream)` would be shorter, but makes Node load all of fetch, which takes longer than the picture.
  const reader = stream.getReader();
  const parts: Uint8Array[] = [];
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return joined(parts);
    parts.push(value);
  }
}

function chunk(type: string, data: Uint8Array): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(CHUNK_FRAME + data.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, data.length);
  bytes.set(new TextEncoder().encode(type), 4);
  bytes.set(data, 8);
  view.setUint32(8 + data.length, crc32(bytes.subarray(4, 8 + data.length)));
  return bytes;
}

const crcTable = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

/** The checksum of a chunk's type and data (annex D). */
export function crc32(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = crcTable[(crc ^ byte) & 0xff]! ^ (crc >>> 8);
  return ~crc >>> 0;
}
