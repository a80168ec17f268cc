/** Pictures side by side. */
import { UsageError } from "../engine/errors.ts";
import type { Picture } from "./picture.ts";

export interface GridOptions {
  /** Pixels between two pictures; 2 unless given. */
  readonly gap?: number;
  /** How many pixels a side each pixel becomes; 1 unless given. */
  readonly scale?: number;
  /** Grey of the gaps and of places without a picture, from 0 to 255; white unless given. */
  readonly background?: number;
}

/**
 * One picture of pictures that are all of one size, row by row; fewer than `columns` make one shorter row.
 *
 * @throws UsageError when there are none, or one is of another size than the first
 */
export function pictureGrid(
  pictures: readonly Picture[],
  columns: number,
  { gap = 2, scale = 1, background = 255 }: GridOptions = {},
): Picture {
  const first = pictures[0];
  if (!first) throw new UsageError("A grid of no pictures was asked for; give at least one.");
  const { width, height, channels } = first;
  for (const picture of pictures) {
    if (shapeOf(picture) === shapeOf(first)) continue;
    throw new UsageError(
      `A grid takes pictures of one size, but one is ${shapeOf(picture)} and the first is ${shapeOf(first)}; bring them to one size.`,
    );
  }
  const across = Math.min(columns, pictures.length);
  const down = Math.ceil(pictures.length / columns);
  const [wide, high] = [width * scale, height * scale];
  const total = { width: across * (wide + gap) - gap, height: down * (high + gap) - gap };
  const pixels = new Uint8Array(total.width * total.height * channels).fill(background);
  for (const [i, picture] of pictures.entries()) {
    const left = (i % columns) * (wide + gap);
    const top = Math.floor(i / columns) * (high + gap);
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

function shapeOf({ width, height, channels }: Picture): string {
  return `${width}×${height} in ${channels === 1 ? "grey" : "colour"}`;
}
