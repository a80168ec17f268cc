/**
 * A network whose output is extrapolated from earlier noise levels where that is near enough, instead of computed. Like EasyCache
 * (Zhou et al., 2025) it looks at inputs and outputs only, so it works for every network, and it decides by itself; the extrapolation
 * is of first order, as in TaylorSeer (Liu et al., 2025).
 */
import { type NdArray, ndarray } from "../engine/arrays/ndarray.ts";
import { mapValues } from "../engine/records.ts";
import { real, rowsOf, stackRows } from "./arrays.ts";
import type { Conditions, Network } from "./denoiser.ts";

/** How far a cache goes; `off` is no cache. */
export const cacheModes = ["off", "careful", "fast"] as const;
export type CacheMode = (typeof cacheModes)[number];

export interface CacheLimits {
  /** The expected error since the last output that was computed, relative to its norm, above which the next one is computed. */
  readonly tolerance: number;
  /** The number of outputs in a row that may be extrapolated. */
  readonly most: number;
}

export const cacheLimits: { readonly [M in Exclude<CacheMode, "off">]: CacheLimits } = {
  careful: { tolerance: 0.01, most: 2 },
  fast: { tolerance: 0.05, most: 4 },
};

/** How many outputs, counted for each image and condition, were asked for and how many of them were not computed. */
export interface CacheCount {
  asked: number;
  reused: number;
}

type Values = ReturnType<typeof real>["data"];

/** What is known about one image. */
interface History {
  /** The last output that was computed and the one before, with the times they were asked for at. */
  last?: { readonly time: number; readonly output: Values };
  before?: { readonly time: number; readonly output: Values };
  /** The error that extrapolating the last computed output would have had, relative to its norm, over this number of calls. */
  error?: { readonly relative: number; readonly calls: number };
  /** Calls since the last output that was computed. */
  calls: number;
  /** The sum of the expected errors since then. */
  expected: number;
}

/**
 * A network that is run only for those images whose output cannot be extrapolated. Each image is decided upon by itself, so that
 * it comes out the same in every batch.
 *
 * The error is measured, not guessed: whenever an output is computed, it is compared with what extrapolation would have given, and
 * errors grow with the square of the distance. So nothing is extrapolated before three outputs are known, nor at the last level.
 *
 * @param under the network under the conditions of some of the images
 * @param options.last the time of the last level that the network is asked at
 * @param count is added to
 */
export function cachedNetwork(
  under: (rows: readonly number[]) => Network,
  { tolerance, most, last }: CacheLimits & { readonly last: number },
  count: CacheCount,
): Network {
  let histories: History[] = [];
  return async (x, level, told) => {
    const images = x.shape[0]!;
    if (histories.length !== images) {
      histories = Array.from({ length: images }, () => ({ calls: 0, expected: 0 }));
    }
    const isLast = level.time === last;
    const known = histories.map((history) =>
      isLast ? undefined : reused(history, level.time, { tolerance, most }),
    );
    const rows = known.flatMap((output, row) => (output ? [] : [row]));
    count.asked += images;
    count.reused += images - rows.length;
    const answer =
      rows.length === 0
        ? undefined
        : await under(rows)(pickRows(x, rows), level, told && pickAll(told, rows));
    if (answer && rows.length === images) {
      for (const [row, history] of histories.entries()) keep(history, level.time, answer, row);
      return answer;
    }
    const shape = (answer?.shape ?? shapeOf(histories[0]!, x)).slice(1);
    const outputs = known.map((output, row): NdArray => {
      if (output) return ndarray("float32", [1, ...shape], output as Float32Array);
      const place = rows.indexOf(row);
      keep(histories[row]!, level.time, answer!, place);
      return rowsOf(answer!, place, 1);
    });
    return stackRows(outputs);
  };

  function shapeOf({ last: kept }: History, x: NdArray): readonly number[] {
    // A learned variance doubles the channels.
    const size = x.data.length / x.shape[0]!;
    const channels = (x.shape[1]! * kept!.output.length) / size;
    return x.shape.with(1, channels);
  }
}

/** The rows of each condition. */
export function pickAll(conditions: Conditions, rows: readonly number[]): Conditions {
  return mapValues(conditions, (array) => pickRows(array, rows));
}

function pickRows(array: NdArray, rows: readonly number[]): NdArray {
  if (rows.length === array.shape[0]) return array;
  return stackRows(rows.map((row) => rowsOf(array, row, 1)));
}

/** The extrapolated output, or undefined if one is to be computed. */
function reused(history: History, time: number, limits: CacheLimits): Values | undefined {
  const { last, before, error } = history;
  history.calls++;
  if (!last || !before || !error || history.calls > limits.most) return undefined;
  const expected = error.relative * (history.calls / error.calls) ** 2;
  if (history.expected + expected > limits.tolerance) return undefined;
  history.expected += expected;
  return extrapolated(last, before, time);
}

function extrapolated(
  last: NonNullable<History["last"]>,
  before: NonNullable<History["last"]>,
  time: number,
): Values {
  const span = last.time - before.time;
  const share = span === 0 ? 0 : (time - last.time) / span;
  return last.output.map((value, i) => value + share * (value - before.output[i]!));
}

/** Remembers an output that was computed, and how wrong an extrapolation would have been. */
function keep(history: History, time: number, outputs: NdArray, row: number): void {
  const output = real(rowsOf(outputs, row, 1)).data.slice();
  const { last, before } = history;
  if (last && before) {
    const guess = extrapolated(last, before, time);
    const relative = Math.sqrt(squares(output, guess) / Math.max(squares(output), 1e-12));
    history.error = { relative, calls: history.calls };
  }
  if (last) history.before = last;
  history.last = { time, output };
  history.calls = 0;
  history.expected = 0;
}

/** Σ (a − b)². */
function squares(a: Values, b?: Values): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i]! - (b ? b[i]! : 0)) ** 2;
  return sum;
}
