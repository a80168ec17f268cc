import { afterAll, describe, expect, it } from "vitest";
import { input, parameter } from "../../src/engine/functional.ts";
import { ndarray, toNumbers } from "../../src/engine/ndarray.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { adamW } from "../../src/training/adamw.ts";
import {
  createTrainer,
  emaPrefix,
  optimizerPrefix,
  trainingStep,
} from "../../src/training/step.ts";

const vector = (values: readonly number[]) => ndarray("float32", [values.length], values);

describe("a training step with AdamW and a moving average", () => {
  const options = {
    learningRate: 0.1,
    beta1: 0.8,
    beta2: 0.9,
    epsilon: 1e-3,
    weightDecay: 0.2,
  };
  const emaDecay = 0.7;
  const [w, x] = [parameter("w", [3]), input("x", [3])];
  const loss = w.sub(x).square().sum();
  const trainer = createTrainer(
    nodeBackend("cpu"),
    trainingStep({ loss, params: { w }, optimizer: adamW(options), emaDecay }),
    { w: vector([1, -2, 3]) },
  );
  afterAll(async () => (await trainer).dispose());

  it("does what the algorithm of Loshchilov & Hutter (2019) says, step by step", async () => {
    const { learningRate, beta1, beta2, epsilon, weightDecay } = options;
    const weights = [1, -2, 3];
    const [m, v, ema] = [[0, 0, 0], [0, 0, 0], [...weights]];
    for (let t = 1; t <= 10; t++) {
      const target = [Math.sin(t), 0.5, t];
      const expected = weights.reduce((sum, value, i) => sum + (value - target[i]!) ** 2, 0);
      for (const [i, value] of weights.entries()) {
        const g = 2 * (value - target[i]!);
        m[i] = beta1 * m[i]! + (1 - beta1) * g;
        v[i] = beta2 * v[i]! + (1 - beta2) * g * g;
        const mHat = m[i] / (1 - beta1 ** t);
        const vHat = v[i] / (1 - beta2 ** t);
        const decayed = value * (1 - learningRate * weightDecay);
        weights[i] = decayed - (learningRate * mHat) / (Math.sqrt(vHat) + epsilon);
        ema[i] = emaDecay * ema[i]! + (1 - emaDecay) * weights[i];
      }
      const value = await (await trainer).step({ x: vector(target) });
      expect(Math.abs(value / expected - 1)).toBeLessThan(1e-5);
    }
    const state = await (await trainer).readState();
    const expectedState = {
      w: weights,
      [`${optimizerPrefix}m.w`]: m,
      [`${optimizerPrefix}v.w`]: v,
      [`${emaPrefix}w`]: ema,
    };
    expect(Object.keys(state).sort()).toEqual(Object.keys(expectedState).sort());
    for (const [name, values] of Object.entries(expectedState)) {
      for (const [i, value] of toNumbers(state[name]!).entries()) {
        expect(Math.abs(value - values[i]!)).toBeLessThan(1e-5 * (1 + Math.abs(values[i]!)));
      }
    }
  });
});
