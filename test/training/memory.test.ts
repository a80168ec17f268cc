/** What is refused before a training step is traced. */
import { describe, expect, it } from "vitest";
import { countElements, estimateMemory } from "../../src/engine/passes/cost.ts";
import { recordOf } from "../../src/engine/records.ts";
import { trainingConfigSchema } from "../../src/training/config/config.ts";
import { networkOf } from "../../src/training/config/network.ts";
import { leastMemory, rankMemory, requireMemory } from "../../src/training/memory.ts";
import { configuredOptimizer } from "../../src/training/optimizers.ts";
import { trainingStep } from "../../src/training/step.ts";
import { objective } from "../../src/training/tasks/denoiser.ts";

function traced(model: object, recompute = false) {
  const config = trainingConfigSchema().parse({
    data: { kind: "images", path: "photos" },
    picture: { size: 32 },
    model,
    training: { steps: 1, recompute },
  });
  const image = { height: 32, width: 32, channels: 3 };
  const data = { name: "photos", classes: ["a", "b"], captioned: false };
  const network = networkOf(config.model, image, data, undefined);
  const { loss, params } = objective(network, config.diffusion, { recompute });
  const trained = recordOf(params.declared.keys(), (name) => params.declared.get(name)!.tensor);
  return { config, loss, trained };
}

describe("the memory of a rank", () => {
  const { config, loss, trained } = traced({ patch: 4, hidden: 64, depth: 3 });
  const step = trainingStep({
    loss,
    params: trained,
    optimizer: configuredOptimizer(config.training.optimizer),
    emaDecay: 0.9,
  });
  const bytes = 4 * countElements(Object.values(trained));
  const memory = (ranks: number, fields: object = {}) =>
    rankMemory(step, bytes / 4, { ...config.training, ...fields })(4, ranks);
  const localSteps = { steps: 5, rate: 0.7, momentum: 0.9 };

  it("has two more copies of the weights where ranks meet rarely", () => {
    expect(memory(1, { localSteps }) - memory(1)).toBe(2 * bytes);
    expect(memory(8, { localSteps })).toBe(memory(1, { localSteps }));
  });

  it("has a share of two moments and averages, and of their new values, where the optimizer is divided", () => {
    for (const ranks of [2, 8]) {
      const spared = memory(ranks) - memory(ranks, { shardOptimizer: true });
      expect(spared).toBeGreaterThan(6 * bytes * (1 - 1 / ranks));
    }
  });
});

describe("the least memory of a training", () => {
  it.each([
    [{ patch: 4, hidden: 64, depth: 3 }, false],
    [{ patch: 4, hidden: 64, depth: 3 }, true],
    [{ kind: "u-vit", patch: 4, hidden: 32, depth: 4 }, false],
  ])("of %j, with recomputed blocks: %s, is below what it takes", (model, recompute) => {
    const { config, loss, trained } = traced(model, recompute);
    const { graph, state } = trainingStep({
      loss,
      params: trained,
      optimizer: configuredOptimizer(config.training.optimizer),
      emaDecay: (count) => count.minimum(0.9),
    });
    for (const batch of [1, 64, 1024]) {
      const least = leastMemory(loss, trained, batch);
      const { total } = estimateMemory(graph, batch, state);
      expect(least).toBeLessThan(total);
      // Otherwise it would refuse nothing.
      expect(least).toBeGreaterThan(batch === 1024 && !recompute ? total / 20 : 0);
    }
  });

  it("refuses DiT-XL/2 at a batch of 256 at once, with a batch that may fit", () => {
    const { loss, trained } = traced({ preset: "DiT-XL/2" });
    const least = leastMemory(loss, trained, 256);
    expect(() => requireMemory(least, 12 * 2 ** 30, trained, 256, "at least")).toThrow(
      /^The training needs at least \d\d\.\d GiB of memory, but 12\.0 GiB are available; lower training\.batch to less than \d+ /,
    );
    expect(() => requireMemory(least, 4 * 2 ** 30, trained, 256, "at least")).toThrow(
      "available; lower picture.size or the size of the model, or raise model.patch.",
    );
    expect(() => requireMemory(least, 2 * least, trained, 256)).not.toThrow();
  });
});
