import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { denoiserOf, noiseOf } from "../../src/diffusion/denoiser.ts";
import { clean, flowLevels, straight, variancePreserving } from "../../src/diffusion/levels.ts";
import {
  estimatesOf,
  gain,
  parameterizations,
  predictionOf,
  targetOf,
  x0Of,
} from "../../src/diffusion/parameterization.ts";
import { combine } from "../../src/diffusion/arrays.ts";
import { ShapeError } from "../../src/engine/errors.ts";
import { evaluateFloat64 } from "../../src/engine/reference/evaluate.ts";
import { input } from "../../src/engine/graph/functional.ts";
import { graphOf } from "../../src/engine/graph/graph.ts";
import { type NdArray, ndarray, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { batch } from "../../src/engine/graph/shape.ts";
import type { Tensor } from "../../src/engine/graph/tensor.ts";
import { normal, randomKey } from "../../src/engine/random/random.ts";

// The same cases each time.
fc.configureGlobal({ seed: 7 });

const level = fc.oneof(
  fc
    .double({ min: -3, max: 3, noNaN: true })
    .map((lambda) => variancePreserving(0, Math.exp(-lambda))),
  fc.double({ min: 0.05, max: 0.95, noNaN: true }).map((sigma) => straight(0, sigma)),
  fc.double({ min: 0.05, max: 20, noNaN: true }).map((sigma) => ({ time: 0, alpha: 1, sigma })),
);
const numbers = fc.array(fc.double({ min: -3, max: 3, noNaN: true }), {
  minLength: 4,
  maxLength: 4,
});
const array = (values: readonly number[]) => ndarray("float64", [2, 2], values);

/** The largest difference. */
function distance(got: NdArray, want: NdArray): number {
  const other = toNumbers(want);
  return Math.max(...toNumbers(got).map((value, i) => Math.abs(value - other[i]!)));
}

describe.each(parameterizations)("the parameterization %s", (name) => {
  it("is inverted by its conversions", () => {
    fc.assert(
      fc.property(level, numbers, numbers, (at, a, b) => {
        const [x0, noise] = [array(a), array(b)];
        const x = combine([at.alpha, x0], [at.sigma, noise]);
        const prediction = predictionOf(name, at, { x0, noise });
        const estimates = estimatesOf(name, at, x, prediction);
        expect(distance(estimates.x0, x0)).toBeLessThan(1e-8);
        expect(distance(estimates.noise, noise)).toBeLessThan(1e-8);
        // And from a prediction that no x0 and noise were behind.
        const free = estimatesOf(name, at, x, array(b));
        expect(distance(predictionOf(name, at, free), array(b))).toBeLessThan(1e-8);
        expect(distance(combine([at.alpha, free.x0], [at.sigma, free.noise]), x)).toBeLessThan(
          1e-8,
        );
      }),
    );
  });

  it("gives the same in a graph", () => {
    const like: [string, Tensor][] = ["x0", "noise", "x", "output"].map((key) => [
      key,
      input(key, [batch, 2], "float64"),
    ]);
    const [x0, noise, x, output] = like.map(([, tensor]) => tensor) as [
      Tensor,
      Tensor,
      Tensor,
      Tensor,
    ];
    const symbolic = {
      alpha: input("alpha", [batch, 1], "float64"),
      sigma: input("sigma", [batch, 1], "float64"),
    };
    const graph = graphOf({
      target: targetOf(name, symbolic, { x0, noise }),
      x0: x0Of(name, symbolic, x, output),
    });
    fc.assert(
      fc.property(level, numbers, numbers, (at, a, b) => {
        const [first, second] = [array(a), array(b)];
        const given: Record<string, NdArray> = {
          x0: first,
          noise: second,
          x: first,
          output: second,
          alpha: ndarray("float64", [2, 1], [at.alpha, at.alpha]),
          sigma: ndarray("float64", [2, 1], [at.sigma, at.sigma]),
        };
        const asked = graph.inputs.map((leaf) => (leaf.node.attributes as { name: string }).name);
        const got = evaluateFloat64(
          graph,
          Object.fromEntries(asked.map((key) => [key, given[key]!])),
        );
        expect(
          distance(got["target"]!, predictionOf(name, at, { x0: first, noise: second })),
        ).toBeLessThan(1e-8);
        expect(distance(got["x0"]!, estimatesOf(name, at, first, second).x0)).toBeLessThan(1e-8);
      }),
      { numRuns: 20 },
    );
  });

  it("changes other predictions by its gain", () => {
    fc.assert(
      fc.property(level, fc.constantFrom(...parameterizations), numbers, (at, to, values) => {
        const [x, moved] = [array(values), array(values.map((value) => value + 1))];
        const read = (prediction: NdArray) =>
          predictionOf(to, at, estimatesOf(name, at, x, prediction)).data[0] as number;
        expect(read(moved) - read(x)).toBeCloseTo(gain(name, to, at) as number, 8);
      }),
    );
  });
});

describe("conversions that need no arithmetic", () => {
  const x = normal(randomKey(1), [2, 3]);
  const output = normal(randomKey(2), [2, 3]);

  it("return the prediction itself at every level", () => {
    for (const at of [clean, straight(0, 0.5), straight(0, 1)]) {
      expect(estimatesOf("epsilon", at, x, output).noise).toBe(output);
      expect(estimatesOf("x0", at, x, output).x0).toBe(output);
    }
  });

  it("recover x0 of pure noise from v and flow", () => {
    const [noisiest] = flowLevels(3);
    const flow = estimatesOf("flow", noisiest!, x, output).x0;
    expect(flow.data).toEqual(combine([1, x], [-1, output]).data);
    const v = estimatesOf("v", noisiest!, x, output).x0;
    expect(v.data).toEqual(combine([-1, output]).data);
  });
});

describe("denoiserOf", () => {
  const x = normal(randomKey(3), [2, 3, 2]);
  const at = variancePreserving(0, 0.7);

  it("splits the learned variance from the prediction", async () => {
    const output = normal(randomKey(4), [2, 6, 2]);
    const denoise = denoiserOf(async () => output, "epsilon", { learnedVariance: true });
    const { noise, variance, x0 } = await denoise(x, at);
    const half = (from: number) =>
      [0, 1].flatMap((image) => toNumbers(output).slice(image * 12 + from, image * 12 + from + 6));
    expect(toNumbers(noise!)).toEqual(half(0));
    expect(toNumbers(variance!)).toEqual(half(6));
    expect(x0.shape).toEqual([2, 3, 2]);
  });

  it("passes the level to the network", async () => {
    const asked: number[] = [];
    const network = async (seen: NdArray, { time }: { time: number }) => {
      asked.push(time);
      return seen;
    };
    const { x0 } = await denoiserOf(network, "x0")(x, { ...at, time: 250 });
    expect(asked).toEqual([250]);
    expect(x0).toBe(x);
  });

  it("derives the noise from x0 if it is not given", () => {
    const x0 = normal(randomKey(5), [2, 3, 2]);
    expect(distance(combine([at.alpha, x0], [at.sigma, noiseOf({ x0 }, x, at)]), x)).toBeLessThan(
      1e-5,
    );
    expect(noiseOf({ x0, noise: x0 }, x, at)).toBe(x0);
  });

  it("refuses outputs without a variance, and arrays that are not floats", async () => {
    const plain = denoiserOf(async (seen) => seen, "epsilon", { learnedVariance: true });
    await expect(plain(x, at)).rejects.toThrow("no channels behind the first 3");
    const whole = denoiserOf(async () => ndarray("int32", [2, 3, 2], new Int32Array(12)), "v");
    await expect(whole(x, at)).rejects.toThrow(ShapeError);
  });
});
