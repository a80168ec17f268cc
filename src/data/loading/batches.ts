/**
 * Decides which examples form a batch and how each is augmented, as pure functions of the seed and the
 * position, so that a resumed run sees the same batches.
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
  /** The example, before an unreadable one is replaced. */
  readonly index: number;
  readonly flipped: boolean;
  /** Index of the caption to use. */
  readonly caption: (count: number) => number;
}

/**
 * The sequence of examples of a data set: one random permutation of all examples after another. Position p of
 * epoch e is element p mod count of a permutation that depends only on the seed and e.
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

/** Caches the results for two arguments, since a batch may span two epochs. */
function lastUsed<T>(make: (n: number) => T): (n: number) => T {
  const kept = new Map<number, T>();
  return (n) => {
    const known = kept.get(n) ?? make(n);
    kept.set(n, known);
    for (const other of kept.keys()) if (kept.size > 2 && other !== n) kept.delete(other);
    return known;
  };
}

/** How an example is stored in a batch. */
export interface Layout {
  /** Bytes of one example in the batch. */
  readonly bytes: number;
  /** Writes the example to `target`, mirrored if `flip` is true. */
  put(pixels: Uint8Array, flipped: boolean, target: Uint8Array): void;
}

/** The layout of pictures. */
export function pictureLayout({ height, width, channels }: PictureShape): Layout {
  return {
    bytes: height * width * channels,
    put: (pixels, flipped, target) => copyPicture(pixels, width, channels, flipped, target),
  };
}

/** Writes a picture [height, width, channels] to `target`, mirrored left to right if `flip` is true. */
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
