import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { fork, normal, randomKey } from "../../src/engine/random/random.ts";
import type { Features } from "../../src/evaluation/distances.ts";
import { frechetDistance } from "../../src/evaluation/distances.ts";
import { kernelDistance } from "../../src/evaluation/distances.ts";
import { precisionRecall } from "../../src/evaluation/distances.ts";

const featuresOf = (count: number, width: number, value: (i: number, j: number) => number) => ({
  count,
  width,
  values: Float64Array.from({ length: count * width }, (_, at) =>
    value(Math.floor(at / width), at % width),
  ),
});

/** Numbers that NumPy makes alike. */
const waves = (count: number, a: number, b: number, size: number) =>
  featuresOf(count, 6, (i, j) => Math.sin(a * i * i + b * j + 0.3 * i * j) * size + 0.1 * j);
const [x, y] = [waves(40, 0.7, 1.9, 1), waves(50, 1.1, 0.4, 1.5)];
const firstOf = ({ width, values }: Features, count: number): Features => ({
  count,
  width,
  values: values.slice(0, count * width),
});

const gaussian = (seed: number, count: number, width: number): Features => ({
  count,
  width,
  values: normal(randomKey(seed), [count, width]).data,
});

/** Few pictures of wide features are the harder case: their covariance has no full rank. */
const sizes = fc.record({
  seed: fc.nat(1e6),
  count: fc.integer({ min: 4, max: 30 }),
  other: fc.integer({ min: 4, max: 30 }),
  width: fc.integer({ min: 1, max: 12 }),
});

describe("the Fréchet distance", () => {
  // By the eigenvalues of the product of covariances, and where that has no full rank by the singular values of
  // the product of centred features.
  it.each([
    [x, y, 1.6427197343138928],
    [firstOf(x, 5), y, 4.451178302846535],
  ])("equals NumPy's result", (a, b, expected) => {
    expect(frechetDistance(a, b)).toBeCloseTo(expected, 12);
  });

  it("is 0 for equal sets in any order", () => {
    fc.assert(
      fc.property(sizes, ({ seed, count, width }) => {
        const a = gaussian(seed, count, width);
        const turned = featuresOf(count, width, (i, j) => a.values[(count - 1 - i) * width + j]!);
        expect(frechetDistance(a, turned)).toBeLessThan(1e-12 * width);
      }),
      { seed: 1, numRuns: 50 },
    );
  });

  it("is symmetric and invariant under a rotation of both sets", () => {
    fc.assert(
      fc.property(sizes, ({ seed, count, other, width }) => {
        const [a, b] = [gaussian(seed, count, width), gaussian(seed + 1, other, width)];
        const distance = frechetDistance(a, b);
        expect(frechetDistance(b, a)).toBeCloseTo(distance, 10);
        // Householder's reflection at a random plane.
        const v = normal(randomKey(seed + 2), [width]).data;
        const square = v.reduce((sum, each) => sum + each * each, 0);
        const reflected = ({ values, ...set }: Features) =>
          featuresOf(set.count, width, (i, j) => {
            let dot = 0;
            for (let k = 0; k < width; k++) dot += v[k]! * values[i * width + k]!;
            return values[i * width + j]! - (2 * dot * v[j]!) / square;
          });
        expect(frechetDistance(reflected(a), reflected(b))).toBeCloseTo(distance, 10);
      }),
      { seed: 2, numRuns: 50 },
    );
  });

  it("is Σ (μ − ν)² + (σ − τ)² for Gaussians with independent axes", () => {
    // Points on the axes, at ± the same distance: their covariance is diagonal, to the last bit.
    const onAxes = (mean: readonly number[], distances: readonly number[]) =>
      featuresOf(2 * mean.length, mean.length, (i, j) => {
        const sign = i % 2 === 0 ? 1 : -1;
        return mean[j]! + (Math.floor(i / 2) === j ? sign * distances[j]! : 0);
      });
    const [mean, deviations] = [
      [0, 1, -2, 8],
      [1, 2, 0, 3],
    ];
    const [otherMean, otherDeviations] = [
      [4, 1, -1, 8],
      [2, 2, 5, 0],
    ];
    const spread = Math.sqrt(2 / (2 * mean.length - 1));
    const expected = mean.reduce(
      (sum, each, i) =>
        sum + (each - otherMean[i]!) ** 2 + (spread * (deviations[i]! - otherDeviations[i]!)) ** 2,
      0,
    );
    const distance = frechetDistance(onAxes(mean, deviations), onAxes(otherMean, otherDeviations));
    expect(distance).toBeCloseTo(expected, 12);
  });

  it("approaches 0 as two samples of one distribution grow", () => {
    const of = (count: number) => frechetDistance(gaussian(4, count, 8), gaussian(5, count, 8));
    const distances = [50, 500, 5000].map(of);
    expect(distances[0]).toBeGreaterThan(4 * distances[1]!);
    expect(distances[1]).toBeGreaterThan(4 * distances[2]!);
  });

  it("refuses features of different widths, and too few of them", () => {
    expect(() => frechetDistance(x, gaussian(0, 9, 5))).toThrow(
      "features of one width, got 6 and 5",
    );
    expect(() => frechetDistance(firstOf(x, 1), y)).toThrow(
      "needs at least 2 pictures in each set",
    );
  });
});

