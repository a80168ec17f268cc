/**
 * The colour space that the bytes of a picture file name in numbers. libvips converts by ICC profiles alone, so the numbers of
 * such files would enter as if they were those of sRGB.
 */
import {
  cicpSpace,
  type ColourSpace,
  type Primaries,
  spaceUnlessSrgb,
  srgbLinear,
} from "./colour-space.ts";
import { CHUNK_FRAME, isPng, pngSignature } from "./png.ts";

/** Of gAMA, which counts in 1/100000: 1/2.2, by which programs mean the curve of sRGB. */
const USUAL_GAMMA = 45_455;

/**
 * The colour space of a PNG or AVIF file if it is another than sRGB and no ICC profile stands for it.
 *
 * @throws Error for pictures of high dynamic range, and for spaces that are not known
 */
export function fileColourSpace(file: Uint8Array, hasProfile: boolean): ColourSpace | undefined {
  const bytes = Buffer.from(file.buffer, file.byteOffset, file.length);
  if (isPng(bytes)) {
    const chunks = pngChunks(bytes);
    const cicp = chunks.get("cICP");
    // The order of PNG's third edition, section 4.3: cICP, iCCP, sRGB, then gAMA and cHRM.
    if (cicp && cicp.length >= 2) return cicpSpace(cicp[0]!, cicp[1]!);
    return hasProfile || chunks.has("sRGB") ? undefined : gammaSpace(chunks);
  }
  const nclx = hasProfile ? undefined : nclxOf(bytes);
  return nclx && cicpSpace(...nclx);
}

/** The chunks in front of the pixels of a PNG file. Damaged ones are left to the decoder. */
function pngChunks(bytes: Buffer): Map<string, Buffer> {
  const found = new Map<string, Buffer>();
  for (let at = pngSignature.length; at + CHUNK_FRAME <= bytes.length;) {
    const length = bytes.readUInt32BE(at);
    const type = bytes.toString("latin1", at + 4, at + 8);
    if (type === "IDAT" || at + CHUNK_FRAME + length > bytes.length) break;
    found.set(type, bytes.subarray(at + 8, at + 8 + length));
    at += CHUNK_FRAME + length;
  }
  return found;
}

function gammaSpace(chunks: ReadonlyMap<string, Buffer>): ColourSpace | undefined {
  const [gamma, points] = [chunks.get("gAMA"), chunks.get("cHRM")];
  const exponent = gamma?.length === 4 ? gamma.readUInt32BE() : USUAL_GAMMA;
  const linear =
    exponent === 0 || Math.abs(exponent - USUAL_GAMMA) < 500
      ? srgbLinear
      : (value: number) => value ** (100_000 / exponent);
  return spaceUnlessSrgb({ linear, primaries: points && primariesOf(points) });
}

/** Undefined if the numbers are not those of any colours. */
function primariesOf(chunk: Buffer): Primaries | undefined {
  if (chunk.length !== 32) return undefined;
  const point = (i: number) =>
    [chunk.readUInt32BE(8 * i) / 1e5, chunk.readUInt32BE(8 * i + 4) / 1e5] as const;
  const [white, red, green, blue] = [point(0), point(1), point(2), point(3)];
  const area =
    (red[0] - blue[0]) * (green[1] - blue[1]) - (red[1] - blue[1]) * (green[0] - blue[0]);
  const real = [white, red, green, blue].every(([x, y]) => y > 0 && x <= 1 && y <= 1);
  return real && Math.abs(area) > 1e-3 ? { white, red, green, blue } : undefined;
}

/** The boxes that contain others on the way to the colours of an AVIF file, and the bytes in front of these. */
const containers: Readonly<Record<string, number>> = { meta: 4, iprp: 0, ipco: 0 };

/** Primaries and transfer function in the first `colr` box of an AVIF file (ISO/IEC 14496-12 and 23008-12) that names them. */
function nclxOf(bytes: Buffer): readonly [number, number] | undefined {
  const isAvif = bytes.toString("latin1", 4, 8) === "ftyp";
  const ranges = isAvif ? [{ from: 0, to: bytes.length }] : [];
  for (let range = ranges.pop(); range; range = ranges.pop()) {
    for (let at = range.from; at + 8 <= range.to;) {
      const size = bytes.readUInt32BE(at);
      const type = bytes.toString("latin1", at + 4, at + 8);
      const inside = containers[type];
      if (inside !== undefined)
        ranges.push({ from: at + 8 + inside, to: Math.min(at + size, range.to) });
      const isNclx = type === "colr" && bytes.toString("latin1", at + 8, at + 12) === "nclx";
      if (isNclx && at + 16 <= range.to)
        return [bytes.readUInt16BE(at + 12), bytes.readUInt16BE(at + 14)];
      // Only pixels are in boxes without a length, or of more than 4 GB.
      if (size < 8) break;
      at += size;
    }
  }
  return undefined;
}
