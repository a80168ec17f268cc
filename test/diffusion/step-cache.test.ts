import { describe, expect, it } from "vitest";
import { ndarray, type NdArray, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import type { Network } from "../../src/diffusion/denoiser.ts";
import { cachedNetwork, cacheLimits } from "../../src/diffusion/step-cache.ts";

const steps = 20;
const levels = Array.from({ length: steps }, (_, i) => {
  const sigma = 1 - i / steps;
  return { time: sigma, alpha: 1 - sigma, sigma };
});
const last = levels.at(-1)!.time;

/** Outputs of each image as a function of the level's time. */
type Curve = (time: number) => readonly number[];

/** Asks a cached network at every level; returns its outputs by image, and the images of each run of the network. */
async function through(curves: readonly Curve[], limits = cacheLimits.careful) {
  const runs: (readonly number[])[] = [];
  const count = { asked: 0, reused: 0 };
  const under = (rows: readonly number[]): Network => {
    return async (x, { time }) => {
      expect(x.shape[0]).toBe(rows.length);
      expect(toNumbers(x).filter((_, i) => i % 2 === 0)).toEqual(rows);
      runs.push(rows);
      return ndarray(
        "float32",
        x.shape,
        rows.flatMap((row) => curves[row]!(time)),
      );
    };
  };
  const network = cachedNetwork(under, { ...limits, last }, count);
  const x = ndarray(
    "float32",
    [curves.length, 1, 2],
    curves.flatMap((_, row) => [row, 0]),
  );
  const outputs: NdArray[] = [];
  for (const level of levels) outputs.push(await network(x, level));
  const of = (row: number) =>
    outputs.map((output) => toNumbers(output).slice(2 * row, 2 * row + 2));
  return { runs, count, of };
}

const straight: Curve = (time) => [1 + time, 2 - 3 * time];
const curved: Curve = (time) => [Math.sin(1.5 * time), Math.cos(time)];
const erratic: Curve = (time) => [Math.sin(1e4 * time), Math.cos(1e4 * time)];

describe("a network with a cache", () => {
  it("extrapolates a straight line exactly, from its third output on and not at the last level", async () => {
    const { runs, count, of } = await through([straight]);
    const known = levels.map(({ time }) => straight(time));
    for (const [i, output] of of(0).entries()) {
      for (const [j, value] of output.entries()) expect(value).toBeCloseTo(known[i]![j]!, 5);
    }
    // Levels 0, 1, 2, then every third, and the last.
    expect(runs).toHaveLength(9);
    expect(count).toEqual({ asked: steps, reused: steps - runs.length });
  });

  it.each(["careful", "fast"] as const)(
    "stays within the tolerance of %s on a curve",
    async (mode) => {
      const { count, of } = await through([curved], cacheLimits[mode]);
      expect(count.reused).toBeGreaterThan(0);
      const errors = of(0).map(([a, b], i) => {
        const [c, d] = curved(levels[i]!.time) as [number, number];
        return Math.hypot(a! - c, b! - d) / Math.hypot(c, d);
      });
      expect(Math.max(...errors)).toBeGreaterThan(0);
      expect(Math.max(...errors)).toBeLessThan(2 * cacheLimits[mode].tolerance);
    },
  );

  it("computes every output of a network without order", async () => {
    expect((await through([erratic])).count.reused).toBe(0);
  });

  it("decides on each image by itself, and runs the network for the others only", async () => {
    const together = await through([straight, erratic, curved]);
    for (const [row, curve] of [straight, erratic, curved].entries()) {
      // Rows are numbered in the network's input, so an image alone is told apart from its place in a batch.
      const alone = await through(new Array<Curve>(row + 1).fill(curve));
      expect(together.of(row)).toEqual(alone.of(row));
    }
    expect(together.runs.filter((rows) => rows.length < 3)).not.toEqual([]);
  });
});
