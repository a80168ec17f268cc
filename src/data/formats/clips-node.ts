/** Reads a folder of clips: animated files, films, folders of frames, and still pictures, which are clips of one frame. */
import { basename, dirname, extname } from "node:path/posix";
import { clipExtensions, readClip } from "../../pictures/clip-file-node.ts";
import { type Clip, picturesOfClip } from "../../pictures/clip.ts";
import { fitPicture, pictureExtensions } from "../../pictures/decode-node.ts";
import type { FramesShape } from "../../pictures/picture.ts";
import type { DataConfigOf } from "../config.ts";
import type { DataSet } from "../dataset.ts";
import { type FolderMedia, openMediaFolder } from "./image-folder-node.ts";

type Config = DataConfigOf<"clips">;

/** Frames of a clip that are kept in memory, as a multiple of those that are learned at a time. */
const KEPT_FRAMES = 16;

/** @throws UsageError if the folder has no clips, or its captions and labels contradict each other */
export async function openClips(config: Config, shape: FramesShape): Promise<DataSet> {
  const folders = new Set<string>();
  const media: FolderMedia = {
    list: (files) => withFolders(files, folders),
    isItem: (file) => folders.has(file) || hasExtension(file, clipExtensions),
    kinds: "clips: animated WebP, GIF or PNG files, MP4 or WebM, or folders of numbered frames",
    read: async (path) => {
      const { clip, fps } = await readClip(path, config.background === "black" ? "black" : "white");
      return fittedFrames(atRate(clip, fps, config), shape, config);
    },
  };
  return openMediaFolder(config, media);
}

/**
 * Puts a folder in the place of its files where these are the numbered frames of one clip: walk/001.png, walk/002.png, …
 *
 * @param found the folders, which are added
 */
function withFolders(files: readonly string[], found: Set<string>): readonly string[] {
  const byFolder = new Map<string, string[]>();
  for (const file of files) {
    const folder = dirname(file);
    byFolder.set(folder, [...(byFolder.get(folder) ?? []), file]);
  }
  const isFrame = (file: string) => hasExtension(file, pictureExtensions);
  return [...byFolder].flatMap(([folder, own]) => {
    const unnumbered = new Set(own.map((file) => basename(file).replace(/\d+(?=\.[^.]+$)/, "")));
    const numbered = own.every((file) => /\d\.[^.]+$/.test(file));
    const frames = own.length > 1 && numbered && unnumbered.size === 1 && own.every(isFrame);
    if (!frames || folder === ".") return own;
    found.add(folder);
    return [folder];
  });
}

function hasExtension(file: string, extensions: readonly string[]): boolean {
  return extensions.includes(extname(file).slice(1).toLowerCase());
}

/** Every so many frames, by the stride or by the rates of file and config. */
function atRate(clip: Clip, own: number | undefined, { fps, stride }: Config): Clip {
  const step = Math.max(1, fps === undefined || own === undefined ? stride : (own / fps) * stride);
  if (step === 1) return clip;
  const bytes = clip.pixels.length / clip.frames;
  const frames = Math.floor((clip.frames - 1) / step) + 1;
  const pixels = new Uint8Array(frames * bytes);
  for (let i = 0; i < frames; i++) {
    const from = Math.round(i * step) * bytes;
    pixels.set(clip.pixels.subarray(from, from + bytes), i * bytes);
  }
  return { ...clip, frames, pixels };
}

/** The first frames, fitted to a shape one by one. */
async function fittedFrames(clip: Clip, shape: FramesShape, config: Config): Promise<Uint8Array> {
  const kept = picturesOfClip(clip).slice(0, KEPT_FRAMES * (shape.frames ?? 1));
  const frames = await Promise.all(kept.map((frame) => fitPicture(frame, shape, config)));
  const size = frames[0]!.length;
  const pixels = new Uint8Array(frames.length * size);
  for (const [i, frame] of frames.entries()) pixels.set(frame, i * size);
  return pixels;
}
