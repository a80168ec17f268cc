import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { combine, images } from "../../src/diffusion/arrays.ts";
import {
  type Denoiser,
  splitAcrossCopies,
  denoiserOf,
  noiseOf,
  batchedNetwork,
} from "../../src/diffusion/denoiser.ts";
import { guided } from "../../src/diffusion/guidance.ts";
import { inpaint } from "../../src/diffusion/inpainting.ts";
import {
  flowLevels,
  type NoiseLevel,
  straight,
  variancePreserving,
} from "../../src/diffusion/levels.ts";
import { keyedNoise } from "../../src/diffusion/noise.ts";
import { parameterizations, predictionOf } from "../../src/diffusion/parameterization.ts";
import { samplers } from "../../src/diffusion/samplers/index.ts";
import { finalImages, type Sampler } from "../../src/diffusion/samplers/sampler.ts";
import { thresholded } from "../../src/diffusion/thresholding.ts";
import { type NdArray, ndarray, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { normal, randomKey } from "../../src/engine/random/random.ts";

const draw = (seed: number) => normal(randomKey(seed), [2, 4, 3, 3]);
const x = draw(1);
const level = variancePreserving(500, 0.8);
const outputs = { conditional: draw(2), unconditional: draw(3) };
const network = (name: keyof typeof outputs) => async (seen: NdArray) =>
  combine([0.3, seen], [1, outputs[name]]);
const parts = (array: NdArray) => images(combine([1, array]));

/** Standard deviation of each image. */
const spreads = (array: NdArray) =>
  parts(array).map((part) => {
    const image = [...part];
    const mean = image.reduce((sum, value) => sum + value, 0) / image.length;
    return Math.sqrt(image.reduce((sum, value) => sum + (value - mean) ** 2, 0) / image.length);
  });

describe.each(parameterizations)("guidance of %s", (name) => {
  const conditional = denoiserOf(network("conditional"), name);
  const unconditional = denoiserOf(network("unconditional"), name);
  const predictionAt = (x0: NdArray) =>
    predictionOf(name, level, { x0, noise: noiseOf({ x0 }, x, level) });

  it("extrapolates the network's prediction", async () => {
    const { x0 } = await guided(conditional, unconditional, { scale: 4 })(x, level);
    const want = toNumbers(
      combine([0.3, x], [4, outputs.conditional], [-3, outputs.unconditional]),
    );
    for (const [i, value] of toNumbers(predictionAt(x0)).entries()) {
      expect(value).toBeCloseTo(want[i]!, 4);
    }
  });

  it("leaves the fourth channel conditional if it guides 3", async () => {
    const { x0 } = await guided(conditional, unconditional, { scale: 4, channels: 3 })(x, level);
    const whole = await guided(conditional, unconditional, { scale: 4 })(x, level);
    const plain = await conditional(x, level);
    for (const [i, image] of parts(x0).entries()) {
      expect(image.slice(0, 27)).toEqual(parts(whole.x0)[i]!.slice(0, 27));
      expect(image.slice(27)).toEqual(parts(plain.x0)[i]!.slice(27));
    }
  });

  it("with rescale has the conditional standard deviation, image by image", async () => {
    const at = async (amount: number) => {
      const rescale = { amount, parameterization: name };
      const { x0 } = await guided(conditional, unconditional, { scale: 6, rescale })(x, level);
      return spreads(predictionAt(x0));
    };
    const wanted = spreads(predictionAt((await conditional(x, level)).x0));
    const [free, half, whole] = [await at(0), await at(0.5), await at(1)];
    for (const [i, value] of wanted.entries()) {
      expect(whole[i]).toBeCloseTo(value, 4);
      expect(half[i]).toBeCloseTo((value + free[i]!) / 2, 4);
    }
  });
});

describe("guidance", () => {
  const conditional = denoiserOf(network("conditional"), "flow");

  it("is exactly the conditional model at scale 1, in every sampler", async () => {
    const never: Denoiser = () => Promise.reject(new Error("nobody should ask"));
    for (const sampler of Object.values(samplers) as Sampler[]) {
      const run = (denoise: Denoiser) => {
        const noise = keyedNoise([randomKey(5), randomKey(6)]);
        return finalImages(sampler(denoise, x, flowLevels(6, { shift: 2 }), { noise }));
      };
      const once = await run(guided(conditional, never, { scale: 1, channels: 3 }));
      expect(once.data).toEqual((await run(conditional)).data);
    }
  });

  it("runs no unconditional model outside its interval", async () => {
    const asked: number[] = [];
    const watching: Denoiser = async (seen, { time }) => {
      asked.push(time);
      return { x0: seen };
    };
    const interval = { above: 0.25, upTo: 1 };
    const denoise = guided(conditional, watching, { scale: 3, interval });
    // sigma / alpha is infinite, 4, 1, 1/4 and 1/9.
    const levels = [1, 0.8, 0.5, 0.2, 0.1].map((sigma) => straight(1000 * sigma, sigma));
    for (const at of levels) await denoise(x, at);
    expect(asked).toEqual([500]);
    expect(await denoise(x, levels[4]!)).toEqual(await conditional(x, levels[4]!));
  });

  it("by skipped layers has no effect at scale 0", async () => {
    const never: Denoiser = () => Promise.reject(new Error("nobody should ask"));
    const interval = { above: 0, upTo: Infinity };
    const free = denoiserOf(network("unconditional"), "flow");
    for (const scale of [1, 4]) {
      const plain = await guided(conditional, free, { scale })(x, level);
      const skipLayers = { scale: 0, weakened: never, interval };
      expect(await guided(conditional, free, { scale, skipLayers })(x, level)).toEqual(plain);
    }
  });

  it("by skipped layers leads away from the weakened model in its interval only", async () => {
    const free = denoiserOf(network("unconditional"), "flow");
    const interval = { above: 0.5, upTo: 2 };
    const skipLayers = { scale: 2.5, weakened: denoiserOf(async () => draw(12), "flow"), interval };
    const [active, inactive] = [straight(500, 0.5), straight(300, 0.3)];
    for (const scale of [1, 4]) {
      const both = guided(conditional, free, { scale, skipLayers });
      const plain = guided(conditional, free, { scale });
      const [{ x0 }, base, wanted] = [
        await both(x, active),
        await plain(x, active),
        await conditional(x, active),
      ];
      const weak = await skipLayers.weakened(x, active);
      const want = toNumbers(combine([1, base.x0], [2.5, wanted.x0], [-2.5, weak.x0]));
      for (const [i, value] of toNumbers(x0).entries()) expect(value).toBeCloseTo(want[i]!, 4);
      expect(await both(x, inactive)).toEqual(await plain(x, inactive));
    }
    // Away from itself leads nowhere.
    const same = { ...skipLayers, weakened: conditional };
    const nowhere = await guided(conditional, free, { scale: 1, skipLayers: same })(x, active);
    const still = toNumbers((await conditional(x, active)).x0);
    for (const [i, value] of toNumbers(nowhere.x0).entries()) {
      expect(value).toBeCloseTo(still[i]!, 5);
    }
  });

  it("keeps the conditional variance", async () => {
    const variance = draw(7);
    const one: Denoiser = async () => ({ x0: draw(8), variance });
    const other: Denoiser = async () => ({ x0: draw(9), variance: draw(10) });
    expect((await guided(one, other, { scale: 2 })(x, level)).variance).toBe(variance);
  });
});

describe("a batched network", () => {
  /** Weighs each image by the `y` of its row, so that a row in a wrong place shows. */
  const weighted = (inputs: Readonly<Record<string, NdArray>>) => {
    const { x: seen, t, y } = inputs as { [K in "x" | "t" | "y"]: NdArray };
    const [weights, times] = [toNumbers(y), toNumbers(t)];
    const size = seen.data.length / seen.shape[0]!;
    const values = toNumbers(seen).map((value, i) => {
      const row = Math.floor(i / size);
      return value * weights[row]! + times[row]! / 1000;
    });
    return ndarray("float32", seen.shape, values);
  };
  const conditions = (...classes: number[]) => ({ y: ndarray("int64", [classes.length], classes) });

  it("answers both models of guidance in one run, with the results of two", async () => {
    const runs: number[] = [];
    const told = batchedNetwork(async (inputs) => {
      runs.push(inputs["x"]!.shape[0]!);
      return weighted(inputs);
    });
    const apart = (y: Readonly<Record<string, NdArray>>) =>
      denoiserOf(
        async (seen, { time }) =>
          weighted({ ...y, x: seen, t: ndarray("float32", [2], [time, time]) }),
        "v",
      );
    const [wanted, free] = [conditions(2, 5), conditions(10, 10)];
    const run = (ask: (y: Readonly<Record<string, NdArray>>) => Denoiser) =>
      finalImages(samplers.euler(guided(ask(wanted), ask(free), { scale: 1.5 }), x, flowLevels(3)));
    const together = await run((y) => denoiserOf(told(y), "v"));
    expect(runs).toEqual([4, 4, 4]);
    expect(together).toEqual(await run(apart));
  });

  it("runs again for later calls, and reports a failure to every caller", async () => {
    const runs: number[] = [];
    const told = batchedNetwork(async (inputs) => {
      runs.push(inputs["x"]!.shape[0]!);
      if (runs.length === 3) throw new Error("out of memory");
      return weighted(inputs);
    });
    const ask = told(conditions(1, 1));
    await ask(x, level);
    await ask(x, level);
    expect(runs).toEqual([2, 2]);
    const failed = await Promise.allSettled([ask(x, level), ask(x, level)]);
    expect(failed.map(({ status }) => status)).toEqual(["rejected", "rejected"]);
    expect((await ask(x, level)).shape).toEqual(x.shape);
    expect(runs).toEqual([2, 2, 4, 2]);
  });
});

describe("rows that are split across copies", () => {
  type Inputs = Readonly<Record<string, NdArray>>;
  const inputs = (rows: number) => ({
    x: normal(randomKey(rows), [rows, 3]),
    t: ndarray("float32", [rows], new Array<number>(rows).fill(7)),
    y: ndarray(
      "int64",
      [rows],
      Array.from({ length: rows }, (_, i) => i),
    ),
  });
  /** Tells for each row which one it was. */
  const numbered = (given: Inputs) =>
    ndarray("float32", [given["x"]!.shape[0]!, 1], toNumbers(given["y"]!));

  it("come back in order, even if a copy is slow", () =>
    fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 40 }),
        fc.array(fc.integer({ min: 0, max: 3 }), { minLength: 1, maxLength: 5 }),
        async (rows, delays) => {
          const copies = delays.map((delay) => async (given: Inputs) => {
            for (let i = 0; i < delay; i++) await Promise.resolve();
            return numbered(given);
          });
          const answer = await splitAcrossCopies(copies)(inputs(rows));
          expect(toNumbers(answer)).toEqual(Array.from({ length: rows }, (_, i) => i));
        },
      ),
    ));

  it("of two images go to one copy each, and a free copy takes over from a slow one", async () => {
    const taken: [string, number][] = [];
    let finish = () => {};
    const stuck = new Promise<void>((resolve) => (finish = resolve));
    const slow = async (given: Inputs) => {
      taken.push(["slow", given["x"]!.shape[0]!]);
      await stuck;
      return numbered(given);
    };
    const fast = async (given: Inputs) => {
      taken.push(["fast", given["x"]!.shape[0]!]);
      if (toNumbers(given["y"]!).at(-1) === 15) finish();
      return numbered(given);
    };
    const run = splitAcrossCopies([slow, fast]);
    await run(inputs(16));
    expect(taken[0]).toEqual(["slow", 4]);
    expect(taken.slice(1)).toEqual([3, 3, 2, 1, 1, 1, 1].map((count) => ["fast", count]));
    taken.length = 0;
    await run(inputs(2));
    expect(taken).toEqual([
      ["slow", 1],
      ["fast", 1],
    ]);
  });

  it("are given to no copy after a failure", async () => {
    let runs = 0;
    const failing = async () => {
      runs++;
      throw new Error("the worker ended");
    };
    await expect(splitAcrossCopies([failing, failing])(inputs(16))).rejects.toThrow(
      "the worker ended",
    );
    expect(runs).toBe(2);
  });
});

