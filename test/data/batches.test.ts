import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { batchReader, type ReadOptions } from "../../src/data/loading/batch-reader.ts";
import { copyPicture, drawing, pictureLayout } from "../../src/data/loading/batches.ts";
import type { DataSet } from "../../src/data/dataset.ts";
import { FormatError, PatchwiseError } from "../../src/engine/errors.ts";
import { messageOf } from "./support.ts";

const shape = { height: 1, width: 2, channels: 1 } as const;

/** Example i has the pixels [i, 100 + i]; those in `bad` cannot be read. */
function dataOf(count: number, options: Partial<DataSet> & { bad?: readonly number[] } = {}) {
  const reads: number[] = [];
  const data: DataSet = {
    name: "made",
    count,
    classes: undefined,
    captioned: false,
    nameOf: (index) => `#${index}`,
    example: async (index) => {
      reads.push(index);
      if (options.bad?.includes(index)) throw new FormatError(`#${index} is bad.`);
      return { pixels: Uint8Array.from([index, 100 + index]), label: undefined, captions: [] };
    },
    close: async () => {},
    ...options,
  };
  return { data, reads };
}

const readerOf = (data: DataSet, options: Partial<ReadOptions> = {}) =>
  batchReader(data, {
    layout: pictureLayout(shape),
    batch: 4,
    seed: 1,
    flip: false,
    cache: 1e6,
    signal: new AbortController().signal,
    ...options,
  });

/** Which examples are in each of the first batches. */
async function shown(data: DataSet, batches: number, options: Partial<ReadOptions> = {}) {
  const reader = readerOf(data, options);
  const found: number[] = [];
  for (let i = 0; i < batches; i++) {
    const { batch } = await reader.read(i);
    found.push(...batch.pixels.filter((_, at) => at % 2 === 0));
  }
  return found;
}

describe("drawing", () => {
  it("visits every example once per epoch, in a new order each time", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 40 }), fc.nat(1000), (count, seed) => {
        const draw = drawing(seed, count, { flip: false });
        const epoch = (e: number) =>
          Array.from({ length: count }, (_, i) => draw(e * count + i).index);
        for (const e of [0, 1, 7]) {
          expect(epoch(e).sort((a, b) => a - b)).toEqual(
            Array.from({ length: count }, (_, i) => i),
          );
        }
      }),
    );
    const draw = drawing(3, 100, { flip: false });
    const orders = [0, 1].map((e) =>
      Array.from({ length: 100 }, (_, i) => draw(100 * e + i).index),
    );
    expect(orders[0]).not.toEqual(orders[1]);
  });

  it("depends only on the seed and the position", () => {
    const all = (seed: number, positions: readonly number[]) => {
      const draw = drawing(seed, 10, { flip: true });
      return positions.map((position) => {
        const { index, flipped, caption } = draw(position);
        return [position, index, flipped, caption(5)];
      });
    };
    const positions = Array.from({ length: 50 }, (_, i) => i);
    const backwards = all(9, positions.toReversed()).toReversed();
    expect(all(9, positions)).toEqual(backwards);
    expect(all(10, positions)).not.toEqual(all(9, positions));
  });

  it("mirrors half of the pictures and takes all captions equally often", () => {
    const draw = drawing(5, 100, { flip: true });
    const draws = Array.from({ length: 4000 }, (_, i) => draw(i));
    // Five standard deviations of a binomial: 5 · √(4000 · ¼) = 158.
    expect(Math.abs(draws.filter(({ flipped }) => flipped).length - 2000)).toBeLessThan(158);
    for (const wanted of [0, 1, 2]) {
      const times = draws.filter(({ caption }) => caption(3) === wanted).length;
      // 5 · √(4000 · ⅓ · ⅔) = 149.
      expect(Math.abs(times - 4000 / 3)).toBeLessThan(149);
    }
    expect(draws.every(({ caption }) => caption(1) === 0)).toBe(true);
    const plain = drawing(5, 100, { flip: false });
    expect(draws.some((_, i) => plain(i).flipped)).toBe(false);
    expect(draws.every(({ index }, i) => plain(i).index === index)).toBe(true);
  });
});

describe("copyPicture", () => {
  it("mirrors each row, not the channels", () => {
    const target = new Uint8Array(12);
    copyPicture(Uint8Array.from([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]), 2, 3, true, target);
    expect([...target]).toEqual([4, 5, 6, 1, 2, 3, 10, 11, 12, 7, 8, 9]);
  });
});

