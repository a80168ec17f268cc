import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { UsageError } from "../../src/engine/errors.ts";
import { evaluate } from "../../src/engine/reference/evaluate.ts";
import { input, parameter } from "../../src/engine/graph/functional.ts";
import { gradient } from "../../src/engine/gradients/gradient.ts";
import { graphOf, leafName } from "../../src/engine/graph/graph.ts";
import { type NdArray, ndarray, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { countMultiplyAdds } from "../../src/engine/passes/cost.ts";
import { simplify } from "../../src/engine/passes/simplify.ts";
import { randomKey } from "../../src/engine/random/random.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { traceNetwork } from "../../src/models/network.ts";
import { linear, linearParts } from "../../src/nn/linear.ts";
import { attentionAndMlp, checkTargets, isLora, withLora } from "../../src/nn/lora.ts";
import { createParams, initialize, zero } from "../../src/nn/params.ts";
import { mergeLora } from "../../src/weights/lora.ts";
import { product } from "../../src/weights/lora-forms.ts";
import { randomArray } from "../support/arrays.ts";
import { finiteDifferences, runWith } from "../support/finite-differences.ts";
import { randomWeights, tinyNetwork, tinyTextNetwork } from "../support/tiny-model.ts";

const lora = { rank: 2, alpha: 3, targets: attentionAndMlp };
type Arrays = Record<string, NdArray>;

function matrix(seed: number, rows: number, columns: number): NdArray<"float32"> {
  return randomArray(seed, "float32", [rows, columns]) as NdArray<"float32">;
}

describe("a view with LoRA", () => {
  it("initially equals the base model exactly", async () => {
    const weights = randomWeights(tinyNetwork);
    const view = traceNetwork(tinyNetwork, {}, withLora(createParams(), lora));
    const first: Arrays = { ...initialize(view.params, randomKey(7)), ...weights };
    const inputs = {
      x: randomArray(1, "float32", [2, 3, 8, 8]),
      t: ndarray("float32", [2], [3, 700]),
      y: ndarray("int64", [2], [0, 2]),
    };
    const run = async (graph: ReturnType<typeof graphOf>, values: Arrays) => {
      const source = (name: string) =>
        values[name] && ({ kind: "array", array: values[name] } as const);
      const program = await nodeBackend().compile(graph, { weights: source });
      const { output } = await program.run(inputs);
      await program.dispose();
      return output!.data;
    };
    const base = await run(graphOf({ output: traceNetwork(tinyNetwork).output }), weights);
    expect(await run(graphOf({ output: view.output }), first)).toEqual(base);
    const moved = Object.entries(first).map(([name, array]) => [
      name,
      name.endsWith(".lora_B.weight") ? randomArray(5, "float32", array.shape) : array,
    ]);
    expect(await run(graphOf({ output: view.output }), Object.fromEntries(moved))).not.toEqual(
      base,
    );
  });

  it("trains at the cost of two forward passes, since no gradient of a whole weight is formed", () => {
    const network = { ...tinyNetwork, size: [32, 32], hidden: 64 } as const;
    const view = traceNetwork(network, {}, withLora(createParams(), lora));
    const added = [...view.params.declared].flatMap(([name, { tensor }]) =>
      isLora(name) ? [tensor] : [],
    );
    const gradients = gradient(view.output.square().mean(), added);
    const step = graphOf(Object.fromEntries(gradients.map((each, i) => [String(i), each])));
    const forward = graphOf({ output: traceNetwork(network).output });
    const ratio = countMultiplyAdds(simplify(step), 4) / countMultiplyAdds(forward, 4);
    expect(ratio).toBeLessThan(2.2);
  });

  it("adds two matrices to targeted layers only", () => {
    const { params } = traceNetwork(tinyTextNetwork, {}, withLora(createParams(), lora));
    const added = [...params.declared.keys()].filter(isLora);
    const layers = ["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"].flatMap((layer) =>
      [0, 1].map((block) => `blocks.${block}.${layer}`),
    );
    const expected = layers.flatMap((layer) =>
      ["A", "B"].map((side) => `${layer}.lora_${side}.weight`),
    );
    expect(added.toSorted()).toEqual(expected.toSorted());
    const shapeOf = (name: string) => params.declared.get(name)!.tensor.shape;
    expect(shapeOf("blocks.0.attn.qkv.lora_A.weight")).toEqual([2, 32]);
    expect(shapeOf("blocks.0.attn.qkv.lora_B.weight")).toEqual([96, 2]);
    const others = [...params.declared.keys()].filter((name) => !isLora(name));
    expect(others).toEqual([...traceNetwork(tinyTextNetwork).params.declared.keys()]);
  });

  it("returns the same tensor each time", () => {
    const view = withLora(createParams(), { ...lora, targets: ["**"] });
    const ask = () => view.at("a").at("b").param("weight", [3, 4], zero);
    expect(ask()).toBe(ask());
    expect(view.at("a").param("weight", [3], zero)).toBe(view.declared.get("a.weight")!.tensor);
  });

  it("has gradients for its own matrices, even if the weight is split", () => {
    const params = withLora(createParams(), { rank: 2, alpha: 1, targets: ["*"] });
    const x = input("x", [3, 4]);
    const [q, k] = linearParts(params.at("qk"), linear(params.at("in"), x, 4), 2, 4);
    const loss = q!.mul(k!).sum();
    const own = [...params.declared].filter(([name]) => isLora(name));
    const gradients = gradient(
      loss,
      own.map(([, { tensor }]) => tensor),
    );
    const graph = graphOf(Object.fromEntries(own.map(([name], i) => [name, gradients[i]!])));
    const values = Object.fromEntries(
      [...graph.parameters, ...graph.inputs].map((leaf, i) => [
        leafName(leaf),
        randomArray(i, "float64", leaf.shape as number[]),
      ]),
    );
    const slopes = runWith(graph, values);
    expect(own).toHaveLength(4);
    for (const [name, { tensor }] of own) {
      const expected = finiteDifferences(loss, tensor, values);
      const errors = toNumbers(slopes[name]!).map((slope, i) => Math.abs(slope - expected[i]!));
      expect(Math.max(...errors)).toBeLessThan(1e-7);
    }
  });

  it("has the same gradients with recomputation", async () => {
    const slopes = async (recompute: boolean) => {
      const params = withLora(createParams(), lora);

      const { output } = traceNetwork(tinyNetwork, { recompute }, params);
      const own = [...params.declared].filter(([name]) => isLora(name));
      const gradients = gradient(
        output.square().mean(),
        own.map(([, { tensor }]) => tensor),
      );
      const graph = graphOf(
        Object.fromEntries(own.map(([name], i) => [`d ${name}`, gradients[i]!])),
      );
      const values = Object.fromEntries(
        [...params.declared].map(([name, { tensor }], i) => [
          name,
          randomArray(i, "float32", tensor.shape as number[], -0.2, 0.2),
        ]),
      );
      const program = await nodeBackend().compile(graph, {
        weights: (name) => values[name] && { kind: "array", array: values[name] },
      });
      const told = await program.run({
        x: randomArray(1, "float32", [2, 3, 8, 8]),
        t: ndarray("float32", [2], [3, 700]),
        y: ndarray("int64", [2], [0, 2]),
      });
      await program.dispose();
      return told;
    };
    const [once, again] = [await slopes(false), await slopes(true)];
    expect(Object.keys(once)).toHaveLength(16);
    for (const [name, { data }] of Object.entries(once)) {
      const values = Array.from(data as Float32Array);
      const largest = Math.max(...values.map(Math.abs));
      expect(largest).toBeGreaterThan(0);
      const other = again[name]!.data as Float32Array;
      const errors = values.map((value, i) => Math.abs(value - other[i]!));
      expect(Math.max(...errors)).toBeLessThan(1e-5 * largest);
    }
  });

  it("equals the merged weights for any shape, rank and alpha", () => {
    const size = fc.integer({ min: 1, max: 9 });
    fc.assert(
      fc.property(
        size,
        size,
        size,
        fc.float({ min: 0.125, max: 8 }),
        (outputs, inputs, rank, alpha) => {
          const params = withLora(createParams(), { rank, alpha, targets: ["layer"] });
          const sum = params.at("layer").param("weight", [outputs, inputs], zero);
          const [base, down, up] = [
            matrix(1, outputs, inputs),
            matrix(2, rank, inputs),
            matrix(3, outputs, rank),
          ];
          const view = evaluate(graphOf({ sum }), {
            "layer.weight": base,
            "layer.lora_A.weight": down,
            "layer.lora_B.weight": up,
          });
          const rows = [[0, outputs]] as const;
          const part = { rows, delta: product(up, down), scale: alpha / rank, weight: 1 };
          const merged = toNumbers(mergeLora(base, [part]));
          for (const [i, value] of toNumbers(view["sum"]!).entries()) {
            // Each of the view's products and sums is rounded to float32.
            expect(Math.abs(value - merged[i]!)).toBeLessThan(
              2 ** -22 * (2 + (alpha / rank) * 4 * rank),
            );
          }
        },
      ),
      { seed: 5, numRuns: 50 },
    );
  });
});

describe("mixing LoRA", () => {
  it("is linear in the weights, and changes only the intended rows", () => {
    const weight = fc.float({ min: -2, max: 2, noNaN: true });
    fc.assert(
      fc.property(weight, weight, (first, second) => {
        const base = matrix(1, 6, 5);
        const parts = [
          { rows: [[0, 2]] as const, down: matrix(2, 3, 5), up: matrix(3, 2, 3) },
          {
            rows: [
              [4, 6],
              [0, 2],
            ] as const,
            down: matrix(4, 1, 5),
            up: matrix(5, 4, 1),
          },
        ].map((part) => ({ ...part, delta: product(part.up, part.down), scale: 0.5 }));
        const added = (weights: readonly number[]) => {
          const merged = mergeLora(
            base,
            parts.map((part, i) => ({ ...part, weight: weights[i]! })),
          );
          return toNumbers(merged).map((value, i) => value - toNumbers(base)[i]!);
        };
        const [one, other, both] = [added([1, 0]), added([0, 1]), added([first, second])];
        for (const [i, value] of both.entries()) {
          expect(Math.abs(value - first * one[i]! - second * other[i]!)).toBeLessThan(2e-5);
        }
        expect(one.slice(10)).toEqual(one.slice(10).fill(0));
        expect(other.slice(10, 20)).toEqual(other.slice(10, 20).fill(0));
        // The second file's first rows are for the last two here.
        const [row, scale] = [toNumbers(parts[1]!.down), 0.5 * toNumbers(parts[1]!.up)[0]!];
        expect(other[20]! - scale * row[0]!).toBeCloseTo(0, 5);
      }),
      { seed: 6, numRuns: 50 },
    );
  });
});

describe("targets of a LoRA", () => {
  const { declared } = traceNetwork(tinyTextNetwork).params;

  it.each([["blocks.*.attn.qkv"], ["**.fc1"], ["*blocks.**attn*.**"], ["final_layer.linear"]])(
    "may be %s",
    (target) => {
      expect(() => checkTargets(declared, [target])).not.toThrow();
    },
  );

  it.each([
    [
      "blocks.*.attention.qkv",
      /"blocks\.\*\.attention\.qkv" matches no linear layer .*nearest are blocks\.\*\.attn\.qkv/,
    ],
    [
      "attn.qkv",
      /"attn\.qkv" matches no linear layer of the model; the nearest are .*blocks\.\*\.attn\.qkv/,
    ],
    ["blocks.*.qkv", /matches no linear layer/],
    ["blocks.0.attn.qkv(", /matches no linear layer/],
    ["x_embedder.proj", /"x_embedder\.proj" matches no linear layer/],
    ["zzz", /it has layers such as /],
  ])("fail for %s, with the nearest layers in the error", (target, sentence) => {
    const check = () => checkTargets(declared, ["**.proj", target]);
    expect(check).toThrow(UsageError);
    expect(check).toThrow(sentence);
  });

  it("do not match embedding tables", () => {
    const table = { tensor: parameter("t", [3, 4]), init: zero };
    const check = () => checkTargets(new Map([["y.embedding_table.weight", table]]), ["**"]);
    expect(check).toThrow(UsageError);
  });
});
