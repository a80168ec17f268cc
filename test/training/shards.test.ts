import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ndarray } from "../../src/engine/arrays/ndarray.ts";
import { input, parameter } from "../../src/engine/graph/functional.ts";
import { batch } from "../../src/engine/graph/shape.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import type { Collective } from "../../src/training/collective/collective.ts";
import { localTrainer } from "../../src/training/collective/local-steps.ts";
import { groupsOf, shardsOf, sumParts, viewsOf } from "../../src/training/collective/shards.ts";
import { createShardedTrainer } from "../../src/training/collective/sharded-trainer.ts";
import { adamW } from "../../src/training/optimizers.ts";
import { trainingStep } from "../../src/training/step.ts";
import { createTrainer } from "../../src/training/trainer.ts";

/** A rank whose partners have the same numbers. */
function amongEquals(size: number, rank = 0): Collective {
  const times = (values: Float32Array | Float64Array) => {
    for (let i = 0; i < values.length; i++) values[i]! *= size;
  };
  return {
    rank,
    size,
    local: size,
    sum: times,
    broadcast() {},
    sumParts(parts, own) {
      own.set(parts.subarray(rank * own.length, (rank + 1) * own.length));
      times(own);
    },
    gatherParts() {},
  };
}

describe("weights that are divided among ranks", () => {
  it("have one rank each, which gets the sums of its own", () => {
    fc.assert(
      fc.property(
        fc.array(fc.nat(700_000), { minLength: 1, maxLength: 6 }),
        fc.integer({ min: 1, max: 4 }),
        (sizes, ranks) => {
          const lengths = Object.fromEntries(sizes.map((size, i) => [`w${i}`, size]));
          const shards = shardsOf(lengths, ranks);
          const names = shards.parts.flat().map(({ name }) => name);
          expect(names.toSorted()).toEqual(Object.keys(lengths).toSorted());
          const arrays = Object.fromEntries(
            sizes.map((size, i) => [`w${i}`, Float32Array.from({ length: size }, (_, k) => i + k)]),
          );
          for (const [rank, part] of shards.parts.entries()) {
            const own = new Float32Array(shards.length);
            sumParts(amongEquals(ranks, rank), shards, arrays, own);
            const shapes = Object.fromEntries(sizes.map((size, i) => [`w${i}`, [size]]));
            for (const [name, { data }] of Object.entries(viewsOf(part, own, 0, shapes))) {
              const wrong = data.findIndex((value, k) => value !== ranks * arrays[name]![k]!);
              expect(wrong).toBe(-1);
            }
            expect(groupsOf(part).flat()).toEqual(part.map(({ name }) => name));
          }
        },
      ),
      { numRuns: 20 },
    );
  });
});

const [w, b, x] = [parameter("w", [3]), parameter("b", [3]), input("x", [batch, 3])];
const loss = x.mul(w).sub(b).square().sum(1).mean();
const options = { loss, params: { w, b }, optimizer: adamW({ learningRate: 0.1 }), emaDecay: 0.5 };
const vector = (values: readonly number[]) => ndarray("float32", [values.length], values);
const first = () => ({ w: vector([1, -2, 3]), b: vector([0.5, 0, -1]) });
const inputs = (from: number) => ({
  x: ndarray(
    "float32",
    [4, 3],
    Array.from({ length: 12 }, (_, i) => Math.sin(i + 3 * from)),
  ),
});
const backend = nodeBackend("cpu");

describe("a trainer whose optimizer is divided", () => {
  it.each([1, 3])("updates its part as a whole one, with %i batches", async (accumulate) => {
    const step = trainingStep({ ...options, clip: 0.5, accumulate });
    const whole = await createTrainer(backend, step, first());
    const alone = await createShardedTrainer(backend, step, first(), amongEquals(1), {});
    for (let i = 0; i < 4; i++) {
      const batches = Array.from({ length: accumulate }, (_, j) => inputs(10 * i + j));
      const [one, other] = [await whole.step(...batches), await alone.step(...batches)];
      expect(other.loss).toBeCloseTo(one.loss, 5);
      expect(other.gradientNorm).toBeCloseTo(one.gradientNorm!, 5);
    }
    const [expected, state] = [await whole.readState(), await alone.readState()];
    expect(Object.keys(state).toSorted()).toEqual(Object.keys(expected).toSorted());
    for (const [name, { data }] of Object.entries(expected)) {
      for (const [i, value] of data.entries()) {
        expect(Number(state[name]!.data[i])).toBeCloseTo(Number(value), 5);
      }
    }
    await Promise.all([whole.dispose(), alone.dispose()]);
  });
});

describe("local steps", () => {
  it("move by SGD with Nesterov momentum from where the ranks last met", async () => {
    const step = trainingStep(options);
    const [plain, own] = await Promise.all([
      createTrainer(backend, step, first()),
      createTrainer(backend, step, first()),
    ]);
    const [rate, momentum] = [0.7, 0.9];
    const local = await localTrainer(own, { steps: 2, rate, momentum }, amongEquals(2), first());
    const common = [1, -2, 3];
    const velocity = [0, 0, 0];
    for (let i = 0; i < 6; i++) {
      await plain.step(inputs(i));
      await local.step(inputs(i));
      if (i % 2 === 0) continue;
      const reached = (await plain.readState())["w"]!.data;
      for (const k of common.keys()) {
        const way = common[k]! - Number(reached[k]);
        velocity[k] = momentum * velocity[k]! + way;
        common[k]! -= rate * (way + momentum * velocity[k]);
      }
      const state = await local.readState();
      for (const [k, value] of common.entries()) {
        expect(Number(state["w"]!.data[k])).toBeCloseTo(value, 5);
        expect(Number(state["outer/w"]!.data[k])).toBeCloseTo(velocity[k]!, 5);
      }
      const { w: met, b: other } = state;
      await plain.writeState({ w: met!, b: other! });
    }
    await Promise.all([plain.dispose(), local.dispose()]);
  });
});
