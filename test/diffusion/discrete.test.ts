import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  cosineLevels,
  evenLevels,
  guidedTokens,
  noiseTokens,
  pickByShare,
  sampleTokens,
  type TokenDenoiser,
  tokenDraws,
  tokenLoss,
  type TokenSampling,
} from "../../src/diffusion/discrete.ts";
import { evaluateFloat64 } from "../../src/engine/evaluate.ts";
import { constant } from "../../src/engine/functional.ts";
import { graphOf } from "../../src/engine/graph.ts";
import { type NdArray, ndarray, toNumbers } from "../../src/engine/ndarray.ts";
import { randomKey } from "../../src/engine/random.ts";
import type { Tensor } from "../../src/engine/tensor.ts";
import { randomArray } from "../support/arrays.ts";

const valueOf = (output: Tensor) => evaluateFloat64(graphOf({ output }), {})["output"]!;
const CODEBOOK = 6;
const SHAPE = [2, 3, 3] as const;
const PLACES = 18;

const start = ndarray(
  "int64",
  SHAPE,
  Array.from({ length: PLACES }, (_, i) => i % CODEBOOK),
);

/** Says of every place the same, whatever it is given. */
const always =
  (...logits: number[]): TokenDenoiser =>
  async ({ shape: [count] }) =>
    ndarray(
      "float32",
      [count!, logits.length, 3, 3],
      Array.from({ length: count! }, () =>
        logits.flatMap((value) => new Array(9).fill(value)),
      ).flat(),
    );

const settings: TokenSampling = {
  levels: evenLevels(4),
  renoiseSteps: 3,
  temperature: [1, 1],
};

async function drawn(
  denoise: TokenDenoiser,
  sampling: Partial<TokenSampling> = {},
  seed = 1,
): Promise<NdArray<"int64">[]> {
  const steps = [];
  const draws = tokenDraws(randomKey(seed), PLACES);
  for await (const { tokens } of sampleTokens(
    denoise,
    start,
    { ...settings, ...sampling },
    draws,
  )) {
    steps.push(tokens);
  }
  return steps;
}

describe("noise", () => {
  const [tokens, random] = [start, ndarray("int64", SHAPE, new Array(PLACES).fill(5))];
  const uniforms = randomArray(3, "float32", SHAPE, 0, 1);
  const noisy = (share: number[]) =>
    toNumbers(
      valueOf(
        noiseTokens(constant(tokens), {
          random: constant(random),
          uniforms: constant(uniforms),
          share: constant(ndarray("float32", [2], share)),
        }),
      ),
    );

  it("of no share keeps all tokens, of a whole one none, each picture by its own", () => {
    const half = noisy([0, 1]);
    expect(half.slice(0, 9)).toEqual(toNumbers(tokens).slice(0, 9));
    expect(half.slice(9)).toEqual(new Array(9).fill(5));
  });

  it("replaces where a uniform number is below the share", () => {
    const found = noisy([0.5, 0.5]);
    const expected = toNumbers(tokens).map((token, i) =>
      toNumbers(uniforms)[i]! < 0.5 ? 5 : token,
    );
    expect(found).toEqual(expected);
  });
});

describe("the loss", () => {
  const logits = randomArray(4, "float32", [2, CODEBOOK, 3, 3], -2, 2);
  const losses = (smoothing: number) =>
    toNumbers(valueOf(tokenLoss(constant(logits), constant(start), smoothing)));

  it("is minus the log probability of the truth, or the mean over all tokens", () => {
    const [truth, all] = [losses(0), losses(1)];
    const values = toNumbers(logits);
    const at = (b: number, k: number, place: number) => values[(b * CODEBOOK + k) * 9 + place]!;
    for (let row = 0; row < PLACES; row++) {
      const [b, place] = [Math.floor(row / 9), row % 9];
      const column = Array.from({ length: CODEBOOK }, (_, k) => at(b, k, place));
      const total = Math.log(column.reduce((sum, value) => sum + Math.exp(value), 0));
      const mean = column.reduce((sum, value) => sum + value, 0) / CODEBOOK;
      expect(truth[row]).toBeCloseTo(total - column[row % CODEBOOK]!, 5);
      expect(all[row]).toBeCloseTo(total - mean, 5);
    }
  });

  it("is smoothed between both", () => {
    const [truth, all, some] = [losses(0), losses(1), losses(0.1)];
    for (const [i, value] of some.entries()) {
      expect(value).toBeCloseTo(0.9 * truth[i]! + 0.1 * all[i]!, 6);
    }
  });
});

