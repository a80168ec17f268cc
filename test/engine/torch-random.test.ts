import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { type NdArray } from "../../src/engine/arrays/ndarray.ts";
import {
  exponential,
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
