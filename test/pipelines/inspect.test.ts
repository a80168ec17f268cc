import { describe, expect, it } from "vitest";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import type { GenerateStep, StepInspection } from "../../src/pipelines/index.ts";
import { createPipeline } from "../../src/pipelines/index.ts";
import { openPipeline } from "../../src/pipelines/index-node.ts";
import { randomWeights, tinyCard } from "../support/tiny-model.ts";

const attention = "blocks.*.attn.probabilities";

/** Draws, and inspects every step after the end. */
async function inspected(
  generation: AsyncGenerator<GenerateStep>,
  taps: readonly string[],
): Promise<StepInspection[]> {
  const steps: GenerateStep[] = [];
  for await (const step of generation) steps.push(step);
  const looks: StepInspection[] = [];
  for (const step of steps) looks.push(await step.inspect({ taps }));
  return looks;
}

const card = tinyCard();
const tiny = () =>
  createPipeline({ backend: nodeBackend("cpu"), card, weights: randomWeights(card.network) });

describe("inspecting a step", () => {
  it("returns attention whose rows sum to 1, for each picture, with and without the condition", async () => {
    await using pipeline = tiny();
    const [look] = await inspected(pipeline.generate({ class: "cat", count: 2, steps: 2 }), [
      attention,
    ]);
    for (const { taps } of [look!.conditional, look!.unconditional!]) {
      expect(Object.keys(taps)).toEqual([0, 1].map((i) => `blocks.${i}.attn.probabilities`));
      for (const { shape, data } of Object.values(taps)) {
        expect(shape).toEqual([2, 2, 4, 4]);
        for (let row = 0; row < data.length; row += 4) {
          const sum = (data as Float32Array).slice(row, row + 4).reduce((a, b) => a + b, 0);
          expect(sum).toBeCloseTo(1, 5);
        }
      }
    }
  });

  it("recovers what guidance combined, and the path that Euler's steps took", async () => {
    await using pipeline = tiny();
    const guidance = 3;
    const looks = await inspected(pipeline.generate({ class: "dog", steps: 3, guidance }), []);
    for (const [i, look] of looks.entries()) {
      const { conditional, unconditional, x0, x, velocity, level } = look;
      const next = looks[i + 1];
      for (let j = 0; j < x0.data.length; j++) {
        const [with_, without] = [conditional, unconditional!].map((each) =>
          Number(each.x0.data[j]),
        );
        const combined = without! + guidance * (with_! - without!);
        expect(Number(x0.data[j])).toBeCloseTo(combined, 4);
        if (!next) continue;
        const moved = Number(velocity.data[j]) * (next.level.sigma - level.sigma);
        expect(Number(next.x.data[j])).toBeCloseTo(Number(x.data[j]) + moved, 4);
      }
    }
  });

  it("shows what the prior of the bundled model decides on", async () => {
    await using pipeline = await openPipeline("emoji");
    const shares = "prompt_encoder.prior.*.shares";
    const looks = await inspected(pipeline.generate({ prompt: "red apple", steps: 1 }), [shares]);
    const chosen = (what: string) => {
      const { data } = looks[0]!.conditional.taps[`prompt_encoder.prior.${what}.shares`]!;
      const values = [...(data as Float32Array)];
      expect(values.reduce((a, b) => a + b, 0)).toBeCloseTo(1, 4);
      return values.indexOf(Math.max(...values));
    };
    // Styles begin with noto's; companions with none.
    expect([chosen("style"), chosen("companion")]).toEqual([0, 0]);
  });

  it("names the nearest tap for one that does not exist", async () => {
    await using pipeline = tiny();
    const looking = inspected(pipeline.generate({ class: "cat", steps: 1 }), ["blocks.0.atn"]);
    await expect(looking).rejects.toThrow('The tap "blocks.0.atn" matches no intermediate tensor');
  });
});
