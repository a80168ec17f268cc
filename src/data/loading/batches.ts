/**
 * Which examples make up a batch, and what chance decides about each: pure functions of the seed and a position, so that a
 * run that is resumed sees what it would have seen.
 */
import {
  fork,
  permutation,
  randomBits,
  randomKey,
  type RandomKey,
} from "../../engine/random/random.ts";
import type { PictureShape } from "../../pictures/picture.ts";

/** What is shown at one position of the endless sequence of examples. */
export interface Draw {
  /** The example, before one that cannot be read is replaced. */
  readonly index: number;
  readonly flipped: boolean;
  /** Which of so many captions. */
  readonly caption: (count: number) => number;
}

/**
 * The sequence of examples of a data set: one random order after another, each with all of them.
 *
 * Position p of epoch e is element p mod count of a permutation that depends on seed and e alone.
 */
export function drawing(
  seed: number,
  count: number,
  options: { readonly flip: boolean },
): (position: number) => Draw {
  const key = fork(randomKey(seed), "data");
  const orderOf = lastUsed((epoch: number) => permutation(fork(fork(key, "epoch"), epoch), count));
  const choices: RandomKey = fork(key, "choices");
  return (position) => {
    const order = orderOf(Math.floor(position / count));
    const [mirror, text] = randomBits(choices, 2, 2 * position);
    return {
      index: order[position % count]!,
      flipped: options.flip && mirror! % 2 === 1,
      caption: (texts) => Math.floor((text! / 2 ** 32) * texts),
    };
  };
}

/** Keeps the results for two numbers: a batch may end one epoch and begin the next. */
function lastUsed<T>(make: (n: number) => T): (n: number) => T {
  const kept = new Map<number, T>();
  return (n) => {
    const known = kept.get(n) ?? make(n);
    kept.set(n, known);
    for (const other of kept.keys()) if (kept.size > 2 && other !== n) kept.delete(other);
    return known;
  };
}

/** How an example lies in a batch. */
export interface Layout {
  /** Bytes that it takes there. */
  readonly bytes: number;
  /** Writes it to its place, mirrored where asked. */
  put(pixels: Uint8Array, flipped: boolean, target: Uint8Array): void;
}

/** Pictures as they are. */
export function pictureLayout({ height, width, channels }: PictureShape): Layout {
  return {
    bytes: height * width * channels,
    put: (pixels, flipped, target) => copyPicture(pixels, width, channels, flipped, target),
  };
}

/** Writes a picture [height, width, channels] to `target`, mirrored left to right where asked. */
export function copyPicture(
  pixels: Uint8Array,
  width: number,
  channels: number,
  flipped: boolean,
  target: Uint8Array,
): void {
  if (!flipped) {
    target.set(pixels);
    return;
  }
  const row = width * channels;
  for (let start = 0; start < pixels.length; start += row) {
    for (let x = 0; x < width; x++) {
      const from = start + (width - 1 - x) * channels;
      for (let c = 0; c < channels; c++) target[start + x * channels + c] = pixels[from + c]!;
    }
  }
}
