import { describe, expect, it } from "vitest";
import { combine, mapElements } from "../../src/diffusion/arrays.ts";
import type { Denoiser } from "../../src/diffusion/denoiser.ts";
import {
  clean,
  exponentialRatios,
  flowLevels,
  karrasLevels,
  type NoiseLevel,
  straight,
  variancePreserving,
} from "../../src/diffusion/levels.ts";
import { keyedNoise, type NoiseSource, torchNoise } from "../../src/diffusion/noise.ts";
import { ddim } from "../../src/diffusion/samplers/ddim.ts";
import { ddpm } from "../../src/diffusion/samplers/ddpm.ts";
import { dpmSolver } from "../../src/diffusion/samplers/dpm-solver.ts";
import { exploding, heun } from "../../src/diffusion/samplers/heun.ts";
import { samplerNamed, samplers } from "../../src/diffusion/samplers/index.ts";
import { finalImages, type Sampler } from "../../src/diffusion/samplers/sampler.ts";
import { unipc } from "../../src/diffusion/samplers/unipc.ts";
import { alphaBarsOf, betasOf, levelsAt, zeroTerminalSNR } from "../../src/diffusion/schedule.ts";
import { spacedTimesteps } from "../../src/diffusion/timesteps.ts";
import { PatchwiseError, ShapeError, UsageError } from "../../src/engine/errors.ts";
import { type NdArray, ndarray, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { normal, randomKey } from "../../src/engine/random/random.ts";
import { randn, torchGenerator } from "../../src/engine/random/torch-random.ts";
import { type Component, flowOf, mixtureDenoiser } from "../support/gaussian-mixture.ts";

const everySampler = Object.entries(samplers) as [string, Sampler][];
const noNoise: NoiseSource = (_, shape) =>
  ndarray("float64", shape, new Array<number>(shape.reduce((a, b) => a * b, 1)).fill(0));

/** Levels that end noisy, where every order shows; evenly spaced in λ, and in time. */
const paths: Record<string, (steps: number) => NoiseLevel[]> = {
  "variance-preserving": (steps) =>
    exponentialRatios(steps + 1, 20, 0.1).map((ratio) => variancePreserving(ratio, ratio)),
  exploding: (steps) =>
    exponentialRatios(steps + 1, 20, 0.1).map((sigma) => ({ time: sigma, alpha: 1, sigma })),
  straight: (steps) =>
    Array.from({ length: steps + 1 }, (_, i) => 0.95 - (0.85 * i) / steps).map((sigma) =>
      straight(sigma, sigma),
    ),
};

/** The slope of log(error) over log(steps). */
function orderOf(errors: readonly number[], steps: readonly number[]): number {
  const last = errors.length - 1;
  return Math.log(errors[0]! / errors[last]!) / Math.log(steps[last]! / steps[0]!);
}

describe("the probability flow of a Gaussian mixture", () => {
  const mixture: Component[] = [
    { weight: 0.3, mean: -1.2, std: 0.3 },
    { weight: 0.7, mean: 0.8, std: 0.5 },
  ];
  const starts = [-2.1, -0.7, -0.1, 0.4, 1.3, 2.6];

  async function errorOf(sampler: Sampler, levels: readonly NoiseLevel[]): Promise<number> {
    const [from, to] = [levels[0]!, levels.at(-1)!];
    const scale = Math.hypot(from.alpha, from.sigma);
    const x = ndarray(
      "float64",
      [starts.length, 1],
      starts.map((start) => start * scale),
    );
    const steps = sampler(mixtureDenoiser(mixture), x, levels, { noise: noNoise });
    const got = toNumbers(await finalImages(steps));
    const exact = toNumbers(x).map((value) => flowOf(mixture, value, from, to));
    return Math.max(...got.map((value, i) => Math.abs(value - exact[i]!)));
  }

  const dpm =
    (options: object): Sampler =>
    (denoise, x, levels) =>
      dpmSolver(denoise, x, levels, options);
  const uni =
    (options: object): Sampler =>
    (denoise, x, levels) =>
      unipc(denoise, x, levels, options);

  // The first step of a multistep solver has one estimate only: that limits what three can do.
  const orders: [string, Sampler, number][] = [
    ["euler", samplers.euler, 1],
    ["ddim", samplers.ddim, 1],
    ["heun", samplers.heun, 2],
    ["heun on x / alpha", exploding(heun), 2],
    ["dpm-solver of order 1", dpm({ order: 1 }), 1],
    ["dpmpp-2m", samplers["dpmpp-2m"], 2],
    ["dpmpp-2m-sigma", samplers["dpmpp-2m-sigma"], 2],
    ["dpm-solver of order 1 over sigma", dpm({ order: 1, clock: "sigma" }), 1],
    ["dpm-solver with heun", dpm({ integration: "heun" }), 2],
    ["dpmpp-3m", samplers["dpmpp-3m"], 2],
    ["unipc", samplers.unipc, 2],
    ["unipc bh1", uni({ variant: "bh1" }), 2],
    ["unipc of order 3", uni({ order: 3 }), 2],
  ];

  describe.each(Object.entries(paths))("on %s levels", (_, levels) => {
    it.each(orders)("%s converges at its order", async (name, sampler, order) => {
      const counts = [80, 160, 320];
      const errors = await Promise.all(counts.map((count) => errorOf(sampler, levels(count))));
      const found = orderOf(errors, counts);
      expect(found).toBeGreaterThan(order - 0.2);
      // The errors of 3M happen to cancel on straight levels.
      expect(found).toBeLessThan(order + (name === "dpmpp-3m" ? 0.6 : 0.2));
      expect(errors.at(-1)).toBeLessThan(order === 1 ? 0.01 : 1e-4);
    });
  });

  it.each(["bh1", "bh2"] as const)(
    "unipc of order 3 is of order 4 once it has begun (%s)",
    async (variant) => {
      const counts = [80, 160, 320];
      const errors = await Promise.all(
        counts.map((count) => {
          const step = Math.log(200) / count;
          const tiny = [0, step ** 2, 2 * step ** 2];
          const rest = Array.from({ length: count }, (_, i) => step * (i + 1));
          const levels = [...tiny, ...rest].map((lambda) =>
            variancePreserving(0, 20 * Math.exp(-lambda)),
          );
          return errorOf(uni({ order: 3, lowerOrderFinal: false, variant }), levels);
        }),
      );
      // The corrector adds one to the order of the predictor (theorem 3.1 of Zhao et al.).
      expect(orderOf(errors, counts)).toBeGreaterThan(3.8);
      expect(orderOf(errors, counts)).toBeLessThan(4.2);
    },
  );
});

describe("DPM-Solver++(2M) over sigma", () => {
  const mixture = mixtureDenoiser([
    { weight: 0.3, mean: -1.2, std: 0.3 },
    { weight: 0.7, mean: 0.8, std: 0.5 },
  ]);
  const x = normal(randomKey(2), [6, 1]);
  const run = (sampler: Sampler, levels: readonly NoiseLevel[]) =>
    finalImages(sampler(mixture, x, levels));

  it("equals k-diffusion's `sample_dpmpp_2m` on the levels of a flow, from pure noise", async () => {
    const levels = flowLevels(7, { shift: 3, lowest: 0.01 });
    let state = Float64Array.from(x.data);
    let before: readonly number[] | undefined;
    for (const [i, from] of levels.slice(0, -1).entries()) {
      const to = levels[i + 1]!;
      const { x0 } = await mixture(ndarray("float64", [6, 1], state), from);
      const found = toNumbers(x0);
      const h = Math.log(from.sigma / to.sigma);
      const r = i === 0 ? NaN : Math.log(levels[i - 1]!.sigma / from.sigma) / h;
      const earlier = to.sigma === 0 ? undefined : before;
      state = state.map((value, j) => {
        const estimate = earlier
          ? (1 + 1 / (2 * r)) * found[j]! - (1 / (2 * r)) * earlier[j]!
          : found[j]!;
        return (to.sigma / from.sigma) * value + (1 - to.sigma / from.sigma) * estimate;
      });
      before = found;
    }
    const got = toNumbers(await run(samplers["dpmpp-2m-sigma"], levels));
    for (const [i, value] of got.entries()) expect(value).toBeCloseTo(state[i]!, 5);
  });

  it("equals the solver over λ for alpha = 1", async () => {
    const levels = paths["exploding"]!(20);
    const got = await run(samplers["dpmpp-2m-sigma"], levels);
    expect(got.data).toEqual((await run(samplers["dpmpp-2m"], levels)).data);
  });
});

/**
 * Computes the distribution of samples for Gaussian data. Every sampler is then linear in its start and in the noise of each
 * step, so one image for each of these, and one for none, give the mean and the variance of its images exactly.
 */
async function imagesOf(
  sampler: Sampler,
  data: Component,
  levels: readonly NoiseLevel[],
): Promise<{ mean: number; variance: number }> {
  const steps = levels.length - 1;
  const [first] = levels as [NoiseLevel];
  const impulse = (at: number) => Array.from({ length: steps + 2 }, (_, i) => (i === at ? 1 : 0));
  const noise: NoiseSource = (step, shape) => ndarray("float64", shape, impulse(Number(step)));
  const begin = impulse(steps).map((value) => {
    const deviation = Math.hypot(first.alpha * data.std, first.sigma);
    return first.alpha * data.mean + deviation * value;
  });
  const x = ndarray("float64", [steps + 2, 1], begin);
  const got = toNumbers(await finalImages(sampler(mixtureDenoiser([data]), x, levels, { noise })));
  const base = got[steps + 1]!;
  return { mean: base, variance: got.reduce((sum, value) => sum + (value - base) ** 2, 0) };
}

describe("stochastic samplers of a Gaussian", () => {
  const data: Component = { weight: 1, mean: 0.7, std: 0.4 };
  const large: Sampler = (denoise, x, levels, options) =>
    ddpm(denoise, x, levels, { ...options, variance: "large" });
  const half: Sampler = (denoise, x, levels, options) =>
    ddim(denoise, x, levels, { ...options, eta: 0.5 });

  describe.each(Object.entries(paths))("on %s levels", (_, levels) => {
    it.each<[string, Sampler, number]>([
      ["ddpm", samplers.ddpm, 1],
      ["ddpm of large variance", large, 1],
      ["ddim of eta 0.5", half, 1],
      ["euler-ancestral", samplers["euler-ancestral"], 1],
      ["dpmpp-2m-sde", samplers["dpmpp-2m-sde"], 2],
    ])("%s reaches the distribution at its order", async (_name, sampler, order) => {
      const counts = [60, 120, 240];
      const errors = await Promise.all(
        counts.map(async (count) => {
          const run = levels(count);
          const end = run.at(-1)!;
          const { mean, variance } = await imagesOf(sampler, data, run);
          const exact = (end.alpha * data.std) ** 2 + end.sigma ** 2;
          return Math.max(Math.abs(mean - end.alpha * data.mean), Math.abs(variance - exact));
        }),
      );
      expect(orderOf(errors, counts)).toBeGreaterThan(order - 0.2);
      expect(orderOf(errors, counts)).toBeLessThan(order + 0.35);
      expect(errors.at(-1)).toBeLessThan(order === 1 ? 0.02 : 1e-3);
    });
  });

  it("ddpm with the correct learned variance is exact for any number of steps", async () => {
    const sampler: Sampler = (denoise, x, levels, options) => {
      const known: Denoiser = async (state, from) => {
        const to = levels[levels.indexOf(from) + 1]!;
        const estimate = await denoise(state, from);
        return { ...estimate, variance: mapElements(() => place(from, to), state) };
      };
      return ddpm(known, x, levels, options);
    };
    // Of Gaussian data the step is Gaussian: β̃ plus what the uncertainty of x0 adds.
    const place = (from: NoiseLevel, to: NoiseLevel) => {
      const kept = from.alpha / to.alpha;
      const beta = from.sigma ** 2 - (kept * to.sigma) ** 2;
      const smallest = (beta * to.sigma ** 2) / from.sigma ** 2;
      const ofX0 = (to.alpha * beta) / from.sigma ** 2;
      const spread =
        (data.std * from.sigma) ** 2 / ((from.alpha * data.std) ** 2 + from.sigma ** 2);
      const right = smallest + ofX0 ** 2 * spread;
      return (2 * Math.log(right / smallest)) / Math.log(beta / smallest) - 1;
    };
    const levels = paths["variance-preserving"]!(6);
    const end = levels.at(-1)!;
    const { mean, variance } = await imagesOf(sampler, data, levels);
    expect(mean).toBeCloseTo(end.alpha * data.mean, 12);
    expect(variance).toBeCloseTo((end.alpha * data.std) ** 2 + end.sigma ** 2, 12);
  });
});

/** Four images of 3 channels; the data is one image, which every estimate is. */
const shape = [4, 3, 2, 2];
const picture = normal(randomKey(3), shape);
const known: Denoiser = async () => ({ x0: picture });
const keys = [11, 12, 13, 14].map((seed) => randomKey(seed));
const alphaBars = alphaBarsOf(betasOf({ kind: "scaled-linear" }, 1000));
const zeroSNR = alphaBarsOf(zeroTerminalSNR(betasOf({ kind: "scaled-linear" }, 1000)));

const schedules: Record<string, readonly NoiseLevel[]> = {
  "trailing times": levelsAt(alphaBars, spacedTimesteps("trailing", 9, { trainSteps: 1000 })),
  "zero terminal signal": levelsAt(zeroSNR, spacedTimesteps("trailing", 9, { trainSteps: 1000 })),
  "rectified flow": flowLevels(9, { shift: 3 }),
  EDM: karrasLevels(9),
};

describe.each(everySampler)("%s", (_, sampler) => {
  it.each(Object.entries(schedules))("leaves no noise at the end: %s", async (_name, levels) => {
    const x = combine([levels[0]!.sigma, normal(randomKey(8), shape)]);
    const end = await finalImages(sampler(known, x, levels, { noise: keyedNoise(keys) }));
    expect(end.shape).toEqual(shape);
    for (const [i, value] of end.data.entries()) {
      expect(Math.abs((value as number) - picture.data[i]!)).toBeLessThan(1e-6);
    }
  });

  it("draws the same image for a seed in any batch", async () => {
    const mixture = mixtureDenoiser([
      { weight: 0.5, mean: -1, std: 0.2 },
      { weight: 0.5, mean: 1, std: 0.4 },
    ]);
    const levels = schedules["rectified flow"]!;
    const run = async (seeds: readonly number[]) => {
      const noise = keyedNoise(seeds.map((seed) => randomKey(seed)));
      const x = noise("start", [seeds.length, 3, 2, 2]);
      return finalImages(sampler(mixture, x, levels, { noise }));
    };
    const together = await run([5, 6, 7, 8, 9]);
    const apart = await Promise.all([5, 6, 7, 8, 9].map((seed) => run([seed])));
    const reversed = await run([9, 8, 7]);
    expect(together.data).toEqual(Float32Array.from(apart.flatMap((image) => toNumbers(image))));
    expect(reversed.data.slice(0, 12)).toEqual(apart[4]!.data);
    expect(apart[0]!.data).not.toEqual(apart[1]!.data);
  });

  it("reports each step with a preview", async () => {
    const levels = schedules["trailing times"]!;
    const noise = keyedNoise(keys);
    const seen = [];
    for await (const step of sampler(known, noise("start", shape), levels, { noise })) {
      seen.push(step);
    }
    expect(seen.map(({ step }) => step)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect(seen.every(({ steps }) => steps === 9)).toBe(true);
    expect(seen.map(({ level }) => level)).toEqual(levels.slice(1));
    expect(seen[3]!.x0).toBe(picture);
  });

  it("stops before the next run of the network when its signal aborts", async () => {
    const controller = new AbortController();
    const levels = schedules["trailing times"]!;
    let asked = 0;
    const denoise: Denoiser = async () => {
      asked++;
      if (asked === 4) controller.abort();
      return { x0: picture };
    };
    const noise = keyedNoise(keys);
    const steps = sampler(denoise, picture, levels, { noise, signal: controller.signal });
    await expect(finalImages(steps)).rejects.toMatchObject({ name: "AbortError" });
    expect(asked).toBe(4);
  });

  it("refuses fewer than two levels, and levels that rise", async () => {
    const run = (levels: readonly NoiseLevel[]) =>
      finalImages(sampler(known, picture, levels, { noise: keyedNoise(keys) }));
    await expect(run([])).rejects.toThrow(
      "needs at least two noise levels, the first to start from and the last to end at, got 0.",
    );
    await expect(run([clean])).rejects.toThrow(
      "needs at least two noise levels, the first to start from and the last to end at, got 1.",
    );
    const rising = [straight(500, 0.5), straight(600, 0.6), clean];
    await expect(run(rising)).rejects.toThrow(PatchwiseError);
    await expect(run(rising)).rejects.toThrow("Noise level 1 (alpha 0.4, sigma 0.6) is noisier");
  });

  it("does not move between equal levels", async () => {
    const level = straight(500, 0.5);
    const next = straight(200, 0.2);
    const mixture = mixtureDenoiser([{ weight: 1, mean: 0.3, std: 0.5 }]);
    const run = (levels: readonly NoiseLevel[]) =>
      finalImages(sampler(mixture, picture, levels, { noise: noNoise }));
    const still = await run([level, level, next]);
    const straightOn = await run([level, next]);
    for (const [i, value] of still.data.entries()) {
      expect(Math.abs((value as number) - Number(straightOn.data[i]))).toBeLessThan(1e-6);
    }
  });
});

describe("samplers that add noise", () => {
  const stochastic = ["ddpm", "euler-ancestral", "dpmpp-2m-sde"] as const;

  it.each(stochastic)("%s needs a source of noise", async (name) => {
    const run = samplers[name](known, picture, schedules["EDM"]!);
    await expect(finalImages(run)).rejects.toThrow(
      "adds noise at each step and needs a source of it",
    );
  });

  it.each(stochastic)("%s refuses noise of another shape", async (name) => {
    const noise = () => normal(randomKey(1), [4, 3, 2]);
    const run = samplers[name](known, picture, schedules["EDM"]!, { noise });
    await expect(finalImages(run)).rejects.toThrow(ShapeError);
  });

  it.each(everySampler.filter(([name]) => !(stochastic as readonly string[]).includes(name)))(
    "%s is none of them",
    async (_, sampler) => {
      const end = await finalImages(sampler(known, picture, schedules["EDM"]!));
      expect(end.shape).toEqual(shape);
    },
  );

  it("ddpm needs a learned variance if it is asked to use it", async () => {
    const run = ddpm(known, picture, schedules["EDM"]!, {
      variance: "learned",
      noise: keyedNoise(keys),
    });
    await expect(finalImages(run)).rejects.toThrow("has no learned variance");
  });
});

describe("sources of noise", () => {
  it("is standard normal, and different for each step", () => {
    const source = keyedNoise([randomKey(1)]);
    const draws = ["start", 0, 1, 2].map((step) => source(step as number | "start", [1, 5000]));
    for (const { data } of draws) {
      const values = [...(data as Float32Array)];
      const mean = values.reduce((sum, x) => sum + x) / values.length;
      const variance = values.reduce((sum, x) => sum + (x - mean) ** 2, 0) / values.length;
      expect(Math.abs(mean)).toBeLessThan(0.05);
      expect(Math.abs(variance - 1)).toBeLessThan(0.1);
    }
    expect(new Set(draws.map(({ data }) => data[0])).size).toBe(4);
  });

  it("equals PyTorch's for PyTorch's generators", () => {
    const source = torchNoise([torchGenerator(3), torchGenerator(4)]);
    const [first, second] = [torchGenerator(3), torchGenerator(4)];
    for (const step of ["start", 0, 1] as const) {
      const want = [first, second].flatMap((each) => toNumbers(randn(each, [1, 4, 4])));
      expect(toNumbers(source(step, [2, 4, 4]))).toEqual(want);
    }
  });

  it("refuses a batch with another number of images than generators", () => {
    expect(() => keyedNoise([randomKey(1)])(0, [2, 3])).toThrow("generators for 1 images");
  });
});

describe("samplerNamed", () => {
  it("finds every sampler", () => {
    for (const [name, sampler] of everySampler) expect(samplerNamed(name)).toBe(sampler);
  });

  it.each([
    ["dppm", "did you mean ddpm?"],
    ["Eulr", "did you mean euler?"],
    ["dpmpp2m", "did you mean dpmpp-2m"],
    ["__proto__", "give one of ddpm, ddim, euler"],
  ])("names the nearest to %s", (name, message) => {
    expect(() => samplerNamed(name)).toThrow(UsageError);
    expect(() => samplerNamed(name)).toThrow(message);
  });

  it.each([
    [dpmSolver, { order: 4 }, "must be a whole number from 1 to 3, got 4."],
    [dpmSolver, { order: 3, stochastic: true }, "from 1 to 2 for the stochastic equation"],
    [dpmSolver, { order: 3, clock: "sigma" }, "from 1 to 2 over sigma"],
    [dpmSolver, { integration: "heun", clock: "sigma" }, 'by "midpoint" alone'],
    [dpmSolver, { stochastic: true, clock: "sigma" }, "the deterministic equation"],
    [unipc, { order: 0 }, "The order of UniPC must be a whole number of at least 1, got 0."],
    [unipc, { order: 1.5 }, "The order of UniPC must be a whole number of at least 1, got 1.5."],
  ])("checks orders", async (sampler, options, message) => {
    const run = (sampler as typeof unipc)(known, picture, schedules["EDM"]!, options as object);
    await expect(finalImages(run)).rejects.toThrow(message);
  });

  it("does not divide by an alpha of 0", async () => {
    const run = exploding(heun)(known, picture, schedules["rectified flow"]!);
    await expect(finalImages(run)).rejects.toThrow("alpha, which is 0 at the first noise level");
  });

  it("combines only arrays of one shape", () => {
    const [x, y] = [2, 3].map((size) => normal(randomKey(size), [size])) as [NdArray, NdArray];
    expect(combine([1, x], [2, x]).shape).toEqual([2]);
    expect(() => combine([1, x], [1, y])).toThrow(ShapeError);
  });
});
