/** MP4 and WebM files through an installed ffmpeg. */
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FormatError, UsageError } from "../engine/errors.ts";
import { type Clip, clipOfPictures, type TimedClip } from "./clip.ts";
import type { Picture } from "./picture.ts";

/** The codec and its options for each format. Both need even sides, and are seen with a quarter of the colours. */
const codecs = {
  mp4: ["-c:v", "libx264", "-crf", "16", "-movflags", "+faststart"],
  webm: ["-c:v", "libvpx-vp9", "-crf", "18", "-b:v", "0", "-row-mt", "1"],
} as const;

export type FilmFormat = keyof typeof codecs;

/**
 * Encodes a clip as MP4 (H.264) or WebM (VP9), with some loss. Odd sides get another row or column of pixels at their end.
 *
 * @throws UsageError if ffmpeg is not installed, or cannot encode it
 */
export async function encodeFilm(clip: Clip, format: FilmFormat, fps: number): Promise<Uint8Array> {
  const { width, height, channels, pixels } = clip;
  const file = join(tmpdir(), `patchwise-${randomBytes(8).toString("hex")}.${format}`);
  const raw = ["-f", "rawvideo", "-pix_fmt", channels === 1 ? "gray" : "rgb24"];
  const source = [...raw, "-s", `${width}x${height}`, "-r", String(fps), "-i", "-"];
  const even = ["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-pix_fmt", "yuv420p"];
  try {
    await run("ffmpeg", ["-v", "error", ...source, ...even, ...codecs[format], file], file, pixels);
    return await readFile(file);
  } finally {
    await rm(file, { force: true });
  }
}

/**
 * Decodes the frames of a film in their own size, as they are shown, and in colour.
 *
 * @throws UsageError if ffmpeg is not installed; FormatError if it cannot read the file
 */
export async function readFilm(path: string): Promise<TimedClip> {
  const fields = ["-show_entries", "stream=avg_frame_rate", "-of", "csv=p=0"];
  const rate = await run(
    "ffprobe",
    ["-v", "error", "-select_streams", "v:0", ...fields, ...onlyThis(path)],
    path,
  );
  const [frames, seconds] = new TextDecoder().decode(rate).trim().split("/").map(Number);
  const output = [
    "-map",
    "0:v:0",
    "-fps_mode",
    "passthrough",
    "-f",
    "image2pipe",
    "-c:v",
    "ppm",
    "-",
  ];
  const clip = clipOfPictures(
    ppmPictures(await run("ffmpeg", ["-v", "error", ...onlyThis(path), ...output], path)),
  );
  return { clip, fps: frames && seconds ? frames / seconds : undefined };
}

/**
 * Options that read a file as MP4 or WebM and as nothing else: ffmpeg takes a playlist for a film whatever its name, and opens the files and
 * addresses in it.
 */
function onlyThis(path: string): readonly string[] {
  const formats = ["-format_whitelist", "mov,matroska,webm"];
  return [...formats, "-protocol_whitelist", "file,pipe", "-i", `file:${path}`];
}

/** Pictures in the PPM format, one after another: "P6", width, height, 255, and the bytes. */
function ppmPictures(bytes: Uint8Array): Picture[] {
  const pictures: Picture[] = [];
  for (let at = 0; at < bytes.length;) {
    const header = new TextDecoder().decode(bytes.subarray(at, at + 64));
    const [all, width, height] = /^P6\s+(\d+)\s+(\d+)\s+255\s/.exec(header) ?? [];
    if (all === undefined) break;
    const begin = at + all.length;
    const size = { width: Number(width), height: Number(height), channels: 3 as const };
    at = begin + size.width * size.height * 3;
    pictures.push({ ...size, pixels: bytes.slice(begin, at) });
  }
  return pictures;
}

/** @throws UsageError if ffmpeg is not installed, which a file needs */
export async function requireFfmpeg(file: string): Promise<void> {
  await run("ffmpeg", ["-version"], file);
}

/** The bytes of the most pixels that other animations may have, in colour. */
const MOST_BYTES = 3 * 2 ** 28;

/** Runs a program of ffmpeg and returns what it prints. */
async function run(
  program: "ffmpeg" | "ffprobe",
  options: readonly string[],
  file: string,
  input: Uint8Array = new Uint8Array(0),
): Promise<Uint8Array> {
  const child = spawn(program, [...options], { stdio: ["pipe", "pipe", "pipe"] });
  const [printed, complaints]: [Buffer[], Buffer[]] = [[], []];
  let length = 0;
  child.stdout.on("data", (part: Buffer) => {
    printed.push(part);
    length += part.length;
    if (length > MOST_BYTES) child.kill();
  });
  child.stderr.on("data", (part: Buffer) => complaints.push(part));
  // A program that ends early does not read all; its exit code says why.
  child.stdin.on("error", () => {});
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once("error", (cause) => reject(notInstalled(file, cause)));
    child.once("close", resolve);
    child.stdin.end(input);
  });
  if (code === 0) return Buffer.concat(printed);
  if (length > MOST_BYTES) {
    throw new FormatError(
      `${file} has more than ${MOST_BYTES} bytes of frames, which do not fit in memory; cut it, or make it smaller.`,
    );
  }
  const [reason = "it gave no reason"] = Buffer.concat(complaints).toString().trim().split("\n");
  throw new FormatError(`ffmpeg cannot read or write ${file}: ${reason}; give another file.`);
}

function notInstalled(file: string, cause: Error): UsageError {
  return new UsageError(
    `${file} needs ffmpeg, which is not installed; install it, or give a name that ends in .webp, .gif or .png.`,
    { cause },
  );
}
