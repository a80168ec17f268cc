/** Writes clips to animated files and films, and reads these and folders of pictures. */
import { readdir, stat } from "node:fs/promises";
import { extname, join } from "node:path";
import { UsageError } from "../engine/errors.ts";
import { writeFileAtomic } from "../weights/sources/atomic-node.ts";
import { system } from "../weights/sources/system-error-node.ts";
import { toApng } from "./apng.ts";
import { type Clip, clipOfPictures, frameDelays, type TimedClip } from "./clip.ts";
import { pictureExtensions, readAnimation, readPictureFile } from "./decode-node.ts";
import { encodeFilm, readFilm } from "./ffmpeg-node.ts";
import { described } from "./file-node.ts";
import type { PictureMetadata } from "./metadata.ts";
import { loadSharp } from "./sharp-node.ts";

const formats = {
  ".webp": "webp",
  ".gif": "gif",
  ".png": "apng",
  ".mp4": "mp4",
  ".webm": "webm",
} as const;

/** The extensions of files that `readClip` reads: animations, films, and pictures as clips of one frame. */
export const clipExtensions: readonly string[] = [...pictureExtensions, "apng", "mp4", "webm"];

export type ClipFormat = (typeof formats)[keyof typeof formats];

/** Milliseconds of the clock of each format. */
const clocks = { webp: 1, gif: 10, apng: 1 } as const;

/**
 * The format of a clip's file by its extension: .webp, .gif, .png, which is an animated PNG, .mp4 or .webm.
 *
 * @throws UsageError if the format cannot hold animation
 */
export function clipFormat(path: string): ClipFormat {
  const extension = extname(path).toLowerCase();
  if (Object.hasOwn(formats, extension)) return formats[extension as keyof typeof formats];
  throw new UsageError(
    `Cannot write a clip to ${path}, because this format holds no animation that is known here; give a name that ends in ${Object.keys(formats).join(", ")}.`,
  );
}

/** Returns true if a file is a film, by its extension, which ffmpeg reads and writes. */
export function isFilm(path: string): boolean {
  return [".mp4", ".webm"].includes(extname(path).toLowerCase());
}

export interface ClipOptions {
  /** The format of the file, whatever its name. */
  readonly format: ClipFormat;
  /** Frames a second. */
  readonly fps: number;
  /** How the clip was drawn; GIF, MP4 and WebM files do not hold it. */
  readonly metadata?: PictureMetadata | undefined;
}

/**
 * Encodes a clip as the bytes of a file. WebP, GIF and PNG repeat for ever; WebP and PNG are lossless, and GIF has at most 256 colours a
 * frame. MP4 and WebM are encoded by an installed ffmpeg, with some loss.
 *
 * @example await writeFile("heart.webp", await encodeClip(clip, { format: "webp", fps: 12 }));
 * @throws UsageError if the rate does not fit the format, which shows a frame for at least 1 ms, or 10 ms in GIF, or ffmpeg is missing
 */
export async function encodeClip(
  clip: Clip,
  { format, fps, metadata }: ClipOptions,
): Promise<Uint8Array> {
  if (format === "mp4" || format === "webm") return encodeFilm(clip, format, fps);
  const delay = [...frameDelays(clip.frames, fps, clocks[format])];
  if (format === "apng") return toApng(clip, fps, metadata);
  const { width, height, channels, frames, pixels } = clip;
  const raw = { width, height: height * frames, channels, pageHeight: height };
  const image = (await loadSharp())(pixels, { raw });
  return format === "gif"
    ? image.gif({ delay, loop: 0 }).toBuffer()
    : described(image, metadata).webp({ lossless: true, delay, loop: 0 }).toBuffer();
}

/**
 * Writes a clip in the format of the file's extension. A failure leaves no half-written file.
 *
 * @returns the bytes of the file
 * @throws UsageError if the extension or the rate does not fit; PatchwiseError if the file cannot be written
 */
export async function writeClip(
  path: string,
  clip: Clip,
  fps: number,
  metadata?: PictureMetadata,
): Promise<Uint8Array> {
  const bytes = await encodeClip(clip, { format: clipFormat(path), fps, metadata });
  await writeFileAtomic(path, bytes);
  return bytes;
}

/**
 * Reads an animated WebP, GIF or PNG file, a film through an installed ffmpeg, a picture, which is a clip of one frame, or a folder of
 * pictures in the order of their names.
 *
 * @param background the colour behind transparent pixels
 * @throws UsageError if there is nothing to read, or frames differ in size; FormatError if a file is damaged
 */
export async function readClip(
  path: string,
  background: "white" | "black" = "white",
): Promise<TimedClip> {
  const status = await stat(path).catch(() => undefined);
  if (status?.isFile() && isFilm(path)) return readFilm(path);
  if (!status?.isDirectory()) return readAnimation(path, background);
  const names = await system(`read the folder ${path}`, readdir(path), UsageError);
  const pictures = names
    .filter((name) => pictureExtensions.some((each) => extname(name).toLowerCase() === `.${each}`))
    .toSorted((a, b) => a.localeCompare(b, "en", { numeric: true }));
  if (pictures.length === 0) {
    throw new UsageError(
      `${path} has no picture to be a frame of a clip; put pictures (${pictureExtensions.join(", ")}) into it.`,
    );
  }
  const frames = [];
  for (const name of pictures) frames.push(await readPictureFile(join(path, name), background));
  return { clip: clipOfPictures(frames), fps: undefined };
}