describe("a token", () => {
  it("is picked as often as it is probable", () => {
    const logits = Float64Array.of(Math.log(0.5), Math.log(0.3), Math.log(0.2));
    expect([0, 0.49, 0.51, 0.79, 0.81, 0.999].map((share) => pickByShare(logits, share))).toEqual([
      0, 0, 1, 1, 2, 2,
    ]);
  });

  it("is one that is not impossible, whatever the number", () => {
    fc.assert(
      fc.property(
        fc.array(fc.option(fc.double({ min: -50, max: 50, noNaN: true })), {
          minLength: 2,
          maxLength: 9,
        }),
        fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
        (values, share) => {
          fc.pre(values.some((value) => value !== null));
          const logits = Float64Array.from(values, (value) => value ?? -Infinity);
          expect(logits[pickByShare(logits, share)]).toBeGreaterThan(-Infinity);
        },
      ),
    );
  });
});

describe("sampling", () => {
  const likes = always(0, 1, 2, 0, -1, 0.5);

  it("depends on its key alone", async () => {
    const [first, second, other] = await Promise.all([
      drawn(likes),
      drawn(likes),
      drawn(likes, {}, 2),
    ]);
    expect(first).toEqual(second);
    expect(first).not.toEqual(other);
  });

  it("at no temperature draws the most probable token", async () => {
    const last = (await drawn(likes, { temperature: [1, 1e-9] })).at(-1)!;
    expect(toNumbers(last)).toEqual(new Array(PLACES).fill(2));
  });

  it("puts the first tokens back as noise, ever fewer", async () => {
    // What is drawn is never one of them.
    const steps = await drawn(always(0, 0, 0, 0, 0, 0, 99), {
      levels: evenLevels(6),
      renoiseSteps: 5,
    });
    const back = steps.map((tokens) => toNumbers(tokens).filter((token) => token !== 6).length);
    expect(back[0]).toBeGreaterThan(8);
    expect(back.at(-1)).toBe(0);
    for (const tokens of steps) {
      for (const [i, token] of toNumbers(tokens).entries()) {
        expect([6, toNumbers(start)[i]]).toContain(token);
      }
    }
  });

  it("keeps tokens outside a mask exactly, at every step", async () => {
    const mask = Uint8Array.from({ length: PLACES }, (_, i) => (i % 2 ? 1 : 0));
    const outside = (tokens: NdArray) => toNumbers(tokens).filter((_, i) => !mask[i]);
    const steps = await drawn(always(0, 0, 0, 0, 0, 0, 99), { mask });
    expect(steps.map(outside)).toEqual(steps.map(() => outside(start)));
    expect(toNumbers(steps.at(-1)!)).toContain(6);
  });

  it("by typical tokens draws neither too probable nor too improbable ones", async () => {
    // Of probabilities of 0.4, three times 0.2 and 0.002 the surprise of the three is nearest to the entropy of 1.34.
    const uneven = always(Math.log(2), 0, 0, 0, Math.log(0.01));
    const tokens = await drawn(uneven, { typicalMass: 0.3, renoiseSteps: 0 });
    const seen = new Set(tokens.flatMap(toNumbers));
    expect(seen).toEqual(new Set([1, 2, 3]));
    const free = new Set((await drawn(uneven, { renoiseSteps: 0 })).flatMap(toNumbers));
    expect(free).toContain(0);
  });

  it("is led away from what an unconditional network says", async () => {
    const guided = guidedTokens(always(1, 0), always(3, 1), 2);
    const logits = await guided(start, 1);
    expect(toNumbers(logits).filter((_, i) => i % 18 === 0)).toEqual([-1, -1]);
    expect(logits.shape).toEqual([2, 2, 3, 3]);
    const same = await guidedTokens(always(1, 0), always(3, 1), 1)(start, 1);
    expect(toNumbers(same)).toEqual(toNumbers(await always(1, 0)(start, 1)));
  });

  it("goes from all noise to none", () => {
    for (const levels of [evenLevels(5), cosineLevels(5)]) {
      const shares = levels.map(({ share }) => share);
      expect(shares[0]).toBe(1);
      expect(shares.at(-1)).toBeCloseTo(0, 12);
      expect(shares.toSorted((a, b) => b - a)).toEqual(shares);
    }
    expect(evenLevels(2, 0.6, 0.2).map(({ time }) => time)).toEqual(
      [0.6, 0.4, 0.2].map((x) => expect.closeTo(x, 12)),
    );
  });
});
