import { describe, expect, it } from "vitest";
import { evaluateFloat64 } from "../../src/engine/reference/evaluate.ts";
import { constant } from "../../src/engine/graph/functional.ts";
import { graphOf } from "../../src/engine/graph/graph.ts";
import { ndarray, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import type { Tensor } from "../../src/engine/graph/tensor.ts";
import {
  cosineLevels,
  cosineShare,
  evenLevels,
  guidedTokens,
  isNoise,
  noiseTokens,
  noiseWeightedLoss,
  tokenLoss,
} from "../../src/diffusion/discrete/discrete.ts";
import { randomArray } from "../support/arrays.ts";

const valuesOf = (output: Tensor) => toNumbers(evaluateFloat64(graphOf({ output }), {})["output"]!);

const CODEBOOK = 6;
const SHAPE = [2, 3, 3] as const;
const ROWS = 18;
const tokens = ndarray(
  "int64",
  SHAPE,
  Array.from({ length: ROWS }, (_, i) => i % CODEBOOK),
);
const uniforms = randomArray(3, "float32", SHAPE, 0, 1);
const shares = (...values: number[]) => constant(ndarray("float32", [values.length], values));

describe("noise", () => {
  const random = ndarray("int64", SHAPE, new Array(ROWS).fill(5));
  const noisy = (...share: number[]) => {
    const noise = isNoise(constant(uniforms), shares(...share));
    return valuesOf(noiseTokens(constant(tokens), constant(random), noise));
  };

  it("keeps all tokens at share 0 and none at share 1, for each image by its own share", () => {
    const both = noisy(0, 1);
    expect(both.slice(0, 9)).toEqual(toNumbers(tokens).slice(0, 9));
    expect(both.slice(9)).toEqual(new Array(9).fill(5));
  });

  it("replaces a token if its uniform number is below the share", () => {
    const expected = toNumbers(tokens).map((token, i) =>
      toNumbers(uniforms)[i]! < 0.5 ? 5 : token,
    );
    expect(noisy(0.5, 0.5)).toEqual(expected);
  });
});

describe("the loss of a token", () => {
  const logits = randomArray(4, "float32", [2, CODEBOOK, 3, 3], -2, 2);
  const losses = (smoothing?: number) =>
    valuesOf(tokenLoss(constant(logits), constant(tokens), smoothing));

  it("is minus the log probability of the true token, or the mean over all tokens", () => {
    const [truth, all] = [losses(0), losses(1)];
    const values = toNumbers(logits);
    const at = (b: number, k: number, place: number) => values[(b * CODEBOOK + k) * 9 + place]!;
    for (let row = 0; row < ROWS; row++) {
      const [b, place] = [Math.floor(row / 9), row % 9];
      const column = Array.from({ length: CODEBOOK }, (_, k) => at(b, k, place));
      const total = Math.log(column.reduce((sum, value) => sum + Math.exp(value), 0));
      const mean = column.reduce((sum, value) => sum + value, 0) / CODEBOOK;
      expect(truth[row]).toBeCloseTo(total - column[row % CODEBOOK]!, 10);
      expect(all[row]).toBeCloseTo(total - mean, 10);
    }
  });

  it("is smoothed between both, by 0.1 by default", () => {
    const [truth, all, some] = [losses(0), losses(1), losses()];
    for (const [i, value] of some.entries()) {
      expect(value).toBeCloseTo(0.9 * truth[i]! + 0.1 * all[i]!, 10);
    }
  });
});

describe("the loss of an image", () => {
  const values = randomArray(7, "float32", SHAPE, 0, 2);
  const share = [0.25, 0.75];
  const weighted = (lowest?: number) =>
    valuesOf(
      noiseWeightedLoss(constant(values), {
        noise: isNoise(constant(uniforms), shares(...share)),
        share: shares(...share),
        ...(lowest !== undefined && { lowest }),
      }),
    );

  it("has smaller weights for places without noise, the less noise there is", () => {
    const [losses, drawn] = [toNumbers(values), toNumbers(uniforms)];
    const expected = share.map((part, b) => {
      // As the original writes it: 1 − (1 − mask)·(1 − t)·(1 − 0.3).
      const weights = drawn.map((u) => 1 - (1 - Number(u < part)) * (1 - part) * 0.7);
      const rows = weights
        .map((weight, i) => [weight, losses[i]!] as const)
        .slice(9 * b, 9 * b + 9);
      const total = rows.reduce((sum, [weight]) => sum + weight, 0);
      return rows.reduce((sum, [weight, loss]) => sum + weight * loss, 0) / total;
    });
    for (const [i, value] of weighted().entries()) expect(value).toBeCloseTo(expected[i]!, 6);
  });

  it("is the plain mean for equal weights", () => {
    const plain = valuesOf(constant(values).mean([1, 2]));
    for (const [i, value] of weighted(1).entries()) expect(value).toBeCloseTo(plain[i]!, 6);
  });
});

describe("guidance", () => {
  const says =
    (...logits: number[]) =>
    async () =>
      ndarray("float32", [1, logits.length, 1, 1], logits);
  const one = ndarray("int64", [1, 1, 1], [0]);

  it("leads away from the unconditional logits", async () => {
    const logits = await guidedTokens(says(1, 0), says(3, 1), 2)(one, 1);
    expect(toNumbers(logits)).toEqual([-1, -1]);
    expect(logits.shape).toEqual([1, 2, 1, 1]);
  });

  it("gives the conditional logits at scale 1, and the unconditional ones at scale 0", async () => {
    expect(toNumbers(await guidedTokens(says(1, 0), says(3, 1), 1)(one, 1))).toEqual([1, 0]);
    expect(toNumbers(await guidedTokens(says(1, 0), says(3, 1), 0)(one, 1))).toEqual([3, 1]);
  });

  it("runs both networks at the same time", async () => {
    const asked: string[] = [];
    const slow = (name: string) => async () => {
      asked.push(name);
      await Promise.resolve();
      expect(asked).toEqual(["wanted", "free"]);
      return ndarray("float32", [1, 1, 1, 1], [0]);
    };
    await guidedTokens(slow("wanted"), slow("free"), 3)(one, 1);
    expect(asked).toHaveLength(2);
  });
});

describe("levels", () => {
  it.each([1, 5, 12, 40])("go from all noise to none in %d steps", (steps) => {
    for (const levels of [evenLevels(steps), cosineLevels(steps)]) {
      expect(levels).toHaveLength(steps + 1);
      expect(levels[0]).toBe(1);
      expect(levels.at(-1)).toBe(0);
      expect(levels.toSorted((a, b) => b - a)).toEqual(levels);
    }
  });

  it("follow a cosine, or are evenly spaced", () => {
    for (const [i, share] of cosineLevels(8).slice(0, -1).entries()) {
      expect(share).toBeCloseTo(Math.cos((i * Math.PI) / 16), 6);
      expect(share).toBe(cosineShare(i / 8));
    }
    for (const [i, share] of evenLevels(2, 0.6, 0.2).entries()) {
      expect(share).toBeCloseTo([0.6, 0.4, 0.2][i]!, 6);
    }
  });

  it("are refused for no steps", () => {
    expect(() => evenLevels(0)).toThrow("0");
    expect(() => cosineLevels(2.5)).toThrow("2.5");
  });
});
