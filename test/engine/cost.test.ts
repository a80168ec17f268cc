import { describe, expect, it } from "vitest";
import { recompute } from "../../src/engine/graph/recompute.ts";
import {
  countMultiplyAdds,
  countParameters,
  estimateMemory,
  peakMemory,
} from "../../src/engine/passes/cost.ts";
import {
  attention,
  constantOf,
  full,
  input,
  parameter,
} from "../../src/engine/graph/functional.ts";
import { gradient } from "../../src/engine/gradients/gradient.ts";
import { graphOf } from "../../src/engine/graph/graph.ts";
import { batch } from "../../src/engine/graph/shape.ts";
import { apply, type Tensor } from "../../src/engine/graph/tensor.ts";
import { ditBlocks, ditTraining } from "../support/models.ts";

const x = input("x", [batch, 10]);

describe("parameters and multiply-adds", () => {
  it("of a layer", () => {
    const y = x.linear(parameter("w", [5, 10]), parameter("b", [5])).relu();
    expect(countParameters(graphOf({ y }))).toBe(55);
    expect(countMultiplyAdds(graphOf({ y }), 1)).toBe(50);
    expect(countMultiplyAdds(graphOf({ y }), 8)).toBe(400);
  });

  it("of a weight used twice: one parameter tensor, two products", () => {
    const w = parameter("w", [10, 10]);
    const graph = graphOf({ y: x.linear(w).linear(w) });
    expect(countParameters(graph)).toBe(100);
    expect(countMultiplyAdds(graph, 2)).toBe(400);
  });

  it.each<[string, Tensor, number]>([
    ["matmul", input("a", [2, 3, 4]).matmul(input("b", [4, 5])), 2 * 3 * 4 * 5],
    [
      "matmul of transposed operands",
      input("a", [4, 3]).matmul(input("b", [5, 4]), { transposeA: true, transposeB: true }),
      3 * 4 * 5,
    ],
    [
      "conv",
      input("a", [2, 3, 8, 8]).conv(input("b", [4, 3, 3, 3]), undefined, { padding: 1 }),
      2 * 4 * 64 * 27,
    ],
    [
      "grouped conv",
      input("a", [1, 4, 5]).conv(input("b", [4, 1, 3]), undefined, { groups: 4 }),
      4 * 3 * 3,
    ],
    [
      "convTranspose",
      input("a", [2, 3, 4]).convTranspose(input("b", [3, 5, 2]), undefined, { stride: 2 }),
      2 * 3 * 4 * 10,
    ],
    [
      "attention",
      attention(input("q", [2, 3, 8]), input("k", [2, 5, 8]), input("v", [2, 5, 6]), { heads: 2 }),
      2 * 3 * 5 * (8 + 6),
    ],
    ["layerNorm", input("a", [2, 3, 4]).layerNorm({ epsilon: 1e-6 }), 2 * 3 * 4],
    ["rmsNorm", input("a", [2, 3, 4]).rmsNorm({ epsilon: 1e-6 }), 2 * 3 * 4],
    ["groupNorm", input("a", [2, 4, 5]).groupNorm(2), 2 * 4 * 5],
    ["elementwise and reductions", input("a", [4]).exp().mul(2).softmax().sum(), 0],
  ])("of %s", (_, y, expected) => {
    expect(countMultiplyAdds(graphOf({ y }))).toBe(expected);
  });

  it("of a backward pass: two more products for each layer, or one if the data needs no gradient", () => {
    const [w1, w2] = [parameter("w1", [7, 10]), parameter("w2", [3, 7])];
    const loss = x.linear(w1).tanh().linear(w2).sum();
    const [d1, d2] = gradient(loss, [w1, w2]) as [Tensor, Tensor];
    expect(countMultiplyAdds(graphOf({ loss, d1, d2 }), 4)).toBe(4 * (2 * 70 + 3 * 21));
  });

  it("of a DiT block by hand", () => {
    const graph = graphOf({ y: ditBlocks({ tokens: 16, hidden: 8, heads: 2, depth: 1 }) });
    expect(countParameters(graph)).toBe(18 * 8 ** 2 + 15 * 8);
    const products = 6 * 8 ** 2 + 16 * 12 * 8 ** 2 + 2 * 16 ** 2 * 8;
    const norms = 2 * 16 * 8;
    expect(countMultiplyAdds(graph, 3)).toBe(3 * (products + norms));
  });

  it("of DiT-XL/2's blocks are the paper's 118.64 Gflops, but for embedding and final layer", () => {
    const config = { tokens: 256, hidden: 1152, heads: 16, depth: 28 };
    const graph = graphOf({ y: ditBlocks(config, true) });
    const counted = countMultiplyAdds(graph, 1);
    const products = 6 * 1152 ** 2 + 256 * 12 * 1152 ** 2 + 2 * 256 ** 2 * 1152;
    expect(counted).toBe(28 * (products + 2 * 256 * 1152));
    expect(Math.abs(counted / 118.64e9 - 1)).toBeLessThan(0.001);
    expect(countParameters(graph)).toBe(28 * (18 * 1152 ** 2 + 15 * 1152));
  });

  it("requires the batch size if it matters", () => {
    const graph = graphOf({ y: x.linear(parameter("w", [5, 10])) });
    expect(() => countMultiplyAdds(graph)).toThrow("depends on the batch size");
  });
});

