import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  clean,
  exponentialRatios,
  flowLevels,
  isWithin,
  karrasLevels,
  karrasRatios,
  logRatio,
  type NoiseLevel,
  levelsOfStrength,
  noiseOfSteps,
  noiseRatio,
  sd3Levels,
  shiftAt,
  shiftTime,
  timesInside,
} from "../../src/diffusion/levels.ts";
import { diffusionProcess, levelsOf, respaced } from "../../src/diffusion/process.ts";
import { drawExamples, recipeLevels, recipeSchema } from "../../src/diffusion/recipe.ts";
import {
  alphaBarsOf,
  type BetaSchedule,
  betasOf,
  interpolate,
  levelsAt,
  noiseRatios,
  timeOfRatio,
  zeroTerminalSNR,
} from "../../src/diffusion/schedule.ts";
import {
  respacedTimesteps,
  spacedTimesteps,
  timestepSpacings,
} from "../../src/diffusion/timesteps.ts";
import { UsageError } from "../../src/engine/errors.ts";
import { toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { randomKey } from "../../src/engine/random/random.ts";

// The same cases each time.
fc.configureGlobal({ seed: 7 });

const betaSchedule = fc.constantFrom<BetaSchedule>(
  { kind: "linear" },
  { kind: "scaled-linear" },
  { kind: "cosine" },
  { kind: "linear", start: 1e-4, end: 0.01 },
);

/** Falling noise, and the clean image in the end. */
function expectFalling(levels: readonly NoiseLevel[]): void {
  for (const [i, level] of levels.slice(1).entries()) {
    expect(noiseRatio(level)).toBeLessThan(noiseRatio(levels[i]!));
  }
  expect(levels.at(-1)).toEqual({ ...clean, time: levels.at(-1)!.time });
}

describe("variance-preserving levels", () => {
  it("have alpha² + sigma² = 1 and end without noise", () => {
    fc.assert(
      fc.property(
        betaSchedule,
        fc.integer({ min: 50, max: 1200 }),
        fc.constantFrom(...timestepSpacings),
        fc.integer({ min: 1, max: 50 }),
        fc.boolean(),
        (schedule, trainSteps, spacing, steps, fractional) => {
          const alphaBars = alphaBarsOf(betasOf(schedule, trainSteps));
          const times = spacedTimesteps(spacing, steps, { trainSteps, fractional });
          expect(times).toHaveLength(steps);
          const levels = levelsAt(alphaBars, times);
          for (const { alpha, sigma } of levels) expect(alpha ** 2 + sigma ** 2).toBeCloseTo(1, 12);
          expectFalling(levels);
        },
      ),
      { numRuns: 60 },
    );
  });

  it("begin with pure noise after rescaling, and keep their least noise", () => {
    fc.assert(
      fc.property(betaSchedule, fc.integer({ min: 30, max: 1000 }), (schedule, steps) => {
        const betas = betasOf(schedule, steps);
        const [before, after] = [alphaBarsOf(betas), alphaBarsOf(zeroTerminalSNR(betas))];
        expect(after.at(-1)).toBe(0);
        expect(after[0]! / before[0]!).toBeCloseTo(1, 12);
        const [first] = levelsAt(after, [steps - 1]);
        expect(first).toEqual({ time: steps - 1, alpha: 0, sigma: 1 });
      }),
      { numRuns: 40 },
    );
  });

  it("follow the formulas of their papers", () => {
    const cosine = alphaBarsOf(betasOf({ kind: "cosine" }, 1000));
    const alphaBar = (t: number) =>
      Math.cos((((t + 1) / 1000 + 0.008) / 1.008) * (Math.PI / 2)) ** 2;
    const start = Math.cos((0.008 / 1.008) * (Math.PI / 2)) ** 2;
    for (const t of [0, 10, 500, 900]) expect(cosine[t]).toBeCloseTo(alphaBar(t) / start, 12);
    const linear = betasOf({ kind: "linear" }, 1000);
    expect([linear[0], linear[999]]).toEqual([1e-4, 0.02]);
    // As much noise in all over fewer, larger steps.
    const [many, few] = [1000, 250].map((steps) => alphaBarsOf(betasOf({ kind: "linear" }, steps)));
    expect(Math.log(few!.at(-1)!) / Math.log(many!.at(-1)!)).toBeCloseTo(1, 1);
    const scaled = betasOf({ kind: "scaled-linear" }, 3);
    expect(Math.sqrt(scaled[1]!)).toBeCloseTo((Math.sqrt(0.00085) + Math.sqrt(0.012)) / 2, 12);
  });

  it("between two steps can be found by their noise", () => {
    const ratios = noiseRatios(alphaBarsOf(betasOf({ kind: "linear" }, 1000)));
    const logs = ratios.map(Math.log);
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 999 }), (t) => {
        expect(timeOfRatio(logs, ratios[t]!)).toBeCloseTo(t, 9);
      }),
    );
    expect(timeOfRatio(logs, 1e9)).toBe(999);
    expect(timeOfRatio(logs, 0)).toBe(0);
    expect(interpolate(ratios, 10.5)).toBeCloseTo((ratios[10]! + ratios[11]!) / 2, 12);
    expect([interpolate(ratios, -3), interpolate(ratios, 1e4)]).toEqual([ratios[0], ratios[999]]);
  });
});

