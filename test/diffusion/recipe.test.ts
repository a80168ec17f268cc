import { describe, expect, it } from "vitest";
import { type Recipe, recipeLoss, recipeSchema } from "../../src/diffusion/recipe.ts";
import { evaluateFloat64 } from "../../src/engine/reference/evaluate.ts";
import { concat, input } from "../../src/engine/graph/functional.ts";
import { graphOf } from "../../src/engine/graph/graph.ts";
import { ndarray, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { normal, randomKey } from "../../src/engine/random/random.ts";
import { batch } from "../../src/engine/graph/shape.ts";

const zeroSNR = { process: "discrete", steps: 1000, zeroTerminalSNR: true };

/** The losses of a network that gives back what it sees, at the first and the last step. */
function lossesAtEnds(recipe: Recipe): number[] {
  const loss = recipeLoss(recipe, input("x0", [batch, 1, 2, 2]), (x) => x, false);
  const images = (seed: number) => normal(randomKey(seed), [2, 1, 2, 2]);
  const time = ndarray("int64", [2], [0, 999]);
  return toNumbers(
    evaluateFloat64(graphOf({ loss }), { x0: images(1), noise: images(2), time })["loss"]!,
  );
}

it("has no weighting beside a learned variance, whose loss would not use it", () => {
  const weighting = { kind: "min-snr", gamma: 5 };
  const recipe = recipeSchema.parse({ process: "discrete", weighting });
  expect(() =>
    recipeLoss(recipe, input("x0", [batch, 1, 2, 2]), (x) => concat([x, x], 1), true),
  ).toThrow("diffusion.weighting has no effect together with model.learnedVariance");
});

describe("a recipe with zero terminal SNR", () => {
  it.each(["x0", "v", "flow"])("has a finite min-SNR loss at pure noise: %s", (predicts) => {
    const weighting = { kind: "min-snr", gamma: 5 };
    const losses = lossesAtEnds(recipeSchema.parse({ ...zeroSNR, predicts, weighting }));
    expect(losses.map(Number.isFinite)).toEqual([true, true]);
    // Nothing of the image is left to learn from.
    expect(losses[1]).toBe(0);
  });

  it("cannot predict the noise, and neither can a flow", () => {
    const refused = "a network that predicts epsilon learns nothing at pure noise";
    expect(() => recipeSchema.parse({ ...zeroSNR, predicts: "epsilon" })).toThrow(refused);
    expect(() => recipeSchema.parse({ process: "flow", predicts: "epsilon" })).toThrow(refused);
    expect(recipeSchema.parse({ process: "discrete" }).predicts).toBe("epsilon");
  });
});
