/** Reads animated PNG files (PNG specification, third edition, section 13.12): each frame is a PNG of a part of the canvas. */
import { joined } from "../engine/bytes.ts";
import { FormatError } from "../engine/errors.ts";
import { clipOfPictures, type TimedClip } from "./clip.ts";
import type { Picture } from "./picture.ts";
import { type PngChunk, pngOfChunks } from "./png.ts";
import { pngChunks } from "./png-node.ts";
import { loadSharp } from "./sharp-node.ts";

/** The most pixels of all frames together, the limit that sharp has for other animations. */
const MOST_PIXELS = 2 ** 28;

/** What `fcTL` says of a frame. */
interface FrameControl {
  readonly width: number;
  readonly height: number;
  readonly left: number;
  readonly top: number;
  /** Seconds for which it is shown. */
  readonly seconds: number;
  /** What becomes of its place behind it: 0 it stays, 1 it is cleared, 2 what was there before comes back. */
  readonly dispose: number;
  /** True if it is blended over what is there instead of replacing it. */
  readonly blend: boolean;
}

interface ApngFrame {
  readonly control: FrameControl;
  /** Parts of its compressed rows. */
  readonly data: readonly Uint8Array[];
}

/**
 * Decodes an animated PNG in its own size and in colour.
 *
 * @param name how errors name the file
 * @param background the colour behind transparent pixels
 * @throws FormatError if it is damaged
 */
export async function readApng(
  png: Uint8Array,
  name: string,
  background: "white" | "black",
): Promise<TimedClip> {
  const { header, shared, frames } = framesIn(png, name);
  const view = new DataView(header.data.buffer, header.data.byteOffset);
  const [width, height] = [view.getUint32(0), view.getUint32(4)];
  if (frames.length * width * height > MOST_PIXELS) {
    throw damaged(name, `${frames.length} frames of ${width}×${height} do not fit in memory`);
  }
  const canvas = new Uint8Array(width * height * 4);
  const pictures: Picture[] = [];
  for (const { control, data } of frames) {
    if (control.left + control.width > width || control.top + control.height > height) {
      throw damaged(name, "a frame is larger than the picture");
    }
    const before = canvas.slice();
    const part = new Uint8Array(header.data);
    const size = new DataView(part.buffer);
    size.setUint32(0, control.width);
    size.setUint32(4, control.height);
    const still = pngOfChunks([
      { type: "IHDR", data: part },
      ...shared,
      { type: "IDAT", data: joined(data) },
      { type: "IEND", data: new Uint8Array(0) },
    ]);
    put(canvas, [width, height], await decodedRgba(still, control, name), control);
    pictures.push(onBackground(canvas, { width, height }, background === "white" ? 255 : 0));
    if (control.dispose === 2) canvas.set(before);
    if (control.dispose === 1) put(canvas, [width, height], undefined, control);
  }
  const seconds = frames.reduce((sum, { control }) => sum + control.seconds, 0);
  return { clip: clipOfPictures(pictures), fps: seconds > 0 ? frames.length / seconds : undefined };
}

/** The number of frames of a file, none of which is decoded. @throws FormatError if it is damaged */
export function apngFrameCount(png: Uint8Array, name: string): number {
  return framesIn(png, name).frames.length;
}

/** The frames of a file; a picture for programs without animation, which no `fcTL` precedes, is none of them. */
function framesIn(png: Uint8Array, name: string) {
  const frames: { control: FrameControl; data: Uint8Array[] }[] = [];
  const shared: PngChunk[] = [];
  let header: PngChunk | undefined;
  for (const chunk of pngChunks(png, name)) {
    const { type, data } = chunk;
    if (type === "IHDR") header = chunk;
    else if (type === "PLTE" || type === "tRNS") shared.push(chunk);
    else if (type === "fcTL") frames.push({ control: controlOf(data, name), data: [] });
    else if (type === "IDAT") frames.at(-1)?.data.push(data);
    else if (type === "fdAT") frames.at(-1)?.data.push(data.subarray(4));
  }
  if (
    header?.data.length !== 13 ||
    frames.length === 0 ||
    frames.some(({ data }) => data.length === 0)
  ) {
    throw damaged(name, "a part of its frames is missing");
  }
  return { header, shared, frames: frames as readonly ApngFrame[] };
}

function controlOf(data: Uint8Array, name: string): FrameControl {
  if (data.length !== 26) throw damaged(name, "a frame is not described");
  const view = new DataView(data.buffer, data.byteOffset);
  return {
    width: view.getUint32(4),
    height: view.getUint32(8),
    left: view.getUint32(12),
    top: view.getUint32(16),
    // Hundredths unless there is a denominator.
    seconds: view.getUint16(20) / (view.getUint16(22) || 100),
    dispose: view.getUint8(24),
    blend: view.getUint8(25) === 1,
  };
}

async function decodedRgba(
  png: Uint8Array,
  { width, height }: FrameControl,
  name: string,
): Promise<Uint8Array> {
  try {
    const image = (await loadSharp())(png, { failOn: "error" });
    const pixels = await image
      .ensureAlpha()
      .toColourspace("srgb")
      .raw({ depth: "uchar" })
      .toBuffer();
    if (pixels.length !== width * height * 4) throw new Error("a frame has another size");
    return pixels;
  } catch (cause) {
    throw damaged(name, (cause as Error).message.split("\n")[0]!);
  }
}

/** Puts a frame into its place on the canvas, or clears the place. */
function put(
  canvas: Uint8Array,
  [wide, high]: readonly [number, number],
  pixels: Uint8Array | undefined,
  { left, top, width, height, blend }: FrameControl,
): void {
  for (let y = 0; y < Math.min(height, high - top); y++) {
    for (let x = 0; x < Math.min(width, wide - left); x++) {
      const to = ((top + y) * wide + left + x) * 4;
      const from = (y * width + x) * 4;
      if (!pixels) canvas.fill(0, to, to + 4);
      else if (!blend || canvas[to + 3] === 0) canvas.set(pixels.subarray(from, from + 4), to);
      else over(canvas.subarray(to, to + 4), pixels.subarray(from, from + 4));
    }
  }
}

/** One pixel over another, with straight alpha (Porter & Duff, 1984). */
function over(below: Uint8Array, above: Uint8Array): void {
  const [a, b] = [above[3]! / 255, below[3]! / 255];
  const alpha = a + b * (1 - a);
  if (alpha === 0) return;
  for (let c = 0; c < 3; c++) {
    below[c] = Math.round((above[c]! * a + below[c]! * b * (1 - a)) / alpha);
  }
  below[3] = Math.round(255 * alpha);
}

function onBackground(
  rgba: Uint8Array,
  size: { readonly width: number; readonly height: number },
  background: number,
): Picture {
  const pixels = Uint8Array.from({ length: (rgba.length / 4) * 3 }, (_, i) => {
    const at = Math.floor(i / 3) * 4;
    const alpha = rgba[at + 3]! / 255;
    return Math.round(rgba[at + (i % 3)]! * alpha + background * (1 - alpha));
  });
  return { ...size, channels: 3, pixels };
}

function damaged(name: string, reason: string): FormatError {
  return new FormatError(
    `${name} cannot be read as an animated PNG: ${reason}; download it again or remove it.`,
  );
}
