/** Arranges pictures in a grid. */
import { UsageError } from "../engine/errors.ts";
import { type Clip, clipOfPictures, picturesOfClip } from "./clip.ts";
import type { Picture } from "./picture.ts";
import { LETTER, writeText } from "./text.ts";

export interface GridOptions {
  /** Pixels between two pictures; 2 by default. */
  readonly gap?: number;
  /** Each pixel becomes a square with sides of this many pixels; 1 by default. */
  readonly scale?: number;
  /** Grey value of the gaps and of empty places, from 0 to 255; 255 (white) by default. */
  readonly background?: number;
  /** A line of text above each row. */
  readonly titles?: readonly string[] | undefined;
}

/** A scale at which samples of a training are large enough to look at. */
export function sampleScale({ width }: Pick<Picture, "width">): number {
  return Math.max(1, Math.round(64 / width));
}

/**
 * Arranges pictures of one size row by row. With fewer pictures than `columns`, the grid is one shorter row.
 *
 * @throws UsageError if there are no pictures, or if they differ in size or channels
 */
export function pictureGrid(
  pictures: readonly Picture[],
  columns: number,
  { gap = 2, scale = 1, background = 255, titles }: GridOptions = {},
): Picture {
  const first = pictures[0];
  if (!first) throw new UsageError("A grid needs at least one picture, got none.");
  const { width, height, channels } = first;
  for (const picture of pictures) {
    if (shapeOf(picture) === shapeOf(first)) continue;
    throw new UsageError(
      `All pictures of a grid must have one size, but one is ${shapeOf(picture)} and the first is ${shapeOf(first)}; resize them.`,
    );
  }
  const across = Math.min(columns, pictures.length);
  const down = Math.ceil(pictures.length / columns);
  const [wide, high] = [width * scale, height * scale];
  const above = titles ? LETTER + 2 : 0;
  const total = { width: across * (wide + gap) - gap, height: down * (high + gap + above) - gap };
  const pixels = new Uint8Array(total.width * total.height * channels).fill(background);
  for (const [row, title] of (titles ?? []).slice(0, down).entries()) {
    const top = row * (high + gap + above) + 1;
    writeText({ ...total, channels, pixels }, title, { left: 0, top, width: total.width });
  }
  for (const [i, picture] of pictures.entries()) {
    const left = (i % columns) * (wide + gap);
    const top = Math.floor(i / columns) * (high + gap + above) + above;
    for (let y = 0; y < high; y++) {
      const row = Math.floor(y / scale) * width;
      const target = (top + y) * total.width + left;
      for (let x = 0; x < wide; x++) {
        const from = (row + Math.floor(x / scale)) * channels;
        for (let c = 0; c < channels; c++) {
          pixels[(target + x) * channels + c] = picture.pixels[from + c]!;
        }
      }
    }
  }
  return { ...total, channels, pixels };
}

/** The most frames of a clip that a contact sheet shows. */
const SHEET_FRAMES = 16;

/**
 * A contact sheet: one row a clip, of its frames or, for long clips, of some at even distances.
 *
 * @throws UsageError if clips differ in size, length or channels
 */
export function clipSheet(clips: readonly Clip[]): Picture {
  const rows = clips.map((clip) => {
    const shown = Math.min(clip.frames, SHEET_FRAMES);
    const frames = picturesOfClip(clip);
    return Array.from({ length: shown }, (_, i) =>
      shown === 1 ? frames[0]! : frames[Math.round((i * (clip.frames - 1)) / (shown - 1))]!,
    );
  });
  return pictureGrid(rows.flat(), rows[0]?.length ?? 1);
}

/**
 * One clip that shows several of one length side by side.
 *
 * @throws UsageError as `pictureGrid`
 */
export function clipGrid(clips: readonly Clip[], columns: number): Clip {
  const frames = clips.map(picturesOfClip);
  return clipOfPictures(
    (frames[0] ?? []).map((_, i) =>
      pictureGrid(
        frames.map((each) => each[i]!),
        columns,
      ),
    ),
  );
}

function shapeOf({ width, height, channels }: Picture): string {
  return `${width}×${height} in ${channels === 1 ? "grey" : "colour"}`;
}