describe("batchReader", () => {
  it("returns the same batch i regardless of earlier reads", async () => {
    const { data } = dataOf(10);
    const all = await shown(data, 6, { flip: true });
    const reader = readerOf(data, { flip: true });
    const { batch } = await reader.read(4);
    expect([...batch.pixels].filter((_, i) => i % 2 === 0)).toEqual(all.slice(16, 20));
    expect(batch.index).toBe(4);
    expect(all.some((value) => value >= 100)).toBe(true);
    expect(all.some((value) => value < 100)).toBe(true);
  });

  it("supports batches larger than the data set", async () => {
    const { data } = dataOf(3);
    const [a, b] = [await shown(data, 1, { batch: 6 }), await shown(data, 2, { batch: 3 })];
    expect(a).toEqual(b);
    expect(a.sort((x, y) => x - y)).toEqual([0, 0, 1, 1, 2, 2]);
  });

  it("caches decoded pictures up to a limit", async () => {
    const { data, reads } = dataOf(8);
    await shown(data, 8);
    expect(reads).toHaveLength(8);
    const bounded = dataOf(8);
    // Two pixels and an object: 202 bytes each.
    await shown(bounded.data, 8, { cache: 1000 });
    expect(bounded.reads).toHaveLength(4 + 4 * 4);
  });

  it('returns −1 for missing labels and "" for missing captions', async () => {
    const { data } = dataOf(4, {
      classes: ["a", "b"],
      captioned: true,
      example: async (index) => ({
        pixels: new Uint8Array(2),
        label: index === 0 ? undefined : 1,
        captions: index === 1 ? [] : [`caption ${index}`],
      }),
    });
    const { batch } = await readerOf(data).read(0);
    expect([...batch.labels!].sort((a, b) => a - b)).toEqual([-1, 1, 1, 1]);
    expect(new Set(batch.captions)).toEqual(new Set(["", "caption 0", "caption 2", "caption 3"]));
    const plain = await readerOf(dataOf(4).data).read(0);
    expect(plain.batch).toMatchObject({ labels: undefined, captions: undefined });
  });

  it("replaces an unreadable picture and reports it once", async () => {
    const { data, reads } = dataOf(12, { bad: [3, 4, 11] });
    const reader = readerOf(data, { batch: 12 });
    const first = await reader.read(0);
    const indices = [...first.batch.pixels].filter((_, i) => i % 2 === 0);
    const order = drawing(1, 12, { flip: false });
    // In steps of 7, the first number from 0.618 · 12 on that has no divisor in common with 12.
    const replaced = (index: number) => ({ 3: 10, 4: 6, 11: 6 })[index] ?? index;
    expect(indices).toEqual(Array.from({ length: 12 }, (_, i) => replaced(order(i).index)));
    expect(first.skipped).toEqual([
      { name: "#3", reason: "#3 is bad." },
      { name: "#4", reason: "#4 is bad." },
      { name: "#11", reason: "#11 is bad." },
    ]);
    const before = reads.length;
    expect((await reader.read(1)).skipped).toEqual([]);
    expect(reads).toHaveLength(before);
  });

  it("fails if more than a tenth of the pictures, and at least 8, are unreadable", async () => {
    const even = Array.from({ length: 50 }, (_, i) => 2 * i);
    const { data } = dataOf(100, { bad: even });
    const message = await messageOf(shown(data, 25));
    expect(message).toMatch(
      /^FormatError: \d+ of the \d+ pictures of made that were tried cannot be read \(#\d+, #\d+, #\d+, …\), which is more than one in ten; repair or remove them\.$/,
    );
    const seven = dataOf(20, { bad: [0, 1, 2, 3, 4, 5, 6] });
    expect(await shown(seven.data, 5)).toHaveLength(20);
    const few = dataOf(200, { bad: Array.from({ length: 9 }, (_, i) => 20 * i) });
    expect(await shown(few.data, 50, { seed: 2 })).toHaveLength(200);
  });

  it("does not overcount unreadable neighbours", async () => {
    const bad = Array.from({ length: 20 }, (_, i) => 980 + i);
    for (let seed = 0; seed < 20; seed++) {
      const all = await shown(dataOf(1000, { bad }).data, 250, { seed });
      expect(all.filter((index) => index < 980)).toHaveLength(1000);
    }
  });

  it("fails if no picture can be read", async () => {
    const { data } = dataOf(3, { bad: [0, 1, 2] });
    expect(await messageOf(shown(data, 1))).toMatch(
      /^FormatError: None of the 3 pictures of made can be read: #\d is bad\.$/,
    );
  });

  it("stops on other errors and on abort", async () => {
    const { data } = dataOf(4, {
      example: () => Promise.reject(new PatchwiseError("The disk is gone.")),
    });
    expect(await messageOf(shown(data, 1))).toBe("PatchwiseError: The disk is gone.");
    const closing = new AbortController();
    closing.abort(new PatchwiseError("closing"));
    expect(await messageOf(shown(dataOf(4).data, 1, { signal: closing.signal }))).toBe(
      "PatchwiseError: closing",
    );
  });
});