it("refuses betas beyond 1", () => {
  const call = () => betasOf({ kind: "linear" }, 10);
  expect(call).toThrow(UsageError);
  expect(call).toThrow("The linear schedule of 10 steps has a beta of 1.11");
});

describe("levels of rectified flow", () => {
  it("sum to 1, begin with pure noise and end without noise", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 60 }),
        fc.double({ min: 0.1, max: 12, noNaN: true }),
        (steps, shift) => {
          const levels = flowLevels(steps, { shift });
          expect(levels).toHaveLength(steps + 1);
          for (const { alpha, sigma } of levels) expect(alpha + sigma).toBeCloseTo(1, 12);
          expect(levels[0]).toEqual({ time: 1000, alpha: 0, sigma: 1 });
          expectFalling(levels);
        },
      ),
    );
  });

  it("are evenly spaced without a shift, and a reciprocal shift undoes a shift", () => {
    expect(flowLevels(4, { timeScale: 1 }).map(({ time }) => time)).toEqual([
      1, 0.75, 0.5, 0.25, 0,
    ]);
    expect(shiftTime(shiftTime(0.3, 3), 1 / 3)).toBeCloseTo(0.3, 12);
    expect(flowLevels(2, { shift: 3 })[1]!.sigma).toBeCloseTo(0.75, 12);
  });

  it("stretch to a terminal time", () => {
    const levels = flowLevels(5, { shift: 2, terminal: 0.1 });
    expect(levels[0]!.sigma).toBe(1);
    expect(levels[4]!.sigma).toBeCloseTo(0.1, 12);
  });

  it("are shifted for larger images by eq. 23, whichever size the shift is given for", () => {
    const side = fc.integer({ min: 1, max: 500 });
    fc.assert(
      fc.property(
        side,
        side,
        side,
        fc.double({ min: 0.1, max: 9, noNaN: true }),
        (h, w, n, value) => {
          const shift = shiftAt({ value, area: n * n }, [h, w]);
          expect(shift).toBeCloseTo((value * Math.sqrt(h * w)) / n, 9);
          expect(shiftAt(value, [h, w])).toBe(value);
          // From a size by way of another is from the one to the other.
          expect(shiftAt({ value: shift, area: h * w }, [n, n])).toBeCloseTo(value, 9);
        },
      ),
    );
    // The spread of what n places say of their mean at noise t / (1 − t) is that of m places at the shifted time.
    const [n, m, t] = [64, 256, 0.4];
    const shifted = shiftTime(t, shiftAt({ value: 1, area: n }, [16, 16]));
    expect(shifted / (1 - shifted) / Math.sqrt(m)).toBeCloseTo(t / (1 - t) / Math.sqrt(n), 12);
  });

  it("follow a recipe's shift for the drawn size, or the requested shift", () => {
    const recipe = recipeSchema.parse({ process: "flow", shift: { area: 64 } });
    const levels = (side: number, shift?: number) =>
      recipeLevels(recipe, 6, { size: [side, side], shift });
    expect(levels(8)).toEqual(flowLevels(6));
    expect(levels(24)).toEqual(flowLevels(6, { shift: 3 }));
    expect(levels(24, 1.5)).toEqual(flowLevels(6, { shift: 1.5 }));
    const times = (side: number) =>
      toNumbers(drawExamples(recipe, randomKey(1), [50, 3, side, side]).time);
    for (const [i, time] of times(24).entries()) {
      expect(time).toBeCloseTo(shiftTime(times(8)[i]!, 3), 5);
    }
    const discrete = recipeSchema.parse({ process: "discrete" });
    expect(() => recipeLevels(discrete, 6, { size: [8, 8], shift: 2 })).toThrow(
      "only the times of a rectified flow can be shifted",
    );
  });

  it("of Stable Diffusion 3 are shifted twice at their lower end", () => {
    for (const shift of [1, 3, 5.5]) {
      const levels = sd3Levels(10, shift);
      expect(levels[0]!.sigma).toBe(1);
      expect(levels[9]!.sigma).toBeCloseTo(shiftTime(shiftTime(0.001, shift), shift), 12);
      expectFalling(levels);
    }
    expect(sd3Levels(1, 3).map(({ sigma }) => sigma)).toEqual([1, 0]);
  });

  it.each([0, -1, NaN])("refuse a shift of %s", (shift) => {
    expect(() => flowLevels(4, { shift })).toThrow("give a positive number");
  });
});

