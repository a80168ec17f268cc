import { describe, expect, it } from "vitest";
import {
  flowLevel,
  noised,
  perImage,
  regressionLoss,
  type RegressionOptions,
} from "../../src/diffusion/losses.ts";
import {
  type Parameterization,
  parameterizations,
  targetOf,
} from "../../src/diffusion/parameterization.ts";
import { diffusionProcess } from "../../src/diffusion/process.ts";
import { betasOf } from "../../src/diffusion/schedule.ts";
import {
  flowTimes,
  largestModeScale,
  type TimeDistribution,
  uniformSteps,
} from "../../src/diffusion/training-times.ts";
import {
  boundTerm,
  exampleAt,
  hybridLoss,
  type HybridOptions,
} from "../../src/diffusion/variational-bound.ts";
import { evaluateFloat64 } from "../../src/engine/reference/evaluate.ts";
import { concat, input } from "../../src/engine/graph/functional.ts";
import { gradient } from "../../src/engine/gradients/gradient.ts";
import { graphOf, leafName } from "../../src/engine/graph/graph.ts";
import { type NdArray, ndarray, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { normal, randomKey } from "../../src/engine/random/random.ts";
import { batch } from "../../src/engine/graph/shape.ts";
import type { Tensor } from "../../src/engine/graph/tensor.ts";

const shape = [3, 2, 2, 2];
const leaf = (name: string) => input(name, [batch, 2, 2, 2]);
const values = (seed: number) => normal(randomKey(seed), shape);
const column = (numbers: readonly number[]) => ndarray("float32", [numbers.length], numbers);

function run(tensors: Record<string, Tensor>, given: Record<string, NdArray>) {
  const graph = graphOf(tensors);
  const asked = new Set(graph.inputs.map(leafName));
  const used = Object.entries(given).filter(([name]) => asked.has(name));
  const got = evaluateFloat64(graph, Object.fromEntries(used));
  return (name: string) => toNumbers(got[name]!);
}

type Level = readonly [alpha: number, sigma: number];

/** One loss an image, of an output that is off the target by `error` everywhere. */
function lossesOf(options: RegressionOptions, levels: readonly Level[], error = 1): number[] {
  const [x0, noise] = [leaf("x0"), leaf("noise")];
  const level = {
    alpha: perImage(input("alpha", [batch]), x0),
    sigma: perImage(input("sigma", [batch]), x0),
  };
  const output = targetOf(options.parameterization, level, { x0, noise }).add(error);
  const loss = regressionLoss(output, { x0, noise, level }, options);
  const [alpha, sigma] = ([0, 1] as const).map((i) => column(levels.map((each) => each[i])));
  return run({ loss }, { x0: values(1), noise: values(2), alpha: alpha!, sigma: sigma! })("loss");
}

const ratios = [0.3, 1, 4];
const preserving = ratios.map((snr): Level => [
  Math.sqrt(snr / (1 + snr)),
  Math.sqrt(1 / (1 + snr)),
]);
const times = [0.02, 0.5, 0.9];
const straightLevels = times.map((time): Level => [1 - time, time]);

describe("the loss of a regression", () => {
  it.each(parameterizations)("for %s is the mean squared error", (parameterization) => {
    for (const levels of [preserving, straightLevels]) {
      for (const loss of lossesOf({ parameterization }, levels, 3)) expect(loss).toBeCloseTo(9, 4);
      expect(lossesOf({ parameterization }, levels, 0)).toEqual([0, 0, 0]);
    }
  });

  it.each<[Parameterization, (snr: number) => number]>([
    ["epsilon", (snr) => Math.min(snr, 2) / snr],
    ["x0", (snr) => Math.min(snr, 2)],
    ["v", (snr) => Math.min(snr, 2) / (snr + 1)],
  ])("for %s has the paper's min-SNR weights", (parameterization, weight) => {
    const got = lossesOf(
      { parameterization, weighting: { kind: "min-snr", gamma: 2 } },
      preserving,
    );
    for (const [i, snr] of ratios.entries()) expect(got[i]).toBeCloseTo(weight(snr), 5);
  });

  it("for x0 measured in the velocity is JiT's v-loss", () => {
    const weighting = { kind: "space", space: "flow", lowestSigma: 0.05 } as const;
    const got = lossesOf({ parameterization: "x0", weighting }, straightLevels);
    for (const [i, time] of times.entries()) {
      expect(got[i]! * Math.max(time, 0.05) ** 2).toBeCloseTo(1, 4);
    }
  });

  it("for flow matching has the target noise − x0 on a straight line", () => {
    const [x0, noise, time] = [leaf("x0"), leaf("noise"), input("time", [batch])];
    const example = { x0, noise, level: flowLevel(time, x0) };
    const given = { x0: values(1), noise: values(2), time: column([0, 0.25, 1]) };
    const loss = regressionLoss(noise.sub(x0), example, { parameterization: "flow" });
    const got = run({ loss, x: noised(example) }, given);
    expect(got("loss")).toEqual([0, 0, 0]);
    const [a, b] = [toNumbers(given.x0), toNumbers(given.noise)];
    for (const [i, value] of got("x").entries()) {
      const share = [0, 0.25, 1][Math.floor(i / 8)]!;
      expect(value).toBeCloseTo((1 - share) * a[i]! + share * b[i]!, 6);
    }
  });
});

describe("the losses with a learned variance", () => {
  const process = diffusionProcess(betasOf({ kind: "linear" }, 100));
  const steps = input("steps", [batch], "int64");
  const [x0, noise, mean, place] = ["x0", "noise", "mean", "place"].map(leaf) as [
    Tensor,
    Tensor,
    Tensor,
    Tensor,
  ];
  const example = { x0, noise, steps };
  const given = {
    // Pixels of 256 levels.
    x0: { ...values(1), data: values(1).data.map((v) => Math.round(Math.tanh(v) * 127.5) / 127.5) },
    noise: values(2),
    mean: values(3),
    place: values(4),
    steps: ndarray("int64", [3], BigInt64Array.from([0n, 40n, 99n])),
  };
  const loss = (objective: HybridOptions["objective"]) =>
    hybridLoss(process, concat([mean, place], 1), example, {
      parameterization: "epsilon",
      variance: "learned",
      objective,
    });

  it("train the variance by the bound only, and the mean by the simple loss only", () => {
    const { loss: total, mse, bound } = loss("mse");
    const [ofMean, ofPlace] = gradient(total.mean(), [mean, place]) as [Tensor, Tensor];
    const [simple] = gradient(mse!.mean(), [mean]) as [Tensor];
    const [fromBound] = gradient(bound!.mean(), [mean]) as [Tensor];
    const [alone] = gradient(loss("kl").loss.mean(), [mean]) as [Tensor];
    const got = run({ ofMean, ofPlace, simple, fromBound, alone }, given);
    expect(got("ofMean")).toEqual(got("simple"));
    expect(got("fromBound").every((value) => value === 0)).toBe(true);
    expect(got("ofPlace").every((value) => value !== 0)).toBe(true);
    expect(got("alone").every((value) => value !== 0)).toBe(true);
  });

  it("have the same terms with different weights", () => {
    const { loss: total, mse, bound } = loss("mse");
    const rescaled = loss("rescaled-mse").bound!;
    const [kl, whole] = [loss("kl").loss, loss("rescaled-kl").loss];
    const got = run({ total, mse: mse!, bound: bound!, rescaled, kl, whole }, given);
    for (const i of [0, 1, 2]) {
      expect(got("total")[i]).toBeCloseTo(got("mse")[i]! + got("bound")[i]!, 8);
      expect(got("rescaled")[i]! / got("bound")[i]!).toBeCloseTo(100 / 1000, 8);
      expect(got("kl")[i]).toBeCloseTo(got("bound")[i]!, 8);
      expect(got("whole")[i]! / got("kl")[i]!).toBeCloseTo(100, 8);
    }
  });

  it("are 0 bits for a perfect model with the smallest variance", () => {
    const x = noised(exampleAt(process, example));
    const small = boundTerm(process, { x0, steps }, x, { x0 }, "small");
    const large = boundTerm(process, { x0, steps }, x, { x0 }, "large");
    const got = run({ small, large }, given);
    for (const value of got("small").slice(1)) expect(Math.abs(value)).toBeLessThan(1e-6);
    for (const value of got("large").slice(1)) expect(value).toBeGreaterThan(0);
    // The first step's term is the likelihood of one of 256 levels.
    expect(got("small")[0]).toBeGreaterThan(0);
    expect(got("small")[0]).toBeLessThan(8);
  });
});

describe("training times", () => {
  const logits = (options: Parameters<typeof flowTimes>[2]) => {
    const all = [...flowTimes(randomKey(1), 20_000, options).data].map((t) =>
      Math.log(t / (1 - t)),
    );
    const mean = all.reduce((sum, value) => sum + value, 0) / all.length;
    const variance = all.reduce((sum, value) => sum + (value - mean) ** 2, 0) / all.length;
    return { mean, std: Math.sqrt(variance) };
  };

  it("are uniform or logit-normal, and shifted by log s", () => {
    expect(Math.abs(logits({}).std - Math.PI / Math.sqrt(3))).toBeLessThan(0.05);
    const distribution = { kind: "logit-normal", mean: -0.8, std: 0.6 } as const;
    const plain = logits({ distribution });
    expect(Math.abs(plain.mean + 0.8)).toBeLessThan(0.02);
    expect(Math.abs(plain.std - 0.6)).toBeLessThan(0.02);
    expect(logits({ distribution, shift: 3 }).mean - plain.mean).toBeCloseTo(Math.log(3), 4);
  });

  /** The sum of a density (Esser et al., 2024, section 3.1) up to a time. */
  const summed = (density: (t: number) => number) => (t: number) => {
    const steps = 2000;
    let sum = 0;
    for (let i = 0; i < steps; i++) sum += density(((i + 0.5) / steps) * t);
    return (sum / steps) * t;
  };

  /** The share below t = 1 − u − s·(cos²(πu/2) − 1 + u), which falls as the uniform u rises. */
  const modeShare = (s: number) => (t: number) => {
    let [low, high] = [0, 1];
    for (let i = 0; i < 60; i++) {
      const u = (low + high) / 2;
      if (1 - u - s * (Math.cos((Math.PI * u) / 2) ** 2 - 1 + u) > t) low = u;
      else high = u;
    }
    return 1 - low;
  };

  const logitNormal = (t: number) => {
    const z = (Math.log(t / (1 - t)) - 0.5) / 0.6;
    return Math.exp((-z * z) / 2) / (0.6 * Math.sqrt(2 * Math.PI) * t * (1 - t));
  };

  const shares: [TimeDistribution, (t: number) => number][] = [
    [{ kind: "uniform" }, (t) => t],
    [{ kind: "logit-normal", mean: 0.5, std: 0.6 }, summed(logitNormal)],
    ...[-1, -0.4, 0, 0.81, 1.29, largestModeScale].map(
      (scale): [TimeDistribution, (t: number) => number] => [
        { kind: "mode", scale },
        modeShare(scale),
      ],
    ),
    [{ kind: "cosmap" }, summed((t) => 2 / (Math.PI - 2 * Math.PI * t + 2 * Math.PI * t * t))],
  ];

  it.each(shares)("have the published density: %o", (distribution, share) => {
    const count = 20_000;
    const drawn = flowTimes(randomKey(9), count, { distribution }).data.toSorted();
    expect(drawn[0]).toBeGreaterThanOrEqual(0);
    expect(drawn.at(-1)).toBeLessThanOrEqual(1);
    const apart = Array.from({ length: 200 }, (_, i) => {
      const rank = (i * count) / 200;
      return Math.abs(share(drawn[rank]!) - rank / count);
    });
    // What a right sample exceeds once in 1000 times (Kolmogorov).
    expect(Math.max(...apart)).toBeLessThan(1.95 / Math.sqrt(count));
    expect(share(1)).toBeCloseTo(1, 5);
  });

  it("are the same for the same key, and uniform over the steps of a process", () => {
    expect(flowTimes(randomKey(3), 5)).toEqual(flowTimes(randomKey(3), 5));
    const { data } = uniformSteps(randomKey(4), 2000, 10);
    const counts = Array.from({ length: 10 }, (_, t) => data.filter((s) => Number(s) === t).length);
    expect(Math.min(...counts)).toBeGreaterThan(150);
    expect(counts.reduce((sum, count) => sum + count)).toBe(2000);
  });
});
