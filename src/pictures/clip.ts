/** Clips in memory: their frames one by one, and how long each is shown. */
import { UsageError } from "../engine/errors.ts";
import type { Frames, Picture } from "./picture.ts";

/** Frames of a clip, [frames, height, width, channels]. */
export type Clip = Frames & { readonly frames: number };

/** A clip and how fast it is shown. */
export interface TimedClip {
  readonly clip: Clip;
  /** Frames a second, over the whole of the clip; undefined for a folder, which does not say it. */
  readonly fps: number | undefined;
}

/** The frames of a clip as pictures. */
export function picturesOfClip({ frames, pixels, ...shape }: Clip): Picture[] {
  const bytes = pixels.length / frames;
  return Array.from({ length: frames }, (_, i) => ({
    ...shape,
    pixels: pixels.subarray(i * bytes, (i + 1) * bytes),
  }));
}

/**
 * Joins pictures of one size into a clip.
 *
 * @throws UsageError if there are none, or one differs from the first in size or channels
 */
export function clipOfPictures(pictures: readonly Picture[]): Clip {
  const [first] = pictures;
  if (!first) throw new UsageError("A clip needs at least one frame, got none.");
  const { width, height, channels } = first;
  const other = pictures.findIndex(
    (each) => each.width !== width || each.height !== height || each.channels !== channels,
  );
  if (other >= 0) {
    const { width: wide, height: high } = pictures[other]!;
    throw new UsageError(
      `All frames of a clip must have one size, but frame ${other + 1} is ${wide}×${high} and the first is ${width}×${height}; resize them.`,
    );
  }
  const bytes = first.pixels.length;
  const pixels = new Uint8Array(pictures.length * bytes);
  for (const [i, picture] of pictures.entries()) pixels.set(picture.pixels, i * bytes);
  return { frames: pictures.length, width, height, channels, pixels };
}

/** The frames of a clip from one to before another. */
export function sliceClip(clip: Clip, from: number, to: number): Clip {
  const bytes = clip.pixels.length / clip.frames;
  return { ...clip, frames: to - from, pixels: clip.pixels.subarray(from * bytes, to * bytes) };
}

/** Two clips of the same size, one after the other. */
export function joinClips(first: Clip, second: Clip): Clip {
  return clipOfPictures([...picturesOfClip(first), ...picturesOfClip(second)]);
}

/**
 * How long each frame is shown, in whole units of a file's clock, so that the sum is right to one unit.
 *
 * @param unit milliseconds of a unit
 * @throws UsageError when the rate is not above 0, or a frame would be shorter than a unit
 */
export function frameDelays(frames: number, fps: number, unit: number): readonly number[] {
  if (!(fps > 0 && fps <= 1000 / unit)) {
    throw new UsageError(
      `A clip of ${fps} frames a second cannot be written in this format; give a rate above 0, at most ${1000 / unit}.`,
    );
  }
  const end = (frame: number) => Math.round((frame * 1000) / (fps * unit));
  return Array.from({ length: frames }, (_, i) => (end(i + 1) - end(i)) * unit);
}
