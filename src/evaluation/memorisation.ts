/** Measures memorisation: how near drawings come to training pictures, against how near new real pictures come. */

/** Distances are root mean squared differences of pixels, from 0 (equal) to 1 (black against white). */
export interface Memorisation {
  /** Median distance of a drawing to the nearest training picture. */
  readonly median: number;
  /** The same of real pictures that are held out from training. */
  readonly heldOutMedian: number;
  /** Share of the drawings that are nearer to a training picture than 95 % of the held-out pictures are. */
  readonly copies: number;
}

/** Reduces pictures of one size to half their height and width: pixels [count, height, width, channels] → rows. */
export function halved(
  pixels: Uint8Array,
  { height, width, channels }: { height: number; width: number; channels: number },
): readonly Float32Array[] {
  const bytes = height * width * channels;
  const [rows, columns] = [Math.floor(height / 2), Math.floor(width / 2)];
  return Array.from({ length: pixels.length / bytes }, (_, i) => {
    const small = new Float32Array(rows * columns * channels);
    for (let k = 0; k < small.length; k++) {
      const [c, place] = [k % channels, Math.floor(k / channels)];
      const top = 2 * Math.floor(place / columns) * width + 2 * (place % columns);
      const at = i * bytes + top * channels + c;
      const below = at + width * channels;
      const sum = pixels[at]! + pixels[at + channels]! + pixels[below]! + pixels[below + channels]!;
      small[k] = sum / (4 * 255);
    }
    return small;
  });
}

/** The nearest of other pictures. */
export interface Nearest {
  readonly index: number;
  /** Root mean squared difference of the pixels. */
  readonly distance: number;
}

/**
 * Finds the nearest of others to each picture, by their pixels.
 *
 * @param allowed which of the others a picture is compared with, at least one; all unless given
 */
export function nearestPictures(
  pictures: readonly Float32Array[],
  others: readonly Float32Array[],
  allowed: (row: number, index: number) => boolean = () => true,
): readonly Nearest[] {
  return pictures.map((picture, row) => {
    let [least, nearest] = [Infinity, -1];
    for (const [index, other] of others.entries()) {
      if (!allowed(row, index)) continue;
      let sum = 0;
      // Most pictures are known to be farther away after a few of their pixels.
      for (let k = 0; k < picture.length && sum < least; k++) sum += (picture[k]! - other[k]!) ** 2;
      if (sum < least) [least, nearest] = [sum, index];
    }
    return { index: nearest, distance: Math.sqrt(least / picture.length) };
  });
}

/** @param heldOut distances of held-out real pictures, at least one */
export function memorisation(drawn: readonly number[], heldOut: readonly number[]): Memorisation {
  const threshold = quantile(heldOut, 0.05);
  return {
    median: quantile(drawn, 0.5),
    heldOutMedian: quantile(heldOut, 0.5),
    copies: drawn.filter((distance) => distance < threshold).length / drawn.length,
  };
}

function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.floor(share * (sorted.length - 1))]!;
}
