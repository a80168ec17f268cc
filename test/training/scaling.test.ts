import { describe, expect, it } from "vitest";
import { linesThrough } from "../../src/training/scaling/measure-node.ts";
import {
  countedCosts,
  planRanks,
  rankCounts,
  reduceSeconds,
} from "../../src/training/scaling/plan.ts";

const link = { gigabits: 10, latency: 1e-5 };
const costs = {
  parameters: 2 ** 22,
  copyRate: 1e10,
  alone: { fixed: 0.1, perRow: 0.5 },
  together: { fixed: 0.2, perRow: 0.5 },
  shards: false,
  localSteps: undefined,
  memory: (rows: number, ranks: number) => rows + 1000 * ranks,
};

describe("the plan of a training on several ranks", () => {
  it("sums gradients by halving and doubling", () => {
    expect(reduceSeconds(costs, 1, link)).toBe(0);
    const bytes = 4 * 2 ** 22;
    const rate = (0.9 * 10e9) / 8;
    // One bucket; of N ranks each sends and receives (N − 1) / N of it twice.
    expect(reduceSeconds(costs, 2, link)).toBeCloseTo(
      2e-5 + bytes / rate + (0.75 * bytes) / 1e10,
      12,
    );
    expect(reduceSeconds(costs, 8, link)).toBeCloseTo(
      6e-5 + (1.75 * bytes) / rate + (1.5 * 0.875 * bytes) / 1e10,
      12,
    );
    const two = { ...costs, parameters: 2 ** 22 + 1 };
    expect(reduceSeconds(two, 2, link) - reduceSeconds(costs, 2, link)).toBeCloseTo(2e-5, 7);
  });

  it("adds gradient, all-reduce and update, and compares with processes that train alone", () => {
    const [one, four] = planRanks(costs, { batch: 32, accumulate: 2 }, [1, 4], link);
    expect(one).toMatchObject({ rows: 64, reduceSeconds: 0, efficiency: 1, memoryBytes: 1032 });
    expect(one!.stepSeconds).toBeCloseTo(0.1 + 0.5 * 64);
    const reduced = reduceSeconds(costs, 4, link);
    expect(four!.stepSeconds).toBeCloseTo(0.2 + 0.5 * 16 + reduced);
    expect(four).toMatchObject({ rows: 16, memoryBytes: 4008, reduceSeconds: reduced });
    expect(four!.imagesPerSecond).toBeCloseTo(64 / four!.stepSeconds);
    expect(four!.efficiency).toBeCloseTo(one!.stepSeconds / (4 * four!.stepSeconds));
    expect(() => planRanks(costs, { batch: 32, accumulate: 1 }, [3], link)).toThrow(
      "training.batch is 32, which 3 processes cannot share equally",
    );
  });

  it("lets ranks of one machine share the rate of its memory", () => {
    const shared = { copyRates: { 1: 1e10, 2: 5e9 } };
    const bytes = 4 * 2 ** 22;
    expect(reduceSeconds(costs, 2, shared)).toBeCloseTo((5.5 * 0.5 * bytes) / 5e9, 12);
    const [, two] = planRanks(costs, { batch: 32, accumulate: 1 }, [1, 2], shared);
    // Passes over the weights take twice as long, products do not.
    expect(two!.stepSeconds).toBeCloseTo(0.4 + 0.5 * 16 + two!.reduceSeconds);
  });

  it("takes what was measured while other ranks of the machine were busy", () => {
    const shared = { copyRates: { 1: 1e10, 2: 5e9, 4: 2e9 } };
    const measured = { ...costs, beside: { 2: { fixed: 0.3, perRow: 0.6 } } };
    const [two, four] = planRanks(measured, { batch: 32, accumulate: 1 }, [2, 4], shared);
    expect(two!.stepSeconds).toBeCloseTo(0.3 + 0.6 * 16 + two!.reduceSeconds);
    expect(four!.stepSeconds).toBeCloseTo(0.2 * 5 + 0.5 * 8 + four!.reduceSeconds);
    // Ranks with links of their own are on other machines.
    const [apart] = planRanks(measured, { batch: 32, accumulate: 1 }, [2], link);
    expect(apart!.stepSeconds).toBeCloseTo(0.2 + 0.5 * 16 + apart!.reduceSeconds);
  });

  it("divides the update among ranks, and the exchange among local steps", () => {
    const sharded = { ...costs, shards: true };
    const batch = { batch: 32, accumulate: 1 };
    const [two, eight] = planRanks(sharded, batch, [2, 8], link);
    expect(two!.stepSeconds - two!.reduceSeconds).toBeCloseTo(0.2 + 0.5 * 16);
    expect(eight!.stepSeconds - eight!.reduceSeconds).toBeCloseTo(0.2 - 0.1 * 0.375 + 0.5 * 4);
    const [rare] = planRanks({ ...costs, localSteps: 100 }, batch, [8], link);
    expect(rare!.reduceSeconds).toBeCloseTo(0.04 * reduceSeconds(costs, 8, link));
    expect(rare!.stepSeconds).toBeCloseTo(0.1 + 0.5 * 4 + rare!.reduceSeconds);
  });

  it("counts three forward passes of two operations each for a processor that is not here", () => {
    const counted = countedCosts(
      {
        parameters: 1e9,
        multiplyAdds: 1e11,
        memory: costs.memory,
        shards: false,
        localSteps: undefined,
      },
      6,
      1e11,
    );
    expect(counted.alone.perRow).toBeCloseTo(0.1);
    expect(counted.alone.fixed).toBeCloseTo(4.5 * 0.04);
    expect(counted.together.fixed).toBeGreaterThan(counted.alone.fixed);
  });

  it("draws lines of one slope through two sizes of a step", () => {
    const [a, b] = linesThrough(
      [4, 16],
      [
        [1.4, 2.6],
        [2.4, 3.6],
      ],
    );
    expect(a!.perRow).toBeCloseTo(0.1);
    expect([a!.fixed, b!.fixed].map((x) => x.toFixed(6))).toEqual(["1.000000", "2.000000"]);
    // A slower small step is noise, and no step has less than nothing beside its examples.
    expect(linesThrough([4, 16], [[3, 2]])[0]).toEqual({ fixed: 2, perRow: 0 });
    expect(linesThrough([4, 16], [[0.1, 16]])[0]!.fixed).toBe(0);
    expect(linesThrough([2, 2], [[1, 1]])[0]).toEqual({ fixed: 0, perRow: 0.5 });
  });

  it.each(["", "0", "1,x", "1,1", "2.5", "70000", "-2"])("refuses the ranks %j", (text) => {
    expect(() => rankCounts(text)).toThrow(/--ranks is .*; give different whole numbers/);
  });

  it("sorts the numbers of ranks", () => {
    expect(rankCounts("8,1, 2")).toEqual([1, 2, 8]);
  });
});