describe("the levels of image-to-image", () => {
  it("are exactly a share of the steps, rounded up, but at least one", () => {
    for (let steps = 1; steps <= 100; steps++) {
      const schedule = flowLevels(steps);
      for (let percent = 1; percent <= 100; percent++) {
        const left = levelsOfStrength(schedule, steps, percent / 100).length - 1;
        // Whole numbers, so that nothing is rounded.
        expect(left).toBe(Math.floor((steps * percent + 99) / 100));
      }
    }
  });
});

describe("the noise interval of some steps", () => {
  it("counts shares without the rounding of binary numbers", () => {
    const levels = flowLevels(100);
    for (let percent = 0; percent < 100; percent++) {
      const interval = noiseOfSteps(levels, 100, { from: percent / 100, to: 1 });
      const active = levels.slice(0, -1).map((level) => isWithin(interval, level));
      expect(active.indexOf(true)).toBe(percent === 99 ? -1 : percent + 1);
    }
  });

  it("spans the levels between two shares of the steps", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 40 }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        fc.nat(39),
        (steps, from, to, begun) => {
          const levels = flowLevels(steps, { shift: 3 }).slice(begun % steps);
          const interval = noiseOfSteps(levels, steps, { from, to });
          const active = levels.slice(0, -1).map((level) => isWithin(interval, level));
          expect(active).toEqual(active.map((_, i) => i > from * steps && i < to * steps));
        },
      ),
    );
  });
});

describe("an interval of noise", () => {
  it("holds pure noise up to 1e9, so that JSON can say everywhere", () => {
    const levels = flowLevels(5).slice(0, -1);
    const within = (above: number, upTo: number) =>
      levels.map((level) => isWithin({ above, upTo }, level));
    expect(within(0, 1e9)).toEqual([true, true, true, true, true]);
    expect(within(0, 1e8)).toEqual([false, true, true, true, true]);
    expect(within(1e8, 1e9)).toEqual([true, false, false, false, false]);
    const whole = timesInside(0, 1);
    expect(JSON.parse(JSON.stringify(whole))).toEqual(whole);
    expect(levels.every((level) => isWithin(whole, level))).toBe(true);
  });
});

describe("levels of EDM", () => {
  it("go from 80 to 0.002 with alpha 1, evenly spaced in the seventh root", () => {
    const levels = karrasLevels(18);
    expect(levels).toHaveLength(19);
    expectFalling(levels);
    expect(levels.every(({ alpha }) => alpha === 1)).toBe(true);
    expect(levels[0]!.sigma).toBeCloseTo(80, 10);
    expect(levels[17]!.sigma).toBeCloseTo(0.002, 12);
    expect(levels[0]!.time).toBeCloseTo(Math.log(80) / 4, 12);
    const roots = karrasRatios(5, 10, 0.1).map((ratio) => ratio ** (1 / 7));
    expect(roots[1]! - roots[2]!).toBeCloseTo(roots[3]! - roots[4]!, 12);
  });

  it("can be evenly spaced in λ", () => {
    const lambdas = exponentialRatios(4, 10, 0.1).map((sigma) =>
      logRatio({ time: 0, alpha: 1, sigma }),
    );
    expect(lambdas[1]! - lambdas[0]!).toBeCloseTo(lambdas[3]! - lambdas[2]!, 12);
  });
});

