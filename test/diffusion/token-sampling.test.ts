import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { evenLevels, type TokenDenoiser } from "../../src/diffusion/discrete/discrete.ts";
import { finalImages } from "../../src/diffusion/samplers/sampler.ts";
import {
  type KnownTokens,
  pickByShare,
  sampleTokens,
  type TokenDraws,
  tokenDraws,
  type TokenSampling,
  type TokenStep,
} from "../../src/diffusion/discrete/token-sampling.ts";
import { type NdArray, ndarray, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { randomKey } from "../../src/engine/random/random.ts";
import { randomArray } from "../support/arrays.ts";

const [H, W, CODEBOOK] = [3, 4, 8];
const PLACES = H * W;

/** Says the same of each place, whatever it is given. */
const always =
  (...logits: number[]): TokenDenoiser =>
  async ({ shape: [count = 0] }) => {
    const image = logits.flatMap((value) => new Array<number>(PLACES).fill(value));
    const all = Array.from({ length: count }, () => image).flat();
    return ndarray("float32", [count, logits.length, H, W], all);
  };
const likes = always(0, 1, 2, 0, -1, 0.5, 0, 0);
/** Sure of token 6. */
const sure = always(0, 0, 0, 0, 0, 0, 99, 0);

const keys = (...seeds: number[]) => seeds.map((seed) => randomKey(seed));
const settings: TokenSampling = { codebook: CODEBOOK, levels: evenLevels(4) };

async function stepsOf(
  denoise: TokenDenoiser,
  sampling: Partial<TokenSampling> = {},
  draws = tokenDraws(keys(1, 2), [H, W]),
): Promise<TokenStep[]> {
  const steps: TokenStep[] = [];
  const all = { ...settings, ...sampling };
  for await (const step of sampleTokens(denoise, draws.noise(CODEBOOK), all, draws)) {
    steps.push(step);
  }
  return steps;
}

const last = (steps: readonly TokenStep[]) => toNumbers(steps.at(-1)!.tokens);
const tokensOf = (...tokens: number[]) =>
  ndarray(
    "int64",
    [2, H, W],
    Array.from({ length: 2 * PLACES }, (_, i) => tokens[i % tokens.length]!),
  );
const start = toNumbers(tokenDraws(keys(1, 2), [H, W]).noise(CODEBOOK));

describe("sampling", () => {
  it.each([NaN, Infinity])("refuses logits that are %s", async (value) => {
    await expect(stepsOf(always(0, 0, value, 0, 0, 0, 0, 0))).rejects.toThrow("NaN or infinite");
  });
});

describe("a pick", () => {
  it("takes a token with its probability", () => {
    const logits = Float64Array.of(Math.log(0.5), Math.log(0.3), Math.log(0.2));
    const shares = [0, 0.49, 0.51, 0.79, 0.81, 0.999];
    expect(shares.map((share) => pickByShare(logits, share))).toEqual([0, 0, 1, 1, 2, 2]);
  });

  it("never takes an impossible token", () => {
    const logit = fc.option(fc.double({ min: -50, max: 50, noNaN: true }));
    fc.assert(
      fc.property(
        fc.array(logit, { minLength: 2, maxLength: 9 }),
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

describe("draws", () => {
  it("of an image depend on its key only", async () => {
    const [both, alone, again] = await Promise.all([
      stepsOf(likes),
      stepsOf(likes, {}, tokenDraws(keys(2), [H, W])),
      stepsOf(likes),
    ]);
    expect(last(both)).toEqual(last(again));
    expect(last(both).slice(PLACES)).toEqual(last(alone));
    expect(last(both).slice(0, PLACES)).not.toEqual(last(alone));
  });

  it("begin with uniformly random tokens", () => {
    const noise = toNumbers(tokenDraws(keys(4), [64, 64]).noise(4));
    for (const token of [0, 1, 2, 3]) {
      const share = noise.filter((other) => other === token).length / 4096;
      // Five standard deviations.
      expect(Math.abs(share - 0.25)).toBeLessThan(5 * Math.sqrt((0.25 * 0.75) / 4096));
    }
  });
});

describe("sampling", () => {
  it("gives the network the share of noise, and returns the last tokens", async () => {
    const told: number[] = [];
    const listening: TokenDenoiser = (tokens, share) => {
      told.push(share);
      return likes(tokens, share);
    };
    const draws = tokenDraws(keys(1), [H, W]);
    const steps = await stepsOf(listening, {}, draws);
    expect(told).toEqual([1, 0.75, 0.5, 0.25]);
    expect(steps.map(({ step, steps: of }) => [step, of])).toEqual([
      [1, 4],
      [2, 4],
      [3, 4],
      [4, 4],
    ]);
    const final = await finalImages(
      sampleTokens(likes, draws.noise(CODEBOOK), settings, tokenDraws(keys(1), [H, W])),
    );
    expect(final).toEqual(steps.at(-1)!.tokens);
  });

  it("at temperature 0 takes the most probable tokens", async () => {
    const steps = await stepsOf(likes, { temperature: [0, 0] });
    for (const { drawn } of steps) expect(new Set(toNumbers(drawn))).toEqual(new Set([2]));
  });

  it("draws by probability at temperature 1, and more uniformly at higher temperatures", async () => {
    const counted = async (temperature: number) => {
      const steps = await stepsOf(
        always(0, Math.log(3)),
        { codebook: 2, levels: evenLevels(200), temperature: [temperature, temperature] },
        { ...tokenDraws(keys(3, 4), [H, W]), noise: () => tokensOf(0, 1) },
      );
      const drawn = steps.flatMap((step) => toNumbers(step.drawn));
      return drawn.filter((token) => token === 1).length / drawn.length;
    };
    // 4800 draws: five standard deviations are 0.036.
    expect(Math.abs((await counted(1)) - 3 / 4)).toBeLessThan(0.036);
    const hot = Math.sqrt(3) / (1 + Math.sqrt(3));
    expect(Math.abs((await counted(2)) - hot)).toBeLessThan(0.036);
  });

  it("puts fewer and fewer of the first tokens back as noise, and none at the end", async () => {
    const steps = await stepsOf(sure, { levels: evenLevels(6) });
    const back = steps.map(({ tokens }) => toNumbers(tokens).filter((token) => token !== 6).length);
    expect(back[0]).toBeGreaterThan(12);
    expect(back.at(-1)).toBe(0);
    for (const { tokens } of steps) {
      for (const [i, token] of toNumbers(tokens).entries()) expect([6, start[i]]).toContain(token);
    }
  });

  it("puts nothing back at a level without noise, and all tokens at a level of pure noise", async () => {
    for (const renoiseWith of ["start", "previous"] as const) {
      const levels = [1, 1, 0, 0];
      const steps = await stepsOf(sure, { levels, renoiseSteps: 3, renoiseWith });
      expect(toNumbers(steps[0]!.tokens)).toEqual(start);
      expect(new Set(toNumbers(steps[1]!.tokens))).toEqual(new Set([6]));
      expect(new Set(last(steps))).toEqual(new Set([6]));
    }
  });

  it("puts the step's input tokens back with renoiseWith previous", async () => {
    let question = 0;
    const changing: TokenDenoiser = (tokens, share) =>
      (question++ === 0 ? sure : likes)(tokens, share);
    const levels = [1, 0, 0, 0];
    const steps = await stepsOf(changing, { levels, renoiseSteps: 2, renoiseWith: "previous" });
    expect(toNumbers(steps[1]!.given)).toEqual(new Array(2 * PLACES).fill(6));
  });

  it("ends at the last level", async () => {
    const signal = AbortSignal.abort(new Error("enough"));
    await expect(stepsOf(likes, { signal })).rejects.toThrow("enough");
  });
});

describe("known tokens", () => {
  const known = tokensOf(7, 3, 5);
  const mask = randomArray(8, "bool", [2, H, W], 0, 2);
  const outside = toNumbers(mask).flatMap((drawn, i) => (drawn === 0 ? [i] : []));

  it("outside the mask are kept exactly at every step", async () => {
    const steps = await stepsOf(sure, { known: { tokens: known, mask } });
    expect(outside.length).toBeGreaterThan(4);
    for (const { given, drawn, tokens } of steps) {
      for (const array of [given, drawn, tokens]) {
        const values = toNumbers(array);
        expect(outside.map((i) => values[i])).toEqual(outside.map((i) => toNumbers(known)[i]));
      }
    }
    const inside = last(steps).filter((_, i) => !outside.includes(i));
    expect(new Set(inside)).toEqual(new Set([6]));
  });

  it("inside the mask do not matter from pure noise", async () => {
    const others = tokensOf(1, 2, 4).data.map((token, i) =>
      outside.includes(i) ? known.data[i]! : token,
    );
    const asKnown = (tokens: NdArray<"int64">): KnownTokens => ({ tokens, mask });
    const [some, other] = await Promise.all([
      stepsOf(likes, { known: asKnown(known) }),
      stepsOf(likes, { known: asKnown(ndarray("int64", [2, H, W], others)) }),
    ]);
    expect(last(some)).toEqual(last(other));
  });

  it("are the start of variations, as far as the first level keeps them", async () => {
    const first = async (share: number) => {
      const steps = await stepsOf(likes, {
        levels: evenLevels(3, share),
        known: { tokens: known },
      });
      return toNumbers(steps[0]!.given);
    };
    expect(await first(0)).toEqual(toNumbers(known));
    expect(await first(1)).toEqual(start);
    const half = await first(0.5);
    const kept = half.filter((token, i) => token === toNumbers(known)[i]);
    expect(kept.length).toBeGreaterThan(PLACES / 2);
    expect(kept.length).toBeLessThan(2 * PLACES);
    for (const [i, token] of half.entries())
      expect([toNumbers(known)[i], start[i]]).toContain(token);
  });
});

describe("typical tokens", () => {
  const one = ndarray("int64", [1, 1, 1], [0]);

  /** Which tokens may be drawn, and their probability together. */
  async function allowed(logits: readonly number[], mass: number, least?: number) {
    let seen: Float64Array = Float64Array.of();
    const draws: TokenDraws = {
      pick: (_, __, values) => {
        seen = values;
        return 0;
      },
      uniforms: () => [0],
    };
    const says = async () => ndarray("float32", [1, logits.length, 1, 1], logits);
    const typical = { mass, least };
    const sampling = { codebook: logits.length, levels: [1, 0], typical };
    await finalImages(sampleTokens(says, one, sampling, draws));
    const total = logits.reduce((sum, value) => sum + Math.exp(Math.fround(value)), 0);
    const chances = logits.map((value) => Math.exp(Math.fround(value)) / total);
    const entropy = -chances.reduce((sum, chance) => sum + chance * Math.log(chance), 0);
    const distances = chances.map((chance) => Math.abs(-Math.log(chance) - entropy));
    const tokens = logits.flatMap((_, i) => (seen[i] === -Infinity ? [] : [i]));
    return { tokens, chances, distances };
  }
  const sum = (values: readonly number[]) => values.reduce((a, b) => a + b, 0);

  it("are neither too probable nor too improbable ones", async () => {
    // Of two fifths and three times a fifth these are nearest to the entropy, and no fewer are by themselves.
    const { tokens } = await allowed([Math.log(2), 0, 0, 0], 0.3);
    expect(tokens).toEqual([1, 2, 3]);
  });

  it("are the fewest nearest to the entropy that reach the mass", async () => {
    const logits = fc.array(fc.double({ min: -6, max: 6, noNaN: true }), {
      minLength: 2,
      maxLength: 12,
    });
    await fc.assert(
      fc.asyncProperty(
        logits,
        fc.double({ min: 0.01, max: 0.99, noNaN: true }),
        async (l, mass) => {
          const { tokens, chances, distances } = await allowed(l, mass);
          expect(sum(tokens.map((k) => chances[k]!))).toBeGreaterThanOrEqual(mass - 1e-9);
          const farthest = Math.max(...tokens.map((k) => distances[k]!));
          const nearer = tokens.filter((k) => distances[k]! < farthest - 1e-9);
          expect(sum(nearer.map((k) => chances[k]!))).toBeLessThan(mass + 1e-9);
          const others = distances.filter((_, k) => !tokens.includes(k));
          expect(Math.min(...others, Infinity)).toBeGreaterThan(farthest - 1e-9);
        },
      ),
    );
  });

  it("are at least `least`, and all of them for the whole mass", async () => {
    const logits = [3, 1, 0, -1, -2];
    expect((await allowed(logits, 0.1)).tokens).toHaveLength(1);
    expect((await allowed(logits, 0.1, 4)).tokens).toHaveLength(4);
    expect((await allowed(logits, 0.1, 9)).tokens).toHaveLength(5);
    expect((await allowed(logits, 1)).tokens).toHaveLength(5);
  });
});

describe("sampling tokens refuses", () => {
  const refusal = async (sampling: Partial<TokenSampling>, denoise = likes) =>
    stepsOf(denoise, sampling).then(
      () => "nothing",
      (error: Error) => `${error.name}: ${error.message}`,
    );

  it("settings out of range, in one sentence", async () => {
    expect(await refusal({ levels: [1] })).toContain(
      "levels must be at least two shares of noise from 1 to 0 that do not rise, got 1.",
    );
    expect(await refusal({ levels: [0.5, 0.7] })).toContain("0.5, 0.7");
    expect(await refusal({ levels: [1.2, 0] })).toContain("1.2, 0");
    expect(await refusal({ renoiseSteps: -1 })).toContain(
      "renoiseSteps must be a whole number of at least 0, got -1.",
    );
    expect(await refusal({ temperature: [1, -0.5] })).toContain(
      "temperature must be two numbers of at least 0, got -0.5.",
    );
    expect(await refusal({ temperature: [NaN, 1] })).toContain(
      "temperature must be two numbers of at least 0, got NaN.",
    );
    expect(await refusal({ typical: { mass: 0 } })).toContain(
      "typical.mass must be a number above 0 and up to 1, got 0.",
    );
  });

  it("tokens outside the codebook", async () => {
    expect(await refusal({ known: { tokens: tokensOf(3, 8) } })).toBe(
      "UsageError: Tokens must be from 0 to 7, got 8; give those of the VQGAN that the network was trained with.",
    );
    expect(await refusal({ known: { tokens: tokensOf(3, -1) } })).toContain("got -1;");
  });

  it("a network that was trained with another codebook", async () => {
    expect(await refusal({}, always(0, 1, 2))).toBe(
      "UsageError: The network predicts logits of shape [2, 3, 3, 4] from tokens [2, 3, 4], which does not fit a codebook of 8; give a network that was trained with this VQGAN.",
    );
  });

  it("known tokens or a mask of another shape", async () => {
    const small = ndarray("int64", [1, 1, 2], [0, 1]);
    expect(await refusal({ known: { tokens: small } })).toContain("[1, 1, 2]");
    expect(await refusal({ known: { tokens: tokensOf(1), mask: small } })).toContain("[1, 1, 2]");
  });
});