describe("the kernel distance", () => {
  it.each([
    [40, 0.5539317630847256],
    [20, 0.5258947227438915],
  ])("of whole sets equals NumPy's result", (size, expected) => {
    const whole = kernelDistance(firstOf(x, size), firstOf(y, size), {
      key: randomKey(0),
      subsets: 3,
      size,
    });
    expect(whole.mean).toBeCloseTo(expected, 12);
    expect(whole.std).toBeLessThan(1e-12);
  });

  it("refuses subsets that cannot be drawn", () => {
    const draw = (size: number) => () => kernelDistance(x, y, { key: randomKey(0), size });
    expect(draw(41)).toThrow("of 2 to 40 pictures");
    expect(draw(1)).toThrow("of 2 to 40 pictures");
  });

  it("is unbiased: about 0 on either side for samples of one distribution", () => {
    const distances = Array.from({ length: 60 }, (_, i) => {
      const [a, b] = [0, 1].map((side) => gaussian(100 + 2 * i + side, 40, 4));
      return kernelDistance(a!, b!, { key: randomKey(i), subsets: 1, size: 40 }).mean;
    });
    const mean = distances.reduce((sum, value) => sum + value, 0) / distances.length;
    const squares = distances.reduce((sum, value) => sum + (value - mean) ** 2, 0);
    const error = Math.sqrt(squares) / distances.length;
    expect(Math.abs(mean)).toBeLessThan(3 * error);
    expect(distances.some((value) => value < 0)).toBe(true);
  });

  it("is the same for the same key, and reports its subsets", () => {
    const [a, b] = [gaussian(6, 30, 4), gaussian(7, 50, 4)];
    const first = kernelDistance(a, b, { key: fork(randomKey(1), "a") });
    expect(kernelDistance(a, b, { key: fork(randomKey(1), "a") })).toEqual(first);
    expect(kernelDistance(a, b, { key: fork(randomKey(1), "b") }).mean).not.toBe(first.mean);
    expect(first).toMatchObject({ subsets: 50, size: 15 });
    expect(first.std).toBeGreaterThan(0);
  });
});

describe("precision and recall", () => {
  it("equal NumPy's results", () => {
    expect(precisionRecall(x, y)).toEqual({ precision: 0.7, recall: 0.9 });
  });

  it("distinguish unrealistic pictures from missing variety", () => {
    const real = featuresOf(40, 1, (i) => (i % 20) + (i < 20 ? 0 : 1000));
    const half = featuresOf(20, 1, (i) => i + 0.5);
    expect(precisionRecall(real, half)).toEqual({ precision: 1, recall: 0.5 });
    const wrong = featuresOf(40, 1, (i) => real.values[i]! + (i < 20 ? 0.5 : 500));
    expect(precisionRecall(real, wrong)).toEqual({ precision: 0.5, recall: 0.5 });
  });
});