describe("peakMemory", () => {
  it("of a layer", () => {
    const graph = graphOf({ y: x.linear(parameter("w", [5, 10]), parameter("b", [5])) });
    expect(peakMemory(graph, 2)).toEqual({ weights: 220, inputs: 80, activations: 40, total: 340 });
  });

  it("frees a tensor after its last use", () => {
    // Two of 40 bytes live at a time; three where the first is read again.
    expect(peakMemory(graphOf({ y: x.exp().exp().exp().exp() }), 1).activations).toBe(80);
    const e = x.exp();
    expect(peakMemory(graphOf({ y: e.sin().add(e) }), 1).activations).toBe(120);
    const wide = x.exp().sum().add(1);
    expect(peakMemory(graphOf({ y: wide }), 1).activations).toBe(40 + 4);
  });

  it("keeps the outputs, and counts unread tensors when they are created", () => {
    const e = x.exp();
    expect(peakMemory(graphOf({ e, y: e.sin().cos().sin() }), 1).activations).toBe(120);
    const [first] = x.split([1, 9], 1);
    expect(peakMemory(graphOf({ y: first!.sin().cos() }), 1).activations).toBe(40);
  });

  it("counts reshapes and barriers as the same memory", () => {
    const e = x.exp();
    const renamed = apply("barrier", [e.reshape([batch, 5, 2]), x], {}).reshape([batch, 10]);
    expect(peakMemory(graphOf({ y: renamed }), 1).activations).toBe(40);
    expect(peakMemory(graphOf({ y: e.sin().add(renamed) }), 1).activations).toBe(120);
    expect(peakMemory(graphOf({ y: x.reshape([batch, 5, 2]) }), 1).activations).toBe(0);
  });

  it("counts constants with the weights, in bytes of their dtype", () => {
    const y = constantOf([1, 2, 3], [3], "int64")
      .cast("float16")
      .mul(full([3], 2, "float16"));
    // cast and full: 6 bytes each, and the product.
    expect(peakMemory(graphOf({ y }))).toEqual({
      weights: 24,
      inputs: 0,
      activations: 18,
      total: 42,
    });
  });

  it("includes recomputed blocks", () => {
    const y = recompute([x], (inside) => {
      const e = inside.exp();
      return e
        .sin()
        .add(e)
        .mul(constantOf([2], [1]))
        .sum();
    });
    expect(peakMemory(graphOf({ y }), 1)).toEqual({
      weights: 4,
      inputs: 40,
      activations: 120,
      total: 164,
    });
  });

  it("counts an output that replaces a state in the state's memory, or in a second of its size", () => {
    const w = input("w", [4, 10]);
    const product = x.linear(w).sum();
    const plain = graphOf({ product, next: w.mul(2) });
    expect(peakMemory(plain, 2)).toMatchObject({ inputs: 240, activations: 4 + 4 + 160 });
    // The product may be read after the new value is written, so two buffers take turns.
    expect(peakMemory(plain, 2, { w: "next" })).toMatchObject({ inputs: 400, activations: 36 });
    const after = graphOf({ next: w.mul(product) });
    expect(peakMemory(after, 2, { w: "next" })).toMatchObject({ inputs: 240, activations: 36 });
  });

  it("of training falls with recomputation from all activations to those of one block", () => {
    const config = { tokens: 64, hidden: 32, heads: 4, depth: 12 };
    const plain = peakMemory(ditTraining(config), 16);
    const kept = peakMemory(ditTraining(config, true), 16);
    expect(kept.weights).toBe(plain.weights);
    expect(kept.inputs).toBe(plain.inputs);
    expect(kept.activations).toBeLessThan(plain.activations / 4);
  });
});

describe("estimateMemory", () => {
  const graph = graphOf({ y: x.linear(parameter("w", [5, 10])) });

  it("adds the process to the memory of the graph", () => {
    const { total, ...parts } = estimateMemory(graph, 2);
    expect(parts).toEqual({ weights: 200, inputs: 80, activations: 40 });
    expect(total - 320).toBeGreaterThan(100 * 2 ** 20);
    expect(total - 320).toBeLessThan(150 * 2 ** 20);
  });

  it("counts state twice, since the runtime returns it", () => {
    const size = 2 ** 20;
    const w = input("w", [size]);
    const step = graphOf({ next: w.mul(2) });
    const stateless = estimateMemory(step).total;
    const held = estimateMemory(step, undefined, { w: "next" }).total;
    expect(held - stateless).toBeGreaterThan(4 * size - 1);
  });

  it("follows ONNX Runtime's order: depth first from the last output", () => {
    const wide = (from: Tensor) => from.expand([100, 10]);
    const a = input("a", [10]);
    // Each of these is wide for a moment, and in no order are two wide at once.
    const sums = [1, 2, 3].map((k) => wide(a.mul(k)).exp().sum());
    const outputs = Object.fromEntries(sums.map((sum, i) => [`sum${i}`, sum]));
    expect(estimateMemory(graphOf(outputs)).activations).toBeLessThan(2.5 * 4000);
  });
});
