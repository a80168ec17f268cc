import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { type NdArray, ndarray } from "../../src/engine/arrays/ndarray.ts";
import {
  exponential,
  multinomial,
  rand,
  randint,
  randn,
  randperm,
  torchGenerator,
} from "../../src/engine/random/torch-random.ts";

// The recorded tensors in test/fixtures/torch_rng* are compared in test/evaluation/verify.test.ts.

function sha256({ data }: NdArray): string {
  return createHash("sha256").update(data).digest("hex");
}

describe("a million and three elements of torch 1.13.1 with seed 99", () => {
  const size = 1_000_003;

  it.each([
    ["randn", "44264e31e3d8680e965dcd4bc6c21dd5dff4896a8df756b7da13937ca087dea1", randn],
    ["rand", "9b484019b4c5d2e6bd5d30875436363fff2dcf9bce8411b63e1ec59b02f08d65", rand],
  ] as const)("%s is equal bit by bit", (_, want, draw) => {
    expect(sha256(draw(torchGenerator(99), [size]))).toBe(want);
  });

  it("randint is equal", () => {
    expect(sha256(randint(torchGenerator(99), 0, 777, [size]))).toBe(
      "bd2564d71c60bbf95d1c1df9ca84e3ee3128c4462b26472a5ccabb6b84d2f311",
    );
  });

  it("randperm is equal", () => {
    expect(sha256(randperm(torchGenerator(99), size))).toBe(
      "340c855d341f64f23f410b7ea587ba909ed042dcce1f6cca46197f644924d658",
    );
  });
});

describe("torchGenerator", () => {
  it("initializes MT19937 as in its authors' test", () => {
    const generator = torchGenerator(5489);
    expect([generator.next(), generator.next()]).toEqual([3499211612, 581869302]);
    for (let i = 2; i < 9999; i++) generator.next();
    expect(generator.next()).toBe(4123659995); // the 10,000th, as the C++ standard demands
  });

  it("uses the low 32 bits of a seed, in two's complement", () => {
    const first = (seed: number | bigint) => torchGenerator(seed).next();
    expect(first(2 ** 32 + 5)).toBe(first(5));
    expect(first(-1)).toBe(first(2n ** 64n - 1n));
    expect(first(-1)).toBe(first(0xffffffff));
    expect(first(-(2n ** 63n))).toBe(first(0));
  });

  it.each([0.5, Infinity, 2 ** 53, 2n ** 64n])("refuses the seed %s", (seed) => {
    expect(() => torchGenerator(seed)).toThrow(/^The seed .*\.$/);
  });
});

describe("randn", () => {
  it("keeps the second half of a pair for the next short draw, past longer ones", () => {
    const [whole, parts] = [torchGenerator(1), torchGenerator(1)];
    const four = randn(whole, [4], "float64").data;
    const three = randn(parts, [3], "float64").data;
    expect(three).toEqual(four.slice(0, 3));
    randn(parts, [16]);
    expect(randn(parts, [1], "float64").data).toEqual(four.slice(3));
  });

  it("draws the last 16 again if the size is not a multiple of 16", () => {
    const [long, short] = [20, 16].map((size) => randn(torchGenerator(3), [size]).data);
    expect(long!.slice(0, 4)).toEqual(short!.slice(0, 4));
    expect(long!.slice(4, 16)).not.toEqual(short!.slice(4));
  });

  it("draws nothing for an empty shape", () => {
    const generator = torchGenerator(0);
    expect(randn(generator, [3, 0])).toMatchObject({ shape: [3, 0], dtype: "float32" });
    expect(generator.next()).toBe(torchGenerator(0).next());
  });
});

describe("randint", () => {
  it.each([
    [0, 0],
    [3, 2],
    [0.5, 2],
    [0, 2n ** 63n],
    [-(2n ** 63n) - 1n, 0],
    [NaN, 1],
  ])("refuses the range from %s to %s", (low, high) => {
    expect(() => randint(torchGenerator(0), low, high, [1])).toThrow(
      /^randint was asked for .*\.$/,
    );
  });
});

describe("randperm", () => {
  it.each([-1, 0.5, 2 ** 32])("refuses %s integers", (n) => {
    expect(() => randperm(torchGenerator(0), n)).toThrow(/^randperm was asked for .*\.$/);
  });
});

describe("exponential", () => {
  it("has the mean 1 / rate", () => {
    const [slow, fast] = [1, 4].map((rate) => exponential(torchGenerator(2), [4096], rate).data);
    expect(slow!.reduce((sum, x) => sum + x, 0) / 4096).toBeCloseTo(1, 1);
    expect(fast).toEqual(slow!.map((x) => x / 4));
  });
});

describe("multinomial", () => {
  const values = Array.from({ length: 120 }, (_, at) => {
    const [row, i] = [Math.floor(at / 12), at % 12];
    return ((3 * row + 5 * i) % 7) + (i % 3);
  });
  const weights = ndarray("float32", [10, 12], values);

  it.each([
    [3, [1n, 10n, 8n, 5n, 1n, 2n, 6n, 1n, 2n, 1n]],
    [4, [2n, 1n, 7n, 9n, 5n, 1n, 11n, 11n, 9n, 4n]],
  ])("draws what torch.multinomial(weights, 1) draws with seed %i", (seed, want) => {
    const generator = torchGenerator(seed);
    expect(multinomial(generator, weights)).toEqual(
      ndarray("int64", [10, 1], BigInt64Array.from(want)),
    );
  });

  it("advances the generator by one exponential for each weight, as torch does", () => {
    const generator = torchGenerator(3);
    multinomial(generator, weights);
    expect(rand(generator, [2]).data).toEqual(
      Float32Array.of(0.5995774865150452, 0.8202359676361084),
    );
  });

  it.each([
    ["a negative weight", [1, 3], [1, -1, 0], /the weight -1 at \[0, 1\]/],
    ["NaN", [1, 3], [1, 0, NaN], /the weight NaN at \[0, 2\]/],
    ["a row of zeros", [2, 2], [1, 0, 0, 0], /no positive weight in row 1/],
    ["no rows", [3], [1, 1, 1], /shape \[3\]; give \[rows, categories\]/],
  ])("refuses %s", (_, shape, data, message) => {
    expect(() => multinomial(torchGenerator(0), ndarray("float32", shape, data))).toThrow(message);
  });
});
