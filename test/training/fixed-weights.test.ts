import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type NdArray, ndarray } from "../../src/engine/arrays/ndarray.ts";
import { leafName } from "../../src/engine/graph/graph.ts";
import { estimateMemory } from "../../src/engine/passes/cost.ts";
import { randomKey } from "../../src/engine/random/random.ts";
import { readFileRange } from "../../src/engine/runtime/read-file-node.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import {
  arrayWeight,
  arrayWeights,
  channelsWeight,
  readWeight,
} from "../../src/engine/runtime/stored-weight.ts";
import { traceNetwork } from "../../src/models/network.ts";
import { attentionAndMlp, isLora, withLora } from "../../src/nn/lora.ts";
import { createParams, initialize } from "../../src/nn/params.ts";
import { type FixedType, withFixedWeights } from "../../src/training/fixed-weights.ts";
import { adamW } from "../../src/training/optimizers.ts";
import { trainingStep } from "../../src/training/step.ts";
import { createTrainer } from "../../src/training/trainer.ts";
import { randomArray } from "../support/arrays.ts";
import { randomWeights, tinyNetwork } from "../support/tiny-model.ts";

const network = { ...tinyNetwork, size: [16, 16], hidden: 64, depth: 2 } as const;
const base = randomWeights(network);
const batch = 4;
const inputs = {
  x: randomArray(1, "float32", [batch, 3, 16, 16]),
  t: ndarray("float32", [batch], [3, 200, 500, 900]),
  y: ndarray("int64", [batch], [0, 1, 2, 1]),
};

function loraStep(recompute = false) {
  const params = withLora(createParams(), { rank: 4, alpha: 4, targets: attentionAndMlp });
  const { output } = traceNetwork(network, { recompute }, params);
  const own = [...params.declared].filter(([name]) => isLora(name));
  const step = trainingStep({
    loss: output.square().mean(),
    params: Object.fromEntries(own.map(([name, { tensor }]) => [name, tensor])),
    optimizer: adamW({ learningRate: 1e-2 }),
  });
  return { step, first: initialize({ declared: new Map(own) }, randomKey(2)) };
}

/** Losses of a training, whole or as two programs with something between them. */
async function losses(type: FixedType, count: number, reduced = false): Promise<number[]> {
  const { step, first } = loraStep();
  const fixed = withFixedWeights(step, arrayWeights(base), type);
  const reduce = reduced ? { reduce: async (all: Record<string, NdArray>) => all } : {};
  const trainer = await createTrainer(nodeBackend(), fixed, first, { threads: 1, ...reduce });
  const found: number[] = [];
  for (let i = 0; i < count; i++) found.push((await trainer.step(inputs)).loss);
  await trainer.dispose();
  return found;
}

describe("a LoRA on a base in 8-bit integers", () => {
  it("multiplies integers in both passes, as often where blocks are recomputed", () => {
    const counts = [false, true].map((recompute) => {
      const { graph } = withFixedWeights(loraStep(recompute).step, arrayWeights(base), "int8");
      const names = graph.parameters.filter(({ dtype }) => dtype === "int8").map(leafName);
      return [names.length, names.filter((name) => name.endsWith(" backward int8")).length];
    });
    // Six matrices a block, of which q, k and v are one weight; nothing below the first block's learns.
    expect(counts).toEqual([
      [6 * 2 + 6 * 2 - 3, 6 * 2 - 3],
      [6 * 2 + 6 * 2 - 3, 6 * 2 - 3],
    ]);
  });

  it("learns to the same loss within 1 %", async () => {
    const [exact, rounded] = [await losses("float32", 16), await losses("int8", 16)];
    expect(exact.at(-1)! / exact[0]!).toBeLessThan(0.8);
    expect(Math.abs(rounded.at(-1)! / exact.at(-1)! - 1)).toBeLessThan(0.01);
    expect(rounded).not.toEqual(exact);
  });

  it("learns the same as two programs", async () => {
    const [whole, halves] = [await losses("int8", 2), await losses("int8", 2, true)];
    for (const [i, loss] of whole.entries()) expect(halves[i]).toBeCloseTo(loss, 5);
  });

  it("takes less memory for its weights", () => {
    const { step } = loraStep();
    const weightsOf = (type: FixedType) => {
      const { graph, state } = withFixedWeights(step, arrayWeights(base), type);
      return estimateMemory(graph, batch, state).weights;
    };
    expect(weightsOf("int8")).toBeLessThan(0.8 * weightsOf("float32"));
  });

  it("does not change a step without fixed weights", () => {
    const { step } = loraStep();
    expect(withFixedWeights(step, () => undefined, "int8")).toBe(step);
  });
});

describe("a weight in 8-bit integers for the backward pass", () => {
  it("is within half a unit of each column's scale", async () => {
    const shapes = fc.tuple(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 9 }));
    await fc.assert(
      fc.asyncProperty(shapes, fc.integer(), async ([rows, width], seed) => {
        const weight = randomArray(seed, "float32", [rows, width]);
        const parts = channelsWeight(arrayWeight(weight), true);
        const [values, scale] = await Promise.all(
          [parts.values, parts.scale].map((part) => readWeight(part, readFileRange)),
        );
        expect(values!.shape).toEqual([rows, width]);
        expect(scale!.shape).toEqual([width]);
        for (let i = 0; i < rows * width; i++) {
          const unit = Number(scale!.data[i % width]);
          const apart = Number(values!.data[i]) * unit - Number(weight.data[i]);
          expect(Math.abs(apart)).toBeLessThanOrEqual(0.5001 * unit);
        }
        for (let column = 0; column < width; column++) {
          const most = Math.max(
            ...Array.from({ length: rows }, (_, row) =>
              Math.abs(Number(values!.data[row * width + column])),
            ),
          );
          expect(most).toBe(Number(scale!.data[column]) === 0 ? 0 : 127);
        }
      }),
      { numRuns: 30 },
    );
  });
});
