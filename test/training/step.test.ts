import { afterAll, describe, expect, it } from "vitest";
import { input, parameter } from "../../src/engine/graph/functional.ts";
import { ndarray, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { batch } from "../../src/engine/graph/shape.ts";
import { adamW, type Optimizer } from "../../src/training/optimizers.ts";
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
      const { loss: value } = await (await trainer).step({ x: vector(target) });
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

describe("gradients over several batches", () => {
  const [w, x] = [parameter("w", [3]), input("x", [batch, 3])];
  const loss = x.sub(w).square().sum(1).mean();
  const backend = nodeBackend("cpu");
  const options = { loss, params: { w }, optimizer: adamW({ learningRate: 0.1 }), emaDecay: 0.5 };
  const rows = (from: number, count: number) =>
    ndarray(
      "float32",
      [count, 3],
      Array.from({ length: 3 * count }, (_, i) => Math.sin(i + 7 * from)),
    );
  const first = { w: vector([1, -2, 3]) };

  it("make the step that one large batch makes", async () => {
    const [whole, parts] = await Promise.all([
      createTrainer(backend, trainingStep({ ...options, clip: 0.5 }), first),
      createTrainer(backend, trainingStep({ ...options, clip: 0.5, accumulate: 3 }), first),
    ]);
    for (let step = 0; step < 4; step++) {
      const pieces = [0, 1, 2].map((i) => rows(3 * step + i, 2));
      const joined = Float32Array.from(pieces.flatMap((piece) => [...piece.data]));
      const one = await whole.step({ x: ndarray("float32", [6, 3], joined) });
      const three = await parts.step(...pieces.map((piece) => ({ x: piece })));
      expect(three.loss).toBeCloseTo(one.loss, 5);
      expect(three.gradientNorm).toBeCloseTo(one.gradientNorm!, 5);
    }
    const [a, b] = [await whole.readState(), await parts.readState()];
    for (const [name, value] of Object.entries(a)) {
      const other = toNumbers(b[name]!);
      for (const [i, number] of toNumbers(value).entries()) expect(other[i]).toBeCloseTo(number, 5);
    }
    await Promise.all([whole.dispose(), parts.dispose()]);
  });

  it("must be as many as a step takes", async () => {
    const trainer = await createTrainer(
      backend,
      trainingStep({ ...options, accumulate: 2 }),
      first,
    );
    await expect(trainer.step({ x: rows(0, 2) })).rejects.toThrow(
      "A step was given 1 batches, but accumulates 2; give as many.",
    );
    await trainer.dispose();
  });
});

describe("clipping", () => {
  const [w, g] = [parameter("w", [2]), input("g", [2])];
  // Its gradient is g.
  const loss = w.mul(g).sum();
  const plain: Optimizer = {
    init: () => ({}),
    update: (grads, state, params) => [
      Object.fromEntries(Object.entries(params).map(([name, p]) => [name, p.sub(grads[name]!)])),
      state,
    ],
  };

  it.each([
    [
      [3, 4],
      [-0.6, -0.8],
    ],
    [
      [0.3, 0.4],
      [-0.3, -0.4],
    ],
  ])("brings a gradient of %j to %j times −1 at most", async (given, moved) => {
    const step = trainingStep({ loss, params: { w }, optimizer: plain, clip: 1 });
    const trainer = await createTrainer(nodeBackend("cpu"), step, { w: vector([0, 0]) });
    const { gradientNorm } = await trainer.step({ g: vector(given) });
    expect(gradientNorm).toBeCloseTo(Math.hypot(...given), 5);
    const after = toNumbers((await trainer.readState())["w"]!);
    for (const [i, value] of after.entries()) expect(value).toBeCloseTo(moved[i]!, 5);
    await trainer.dispose();
  });
});

describe("a training that goes on from its state", () => {
  it("ends in the same bits as one that was not interrupted", async () => {
    const [w, x] = [parameter("w", [3]), input("x", [3])];
    const loss = w.sub(x).square().sum();
    const step = trainingStep({ loss, params: { w }, optimizer: adamW({ learningRate: 0.1 }) });
    const backend = nodeBackend("cpu");
    const targets = Array.from({ length: 6 }, (_, i) => vector([Math.sin(i), i, -i]));
    const whole = await createTrainer(backend, step, { w: vector([1, 2, 3]) });
    for (const target of targets) await whole.step({ x: target });
    const before = await createTrainer(backend, step, { w: vector([1, 2, 3]) });
    for (const target of targets.slice(0, 2)) await before.step({ x: target });
    const after = await createTrainer(backend, step, { step: 2, state: await before.readState() });
    for (const target of targets.slice(2)) await after.step({ x: target });
    expect(await after.readState()).toEqual(await whole.readState());
    await Promise.all([whole, before, after].map((trainer) => trainer.dispose()));
  });
});
