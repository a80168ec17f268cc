import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  fork,
  integers,
  normal,
  permutation,
  philox4x32,
  randomBits,
  randomKey,
  uniform,
} from "../../src/engine/random/random.ts";

const key = randomKey(20240229);

/** Pearson's statistic of equally likely bins; its mean is bins - 1, its variance 2 (bins - 1). */
function chiSquare(bins: Float64Array): number {
  const expected = bins.reduce((sum, count) => sum + count, 0) / bins.length;
  return bins.reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0);
}

/** How far a chi-square statistic lies from its mean, in standard deviations. */
function chiSquareScore(bins: Float64Array): number {
  const freedom = bins.length - 1;
  return Math.abs(chiSquare(bins) - freedom) / Math.sqrt(2 * freedom);
}

function correlation(a: Float32Array, b: Float32Array): number {
  const mean = (x: Float32Array) => x.reduce((sum, value) => sum + value, 0) / x.length;
  const [meanA, meanB] = [mean(a), mean(b)];
  let [ab, aa, bb] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    const [da, db] = [a[i]! - meanA, b[i]! - meanB];
    ab += da * db;
    aa += da * da;
    bb += db * db;
  }
  return ab / Math.sqrt(aa * bb);
}

describe("philox4x32", () => {
  // The known answers that come with Random123, the authors' own library.
  it.each([
    ["zeros", [0, 0, 0, 0], [0, 0], [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]],
    [
      "ones",
      [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff],
      [0xffffffff, 0xffffffff],
      [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd],
    ],
    [
      "digits of pi",
      [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
      [0xa4093822, 0x299f31d0],
      [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
    ],
  ] as const)("gives the known answer for %s", (_, counter, seed, want) => {
    expect(Array.from(philox4x32(counter, seed))).toEqual(want);
  });
});

describe("randomKey", () => {
  it("accepts 64-bit seeds and streams, with negative ones in two's complement", () => {
    expect(randomKey(2n ** 64n - 1n, -1)).toEqual({
      seed: [0xffffffff, 0xffffffff],
      stream: [0xffffffff, 0xffffffff],
    });
    expect(randomKey(2 ** 40 + 5)).toEqual({ seed: [5, 256], stream: [0, 0] });
    expect(randomKey(-(2n ** 63n)).seed).toEqual([0, 0x80000000]);
  });

  it.each([0.5, NaN, 2 ** 53, 2n ** 64n, -(2n ** 63n) - 1n])("refuses the seed %s", (seed) => {
    expect(() => randomKey(seed)).toThrow(/^The seed .*; give .*\.$/);
  });

  it("puts the stream into the upper half of the counter", () => {
    const bits = randomBits(randomKey(0x0000000200000001n, 0x0000000400000003n), 8);
    expect(Array.from(bits.subarray(4))).toEqual(Array.from(philox4x32([1, 0, 3, 4], [1, 2])));
  });

  it("counts blocks beyond 2^32", () => {
    const bits = randomBits(randomKey(1), 1, 2 ** 34 * 3 + 4 * 5 + 2);
    expect(bits[0]).toBe(philox4x32([5, 3, 0, 0], [1, 0])[2]);
  });
});

describe("position", () => {
  it.each([
    ["uniform", uniform],
    ["normal", normal],
  ] as const)("%s numbers do not depend on where a range begins", (_, draw) => {
    const all = draw(key, [64]).data;
    fc.assert(
      fc.property(fc.nat(40), fc.nat(20), (start, length) => {
        expect(draw(key, [length], start).data).toEqual(all.slice(start, start + length));
      }),
    );
  });

  it("integers do not depend on where a range begins", () => {
    const all = integers(key, -5, 1000, [64]).data;
    fc.assert(
      fc.property(fc.nat(40), fc.nat(20), (start, length) => {
        const part = integers(key, -5, 1000, [length], start).data;
        expect(part).toEqual(all.slice(start, start + length));
      }),
    );
  });

  it("returns the requested shape, even an empty one", () => {
    expect(uniform(key, []).data).toHaveLength(1);
    expect(normal(key, [3, 5])).toMatchObject({ dtype: "float32", shape: [3, 5] });
    expect(normal(key, [0, 5]).data).toHaveLength(0);
  });
});

describe("uniform", () => {
  const { data } = uniform(key, [1 << 18]);

  it("lies in [0, 1) with 24 bits", () => {
    expect(data.every((u) => u >= 0 && u < 1 && Number.isInteger(u * 2 ** 24))).toBe(true);
  });

  it("fills 256 bins evenly", () => {
    const bins = new Float64Array(256);
    for (const u of data) bins[Math.floor(u * 256)]!++;
    expect(chiSquareScore(bins)).toBeLessThan(3);
  });

  it("fills the 16 × 16 squares of neighbouring pairs evenly", () => {
    const bins = new Float64Array(256);
    for (let i = 0; i < data.length; i += 2) {
      bins[Math.floor(data[i]! * 16) * 16 + Math.floor(data[i + 1]! * 16)]!++;
    }
    expect(chiSquareScore(bins)).toBeLessThan(3);
  });

  it("sets each of its bits half of the time", () => {
    const words = randomBits(key, 1 << 16);
    for (let bit = 0; bit < 32; bit++) {
      const set = words.reduce((sum, word) => sum + ((word >>> bit) & 1), 0);
      expect(Math.abs(set - 2 ** 15)).toBeLessThan(4 * 128); // the deviation is sqrt(2^16 / 4) = 128
    }
  });
});

describe("normal", () => {
  const size = 1 << 18;
  const { data } = normal(key, [size]);
  const moment = (power: number) => data.reduce((sum, z) => sum + z ** power, 0) / size;

  it("has the moments 0, 1, 0, 3, 0, 15", () => {
    // The variance of the k-th sample moment is (E z^2k - (E z^k)²) / size.
    const moments = [0, 1, 0, 3, 0, 15];
    const spread = [1, 2, 15, 96, 945, 10170];
    moments.forEach((want, i) => {
      expect(Math.abs(moment(i + 1) - want)).toBeLessThan(4 * Math.sqrt(spread[i]! / size));
    });
  });

  it("falls into 8 bins of equal probability evenly", () => {
    const quartiles = [-1.1503494, -0.6744898, -0.3186394, 0, 0.3186394, 0.6744898, 1.1503494];
    const bins = new Float64Array(8);
    for (const z of data) bins[quartiles.filter((edge) => z >= edge).length]!++;
    expect(chiSquareScore(bins)).toBeLessThan(3);
  });

  it("has tails beyond 4 standard deviations, up to the limit of 32 bits", () => {
    const beyond = data.reduce((count, z) => count + (Math.abs(z) > 4 ? 1 : 0), 0);
    expect(beyond).toBeGreaterThan(4); // 16.6 are expected
    expect(beyond).toBeLessThan(40);
    expect(data.every((z) => Math.abs(z) < 6.7)).toBe(true);
  });

  it("keeps the two numbers of a pair independent", () => {
    const even = data.filter((_, i) => i % 2 === 0);
    const odd = data.filter((_, i) => i % 2 === 1);
    expect(Math.abs(correlation(even, odd))).toBeLessThan(4 / Math.sqrt(size / 2));
    const squares = (values: Float32Array) => values.map((z) => z * z);
    expect(Math.abs(correlation(squares(even), squares(odd)))).toBeLessThan(
      4 / Math.sqrt(size / 2),
    );
  });

  it("gives these bits in every engine", () => {
    const bits = new Uint32Array(normal(randomKey(42), [4]).data.buffer);
    expect(Array.from(bits, (word) => word.toString(16))).toEqual([
      "bf785e5c",
      "3e46ace2",
      "bf9e28ce",
      "3ff64340",
    ]);
  });
});

describe("fork", () => {
  const names = ["", "a", "a\0", "b", "ab", "ba", "image", "1", 0, 1, -1, 2 ** 32, 2n ** 60n];

  it("gives each name its own key, the same each time", () => {
    const keys = names.map((name) => JSON.stringify(fork(key, name)));
    expect(new Set([...keys, JSON.stringify(key)]).size).toBe(names.length + 1);
    expect(names.map((name) => JSON.stringify(fork(key, name)))).toEqual(keys);
  });

  it("depends on the seed and on the stream", () => {
    const forks = [randomKey(1), randomKey(2), randomKey(1, 1), randomKey(2 ** 32)].map((parent) =>
      JSON.stringify(fork(parent, "noise")),
    );
    expect(new Set(forks).size).toBe(4);
  });

  it("survives being stored as JSON", () => {
    const forked = fork(key, "noise");
    expect(normal(JSON.parse(JSON.stringify(forked)), [5])).toEqual(normal(forked, [5]));
  });

  it("gives independent sequences to neighbouring numbers, streams and seeds", () => {
    const size = 1 << 14;
    const keys = [
      key,
      fork(key, 0),
      fork(key, 1),
      fork(fork(key, 0), 0),
      randomKey(20240229, 1),
      randomKey(20240230),
    ];
    const drawn = keys.map((each) => uniform(each, [size]).data);
    for (let i = 0; i < drawn.length; i++) {
      for (let j = 0; j < i; j++) {
        expect(Math.abs(correlation(drawn[i]!, drawn[j]!))).toBeLessThan(4 / Math.sqrt(size));
      }
    }
  });

  it("gives images uniform first numbers", () => {
    const bins = new Float64Array(64);
    const images = fork(key, "image");
    for (let i = 0; i < 1 << 14; i++) {
      bins[Math.floor(uniform(fork(images, i), [1]).data[0]! * 64)]!++;
    }
    expect(chiSquareScore(bins)).toBeLessThan(3);
  });
});

describe("integers", () => {
  it("are evenly spread over ranges that are no power of two", () => {
    const { data } = integers(key, -3, 34, [1 << 16]);
    const bins = new Float64Array(37);
    for (const value of data) bins[Number(value) + 3]!++;
    expect(bins.every((count) => count > 0)).toBe(true);
    expect(chiSquareScore(bins)).toBeLessThan(3);
  });

  it("stay inside any range", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: -(2 ** 40), max: 2 ** 40 }),
        fc.integer({ min: 1, max: 2 ** 32 }),
        fc.nat(1000),
        (low, range, start) => {
          const { data } = integers(key, low, low + range, [8], start);
          expect(data.every((value) => value >= low && value < low + range)).toBe(true);
        },
      ),
    );
  });

  it.each([
    [0, 0],
    [5, 4],
    [0, 2 ** 32 + 1],
    [0.5, 2],
    [0, NaN],
  ])("refuse the range from %s to %s", (low, high) => {
    expect(() => integers(key, low, high, [1])).toThrow(/give two integers/);
  });
});

describe("permutation", () => {
  it("is a bijection of [0, n)", () => {
    fc.assert(
      fc.property(fc.nat(300), fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), (n, seed) => {
        const order = permutation(randomKey(seed), n);
        expect(Array.from(order).sort((a, b) => a - b)).toEqual(
          Array.from({ length: n }, (_, i) => i),
        );
      }),
    );
  });

  it("gives all 24 orders of 4 equally often", () => {
    const counts = new Map<string, number>();
    for (let i = 0; i < 24 * 500; i++) {
      const order = permutation(fork(key, i), 4).join();
      counts.set(order, (counts.get(order) ?? 0) + 1);
    }
    expect(counts.size).toBe(24);
    expect(chiSquareScore(Float64Array.from(counts.values()))).toBeLessThan(3);
  });

  it.each([-1, 1.5, 2 ** 32])("refuses %s elements", (n) => {
    expect(() => permutation(key, n)).toThrow(/give a whole number/);
  });
});
