import { expect, it } from "vitest";
import { estimateLine } from "../../src/cli/compare.ts";
import { estimateTime, type MeasuredContender } from "../../src/comparison/estimate.ts";
import { readTrainingConfig } from "../../src/training/config/config-file.ts";
import type { TrainingConfig } from "../../src/training/config/config.ts";

const config = (budget: string) =>
  readTrainingConfig(
    "x.yaml",
    `data: { kind: images, path: x }\npicture: { size: 32 }\ntraining: { ${budget} }\nsampling: { steps: 10 }\n`,
  ) as TrainingConfig;
const checked = { pictures: 6400, condition: "class", multiplyAdds: 2e9, seconds: 0.02 } as const;
const contender = (budget: string, more: Partial<MeasuredContender> = {}): MeasuredContender => ({
  name: "plain",
  config: config(budget),
  checked,
  trained: false,
  drawn: false,
  ...more,
});

it("takes the time of the budget, or of its multiply-adds at the measured speed", () => {
  const { extractor, models } = estimateTime(
    [contender("minutes: 10"), contender("compute: 120")],
    100,
    undefined,
  );
  expect(extractor).toBe(0);
  // 120e12 multiply-adds at 1e11 a second; 100 pictures of 10 steps with guidance.
  expect(models.map(({ training }) => training)).toEqual([600, 1200]);
  for (const { drawing } of models) expect(drawing).toBeCloseTo(100 * 10 * 2 * 0.02);
});

it("leaves out what is finished, and counts one pass a step without a condition", () => {
  const plain = { ...checked, condition: "none" } as const;
  const { models } = estimateTime(
    [
      contender("minutes: 10", { trained: true, checked: plain }),
      contender("minutes: 10", { trained: true, drawn: true }),
    ],
    100,
    undefined,
  );
  expect(models[0]!.training).toBe(0);
  expect(models[0]!.drawing).toBeCloseTo(20);
  expect(models[1]).toEqual({ name: "plain", training: 0, drawing: 0 });
});

it("counts the extractor by the speed of the fastest model", () => {
  const shape = { width: 32, height: 32, channels: 3 } as const;
  const extractor = { config: { shape, classes: 10 }, images: 1000 };
  const slow = estimateTime([contender("minutes: 1")], 1, extractor).extractor;
  const fast = { ...checked, seconds: 0.01 };
  const both = [contender("minutes: 1"), contender("minutes: 1", { checked: fast })];
  expect(estimateTime(both, 1, extractor).extractor).toBeCloseTo(slow / 2);
  expect(slow).toBeGreaterThan(0);
});

it("is told in one sentence", () => {
  const model = { name: "plain", training: 600, drawing: 60 };
  const done = { name: "wide", training: 0, drawing: 0 };
  expect(estimateLine({ extractor: 59.7, models: [model, done] })).toBe(
    "This takes about 12 min 0 s: 1 min 0 s for the extractor; 10 min 0 s to train plain, and 1 min 0 s to draw with it.",
  );
  expect(estimateLine({ extractor: 0, models: [{ ...model, training: 0, drawing: 0.2 }] })).toBe(
    "This takes about 1 s: 1 s to draw with plain.",
  );
  expect(estimateLine({ extractor: 0, models: [done] })).toBe(
    "All models are trained and measured already.",
  );
});
