/**
 * Noise levels of the frames of clips in training: all equal, or the first ones clean, or each its own (diffusion forcing, Chen et al.,
 * 2024). A network that has learned all three draws a clip from noise, around given frames, and on from its own.
 */
import * as z from "zod";
import { type NdArray, ndarray } from "../engine/arrays/ndarray.ts";
import { fork, type RandomKey, uniform } from "../engine/random/random.ts";

const share = z.number().min(0).max(1);

/** The shares of the clips; they add up to 1. */
export const frameLevelsSchema = z
  .strictObject({
    /** One noise level for all frames. */
    equal: share.default(0),
    /** The first frames, one or more, without noise, and one level for the others. */
    firstClean: share.default(0),
    /** A level for each frame. */
    independent: share.default(0),
  })
  .refine(
    ({ equal, firstClean, independent }) => Math.abs(equal + firstClean + independent - 1) < 1e-9,
    {
      error: "the shares equal, firstClean and independent must add up to 1",
    },
  );

export type FrameLevels = z.output<typeof frameLevelsSchema>;

/** As small models of clips are trained unless a recipe says otherwise. */
const usualLevels: FrameLevels = { equal: 0.5, firstClean: 0.25, independent: 0.25 };

/** Times of the frames of clips in [0, 1], and which of them are learned. */
export interface FrameTimes {
  /** [B, times] */
  readonly time: NdArray<"float32">;
  /** [B, times]: 1 for a frame whose error counts, 0 for a clean one, and for one that is pure noise because its clip has ended. */
  readonly counts: NdArray<"float32">;
}

/**
 * Draws the times of clips.
 *
 * @param times of a clip, one for each patch along the axis of time
 * @param lengths times that each clip has; those behind are pure noise. Each clip has all unless given
 * @param draw times of the recipe by a key and a number of them
 */
export function drawFrameTimes(
  key: RandomKey,
  [rows, times]: readonly [rows: number, times: number],
  draw: (key: RandomKey, count: number) => NdArray,
  {
    levels = usualLevels,
    lengths,
  }: {
    readonly levels?: FrameLevels | undefined;
    readonly lengths?: readonly number[] | undefined;
  },
): FrameTimes {
  const kinds = uniform(fork(key, "kinds"), [rows]).data;
  const firsts = uniform(fork(key, "first"), [rows]).data;
  const shared = draw(fork(key, "shared"), rows).data;
  const own = draw(fork(key, "own"), rows * times).data;
  const time = new Float32Array(rows * times);
  const counts = new Float32Array(rows * times);
  for (let row = 0; row < rows; row++) {
    const length = lengths?.[row] ?? times;
    const kind = kinds[row]!;
    const { equal, firstClean } = levels;
    // At least one frame is learned.
    const clean =
      kind >= equal && kind < equal + firstClean && length > 1
        ? 1 + Math.floor(firsts[row]! * (length - 1))
        : 0;
    const separate = kind >= equal + firstClean;
    for (let i = 0; i < times; i++) {
      const at = row * times + i;
      const noisy = i >= clean && i < length;
      time[at] = noisy ? Number(separate ? own[at] : shared[row]) : i < clean ? 0 : 1;
      counts[at] = noisy ? 1 : 0;
    }
  }
  const shape = [rows, times];
  return { time: ndarray("float32", shape, time), counts: ndarray("float32", shape, counts) };
}