describe("times of fewer steps", () => {
  it.each([
    ["leading", {}, [800, 600, 400, 200, 0]],
    ["leading", { offset: 1 }, [801, 601, 401, 201, 1]],
    ["leading", { skipZero: true }, [830, 664, 498, 332, 166]],
    ["trailing", {}, [999, 799, 599, 399, 199]],
    ["linspace", {}, [999, 749, 500, 250, 0]],
    ["linspace", { fractional: true }, [999, 749.25, 499.5, 249.75, 0]],
    ["linspace", { skipZero: true }, [999, 799, 599, 400, 200]],
  ] as const)("%s with %j", (spacing, options, times) => {
    expect(spacedTimesteps(spacing, 5, { trainSteps: 1000, ...options })).toEqual(times);
  });

  it.each([0, -3, 2.5, NaN, 1001])("refuses %s of 1000 steps", (steps) => {
    for (const spacing of timestepSpacings) {
      const call = () => spacedTimesteps(spacing, steps, { trainSteps: 1000 });
      expect(call).toThrow(UsageError);
      expect(call).toThrow(`${steps} sampling steps were asked for; give a whole number from 1 to`);
    }
  });

  it.each([0, -3, 2.5, Infinity])("refuses %s steps of flow and EDM", (steps) => {
    for (const levels of [flowLevels, karrasLevels]) {
      expect(() => levels(steps)).toThrow(`${steps} sampling steps were asked for; give a whole`);
    }
  });

  it("refuses an offset beyond the end", () => {
    const call = () => spacedTimesteps("leading", 1000, { trainSteps: 1000, offset: 1 });
    expect(call).toThrow('1000 steps of "leading" spacing with the offset 1 begin at 1000');
  });
});

describe("respacing", () => {
  it("keeps the requested number of steps of each section, ascending", () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 5 }),
        fc.integer({ min: 200, max: 1000 }),
        (counts, trainSteps) => {
          const kept = respacedTimesteps(trainSteps, counts);
          expect(kept).toHaveLength(counts.reduce((sum, count) => sum + count));
          expect(kept).toEqual([...new Set(kept)].sort((a, b) => a - b));
          expect(kept[0]).toBe(0);
          expect(kept.at(-1)).toBeLessThan(trainSteps);
          expect(respacedTimesteps(trainSteps, counts.join(","))).toEqual(kept);
        },
      ),
    );
  });

  it("spans all steps, or has a whole stride", () => {
    expect(respacedTimesteps(1000, "5")).toEqual([0, 250, 500, 749, 999]);
    expect(respacedTimesteps(1000, "ddim5")).toEqual([0, 200, 400, 600, 800]);
    expect(respacedTimesteps(10, "10")).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  });

  it.each([
    ["ddim7x", "has no whole stride through 1000 steps"],
    ["ddim0", "has no whole stride"],
    ["ddim999", "has no whole stride"],
    ["2000", "asks for 2000 of the 1000 steps of a section"],
    ["600,10", "asks for 600 of the 500 steps"],
    ["fast", 'is not known; give "250", "ddim50"'],
    ["-5", "is not known"],
    ["0", "is not known"],
    ["", "is not known"],
  ])("refuses %s", (respacing, message) => {
    expect(() => respacedTimesteps(1000, respacing)).toThrow(UsageError);
    expect(() => respacedTimesteps(1000, respacing)).toThrow(message);
  });

  it("does not change the levels that it keeps", () => {
    const whole = diffusionProcess(betasOf({ kind: "cosine" }, 1000));
    const few = respaced(whole, respacedTimesteps(1000, "20"));
    const all = levelsOf(whole);
    for (const level of levelsOf(few).slice(0, -1)) {
      const same = all.find(({ time }) => time === level.time)!;
      expect(level.alpha).toBeCloseTo(same.alpha, 12);
      expect(level.sigma).toBeCloseTo(same.sigma, 12);
    }
    expect(levelsOf(few)).toHaveLength(21);
  });

  it("to a single step adds no noise", () => {
    const { posterior } = respaced(diffusionProcess(betasOf({ kind: "linear" }, 1000)), [0]);
    expect([...posterior.variance]).toEqual([0]);
    expect(posterior.ofX0[0]).toBeCloseTo(1, 12);
    expect(posterior.ofX[0]).toBe(0);
  });
});

it("levels of a strength are its exact share of every number of steps, and at least one", () => {
  for (let steps = 1; steps <= 100; steps++) {
    const schedule = Array.from({ length: steps + 1 }, (_, i) => ({
      time: steps - i,
      alpha: i,
      sigma: steps - i,
    }));
    for (let percent = 1; percent <= 100; percent++) {
      const left = levelsOfStrength(schedule, steps, percent / 100).length - 1;
      expect(left).toBe(Math.ceil((steps * percent) / 100));
    }
  }
});
