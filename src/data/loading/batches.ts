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
import type { FramesShape } from "../../pictures/picture.ts";

/** What is shown at one position of the endless sequence of examples. */
export interface Draw {
  /** The example, before an unreadable one is replaced. */
  readonly index: number;
  readonly flipped: boolean;
  /** Where a part of a longer clip begins, as a share of where it could, in [0, 1). */
  readonly start: number;
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
  const starts: RandomKey = fork(key, "starts");
  return (position) => {
    const order = orderOf(Math.floor(position / count));
    const [mirror, text] = randomBits(choices, 2, 2 * position);
    const [start] = randomBits(starts, 1, position);
    return {
      index: order[position % count]!,
      flipped: options.flip && mirror! % 2 === 1,
      start: start! / 2 ** 32,
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
  /** Frames of it, for clips. */
  readonly frames?: number | undefined;
  /**
   * Writes the example to `target`, mirrored if `flip` is true.
   *
   * @param start for clips that are longer, where the part that is written begins; see `Draw`
   * @returns the frames that were written, fewer than those of the layout where the clip is shorter
   */
  put(pixels: Uint8Array, flipped: boolean, target: Uint8Array, start?: number): number;
}

/** The layout of pictures, or of clips. */
export function pictureLayout({ height, width, channels, frames }: FramesShape): Layout {
  const size = height * width * channels;
  return {
    bytes: size * (frames ?? 1),
    frames,
    put(pixels, flipped, target, start = 0) {
      const all = pixels.length / size;
      const shown = Math.min(all, frames ?? 1);
      const from = Math.floor(start * (all - shown + 1)) * size;
      const part = pixels.subarray(from, from + shown * size);
      copyPicture(part, width, channels, flipped, target);
      // So that a patch of time which the clip fills in part holds no black frames.
      for (let at = shown; at < (frames ?? 1); at++) {
        target.copyWithin(at * size, (shown - 1) * size, shown * size);
      }
      return shown;
    },
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
