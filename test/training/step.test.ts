import { afterAll, describe, expect, it } from "vitest";
import { input, parameter } from "../../src/engine/graph/functional.ts";
import { type NdArray, ndarray, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { batch } from "../../src/engine/graph/shape.ts";
import { adamW, type Optimizer } from "../../src/training/optimizers.ts";
import { emaPrefix, optimizerPrefix, trainingStep } from "../../src/training/step.ts";
import { createTrainer } from "../../src/training/trainer.ts";

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

  it("follows the algorithm of Loshchilov & Hutter (2019) step by step", async () => {
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

  it("give the same step as one large batch", async () => {
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

  it("must match the number that a step accumulates", async () => {
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

describe("a step as gradient and update", () => {
  const [w, b, x] = [parameter("w", [3]), parameter("b", [3]), input("x", [batch, 3])];
  const rate = input("rate", []);
  const loss = x.mul(w).sub(b).square().sum(1).mean();
  const backend = nodeBackend("cpu");
  const options = {
    loss,
    params: { w, b },
    optimizer: adamW({ learningRate: rate }),
    emaDecay: 0.5,
    clip: 0.5,
  };
  const first = { w: vector([1, -2, 3]), b: vector([0.5, 0, -1]) };
  const inputs = (from: number, count: number) => ({
    x: ndarray(
      "float32",
      [count, 3],
      Array.from({ length: 3 * count }, (_, i) => Math.sin(i + 3 * from)),
    ),
    rate: ndarray("float32", [], [0.1]),
  });
  const identity = async <T>(gradients: T) => gradients;

  it.each([1, 3])("gives the same result as one program, with %i batches", async (accumulate) => {
    const step = trainingStep({ ...options, accumulate });
    const [whole, halves] = await Promise.all([
      createTrainer(backend, step, first),
      createTrainer(backend, step, first, { reduce: identity }),
    ]);
    for (let i = 0; i < 4; i++) {
      const batches = Array.from({ length: accumulate }, (_, j) => inputs(10 * i + j, 4));
      const [one, two] = [await whole.step(...batches), await halves.step(...batches)];
      expect(two.loss).toBeCloseTo(one.loss, 5);
      expect(two.gradientNorm).toBeCloseTo(one.gradientNorm!, 5);
    }
    const [a, c] = [await whole.readState(), await halves.readState()];
    for (const [name, value] of Object.entries(c)) {
      for (const [i, number] of toNumbers(value).entries()) {
        expect(toNumbers(a[name]!)[i]).toBeCloseTo(number, 5);
      }
    }
    await Promise.all([whole.dispose(), halves.dispose()]);
  });

  it("gives two copies with half a batch each the same step as the whole batch", async () => {
    const step = trainingStep(options);
    const whole = await createTrainer(backend, step, first);
    // Each copy waits for the gradients of the other.
    const waiting: ((other: Record<string, NdArray>) => void)[] = [];
    const posted: Record<string, NdArray>[] = [];
    const meanWith = (rank: number) => async (own: Readonly<Record<string, NdArray>>) => {
      const other = await new Promise<Record<string, NdArray>>((resolve) => {
        waiting[1 - rank] = resolve;
        posted[rank] = own;
        if (posted[0] && posted[1]) {
          waiting[0]!(posted[0]);
          waiting[1]!(posted[1]);
          posted.length = 0;
        }
      });
      return Object.fromEntries(
        Object.entries(own).map(([name, { shape, data }]) => [
          name,
          ndarray(
            "float32",
            shape,
            (data as Float32Array).map((g, i) => (g + Number(other[name]!.data[i])) / 2),
          ),
        ]),
      );
    };
    const copies = await Promise.all(
      [0, 1].map((rank) => createTrainer(backend, step, first, { reduce: meanWith(rank) })),
    );
    for (let i = 0; i < 3; i++) {
      const all = inputs(i, 8);
      const half = (rank: number) => ({
        ...all,
        x: ndarray("float32", [4, 3], all.x.data.slice(12 * rank, 12 * rank + 12)),
      });
      const { loss: expected } = await whole.step(all);
      const results = await Promise.all(copies.map((copy, rank) => copy.step(half(rank))));
      expect((results[0]!.loss + results[1]!.loss) / 2).toBeCloseTo(expected, 5);
    }
    const [a, b0, b1] = await Promise.all([whole, ...copies].map((each) => each.readState()));
    expect(b0).toEqual(b1);
    for (const [name, value] of Object.entries(a!)) {
      for (const [i, number] of toNumbers(value).entries()) {
        expect(toNumbers(b0![name]!)[i]).toBeCloseTo(number, 5);
      }
    }
    await Promise.all([whole, ...copies].map((each) => each.dispose()));
  });

  it.each([undefined, identity])("resumes from the state of another trainer", async (reduce) => {
    const step = trainingStep(options);
    const [source, target] = await Promise.all([
      createTrainer(backend, step, first, { reduce }),
      createTrainer(backend, step, { w: vector([0, 0, 0]), b: vector([9, 9, 9]) }, { reduce }),
    ]);
    await source.step(inputs(0, 4));
    await target.step(inputs(5, 4));
    await target.writeState(await source.readState());
    expect(await target.step(inputs(1, 4))).toEqual(await source.step(inputs(1, 4)));
    expect(await target.readState()).toEqual(await source.readState());
    await Promise.all([source.dispose(), target.dispose()]);
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
  ])("clips a gradient of %j so that the update is %j", async (given, moved) => {
    const step = trainingStep({ loss, params: { w }, optimizer: plain, clip: 1 });
    const trainer = await createTrainer(nodeBackend("cpu"), step, { w: vector([0, 0]) });
    const { gradientNorm } = await trainer.step({ g: vector(given) });
    expect(gradientNorm).toBeCloseTo(Math.hypot(...given), 5);
    const after = toNumbers((await trainer.readState())["w"]!);
    for (const [i, value] of after.entries()) expect(value).toBeCloseTo(moved[i]!, 5);
    await trainer.dispose();
  });
});

describe("a training that resumes from its state", () => {
  it("ends bit-equal to an uninterrupted one", async () => {
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