describe("inpainting", () => {
  const shape = [2, 3, 4, 4];
  const known = normal(randomKey(31), shape);
  const mask = ndarray(
    "float32",
    shape,
    toNumbers(known).map((_, i) => (i % 4 < 2 ? 1 : 0)),
  );
  const everySampler = Object.entries(samplers) as [string, Sampler][];

  it.each(everySampler)("keeps the known part in %s, noised as the rest", async (_, sampler) => {
    const levels = flowLevels(12, { shift: 2 }).slice(3);
    const [first] = levels as [NoiseLevel];
    const noise = keyedNoise([randomKey(5), randomKey(6)]);
    const start = combine([first.alpha, known], [first.sigma, noise("start", shape)]);
    const drawn: Denoiser = async (seen, at) => ({ x0: combine([0.4 * at.alpha, seen]) });
    const outside: number[] = [];
    const watched: Denoiser = async (seen, at) => {
      // Of what was added to the known part; standard normal at every level.
      const added = toNumbers(noiseOf({ x0: known }, seen, at)).filter((_value, i) => i % 4 >= 2);
      outside.push(Math.sqrt(added.reduce((sum, value) => sum + value ** 2, 0) / added.length));
      return drawn(seen, at);
    };
    const end = await finalImages(sampler(inpaint(watched, known, mask), start, levels, { noise }));
    expect(outside.length).toBeGreaterThanOrEqual(9);
    for (const spread of outside) expect(Math.abs(spread - 1)).toBeLessThan(0.45);
    const free = await finalImages(sampler(drawn, start, levels, { noise }));
    for (const [i, value] of toNumbers(end).entries()) {
      const want = i % 4 < 2 ? toNumbers(free)[i]! : toNumbers(known)[i]!;
      expect(value).toBeCloseTo(want, 5);
    }
  });

  it("takes the noise of the known part for networks that estimate noise", async () => {
    const estimate: Denoiser = async () => ({ x0: draw(4), noise: draw(5) });
    const half = ndarray("float32", [2, 4, 3, 3], new Array<number>(72).fill(0));
    const { x0, noise } = await inpaint(estimate, draw(6), half)(x, level);
    expect(toNumbers(x0)).toEqual(toNumbers(draw(6)));
    const again = combine([level.alpha, x0], [level.sigma, noise!]);
    for (const [i, value] of toNumbers(again).entries()) {
      expect(value).toBeCloseTo(toNumbers(x)[i]!, 5);
    }
  });
});

describe("thresholds", () => {
  const estimate: Denoiser = async () => ({ x0: combine([3, draw(4)]), noise: draw(5) });

  it("limit x0, and the noise that it implies", async () => {
    const { x0, noise } = await thresholded(estimate, { kind: "static", range: 0.5 })(x, level);
    expect(Math.max(...toNumbers(x0).map(Math.abs))).toBe(0.5);
    expect(noise).toBeUndefined();
    const kept = await thresholded(estimate, { kind: "static", keepNoise: true })(x, level);
    expect(kept.noise).toEqual(draw(5));
  });

  it("by quantile scale each image by its own largest values", async () => {
    const threshold = { kind: "dynamic", quantile: 0.5, most: 100 } as const;
    const { x0 } = await thresholded(estimate, threshold)(x, level);
    for (const [i, image] of parts(x0).entries()) {
      const before = parts(combine([3, draw(4)]))[i]!;
      const magnitudes = before.map(Math.abs).sort((a, b) => a - b);
      const bound = Math.max(1, (magnitudes[17]! + magnitudes[18]!) / 2);
      for (const [j, value] of image.entries()) {
        expect(value).toBeCloseTo(Math.max(-1, Math.min(1, before[j]! / bound)), 5);
      }
    }
  });
});
