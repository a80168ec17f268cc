import { describe, expect, it } from "vitest";
import { recompute } from "../../src/engine/graph/recompute.ts";
import { evaluateFloat64 } from "../../src/engine/reference/evaluate.ts";
import { constantOf, full, input, parameter } from "../../src/engine/graph/functional.ts";
import { backpropagate, gradient } from "../../src/engine/gradients/gradient.ts";
import { type Graph, graphOf, leafName, nodesBehind } from "../../src/engine/graph/graph.ts";
import { toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { resolve } from "../../src/engine/graph/shape.ts";
import type { Tensor } from "../../src/engine/graph/tensor.ts";
import { verifyGraph } from "../../src/engine/passes/verify.ts";
import { randomArray } from "../support/arrays.ts";
import { ditTraining } from "../support/models.ts";

/** Random values for all leaves, the same for the same name and shape in any graph. */
function run(graph: Graph, batchSize = 2): Record<string, number[]> {
  const leaves = [...graph.inputs, ...graph.parameters];
  const values = leaves.map((leaf) => {
    const name = leafName(leaf);
    const seed = Array.from(name).reduce((sum, c) => (sum * 31 + c.charCodeAt(0)) % 1e9, 7);
    return [name, randomArray(seed, leaf.dtype, resolve(leaf.shape, batchSize), -1, 1)];
  });
  const found = evaluateFloat64(graph, Object.fromEntries(values));
  return Object.fromEntries(Object.entries(found).map(([name, a]) => [name, toNumbers(a)]));
}

const operands = (x: Tensor) => x.node.inputs;
const opsBehind = (y: Tensor) => nodesBehind([y]).map(({ op }) => op);

describe("a recomputed model", () => {
  const config = { tokens: 3, hidden: 4, heads: 2, depth: 2 };

  it("has exactly the loss and the gradients of the plain model", () => {
    const [plain, kept] = [ditTraining(config), ditTraining(config, true)];
    verifyGraph(plain);
    verifyGraph(kept);
    expect(plain.parameters.map(leafName).sort()).toEqual(kept.parameters.map(leafName).sort());
    const [expected, found] = [run(plain), run(kept)];
    // Gradients are numbered in the order of each graph's own parameters.
    const byName = (graph: Graph, values: Record<string, number[]>) =>
      new Map(graph.parameters.map((p, i) => [leafName(p), values[`gradient${i}`]]));
    expect(found["loss"]).toEqual(expected["loss"]);
    expect(byName(kept, found)).toEqual(byName(plain, expected));
  });

  it("keeps no activation of a block for the backward pass", () => {
    const x = input("x", [2]);
    const y = recompute([x], (inside) => inside.exp().sin());
    const [dx] = gradient(y.sum(), [x]);
    // The forward exp and sin live in the body only; the backward pass makes its own behind a barrier.
    const nodes = nodesBehind([y.sum(), dx!]);
    const again = nodes.filter(({ op }) => op === "exp");
    expect(again).toHaveLength(1);
    expect(again[0]!.inputs[0]!.node.op).toBe("barrier");
    expect(again[0]!.inputs[0]!.node.inputs[0]).toBe(x);
    expect(nodes.filter(({ op }) => op === "recompute")).toHaveLength(1);
  });
});

describe("recompute captures", () => {
  const x = input("x", [2, 2]);

  it("older tensors and weights, once each, wherever they were created", () => {
    const outside = input("outside", [2]).exp();
    const y = recompute([x], (inside) => {
      const w = parameter("w", [2, 2]);
      return inside.linear(w).add(outside).linear(w).mul(outside);
    });
    expect(operands(y).map(({ node }) => node.op)).toEqual(["input", "exp", "parameter"]);
    expect(graphOf({ y }).parameters.map(leafName)).toEqual(["w"]);
    verifyGraph(graphOf({ y }));
  });

  it("inputs created inside", () => {
    const y = recompute([x], (inside) => inside.add(input("late", [2])));
    expect(graphOf({ y }).inputs.map(leafName)).toEqual(["x", "late"]);
    verifyGraph(graphOf({ y }));
  });

  it("but not constants created inside", () => {
    const y = recompute([x], (inside) => inside.add(constantOf([1, 2], [2])).mul(3));
    expect(operands(y)).toEqual([x]);
  });

  it("a tensor that is also an argument", () => {
    const y = recompute([x], (inside) => inside.mul(x));
    expect(operands(y)).toEqual([x, x]);
    const plain = x.mul(x);
    expect(run(graphOf({ y, dx: gradient(y.sum(), [x])[0]! }))).toEqual(
      run(graphOf({ y: plain, dx: gradient(plain.sum(), [x])[0]! })),
    );
  });

  it("everything, without arguments", () => {
    const w = parameter("w", [2]);
    const y = recompute([], () => w.exp().mul(w));
    expect(operands(y)).toEqual([w]);
    expect(opsBehind(y)).toEqual(["parameter", "recompute"]);
    const plain = w.exp().mul(w);
    expect(run(graphOf({ y, dw: gradient(y.sum(), [w])[0]! }))).toEqual(
      run(graphOf({ y: plain, dw: gradient(plain.sum(), [w])[0]! })),
    );
  });

  it("tensors that an inner block captures from outside both", () => {
    const outside = x.exp();
    const y = recompute([x], (a) => recompute([a.mul(2)], (b) => b.mul(outside).mul(a)));
    expect(operands(y)).toEqual([x, outside]);
    const plain = x.mul(2).mul(outside).mul(x);
    expect(run(graphOf({ y, dx: gradient(y.sum(), [x])[0]! }))).toEqual(
      run(graphOf({ y: plain, dx: gradient(plain.sum(), [x])[0]! })),
    );
  });
});

describe("a block", () => {
  const x = input("x", [3]);

  it("may return its input", () => {
    const y = recompute([x], (inside) => inside);
    verifyGraph(graphOf({ y }));
    expect(run(graphOf({ dx: gradient(y.sum(), [x])[0]! }))["dx"]).toEqual([1, 1, 1]);
  });

  it("may return a tensor created before it", () => {
    const before = x.exp();
    const y = recompute([x], () => before);
    verifyGraph(graphOf({ y }));
    expect(run(graphOf({ y }))).toEqual(run(graphOf({ y: before })));
  });

  it("may ignore an input, whose gradient is then zero", () => {
    const other = input("other", [3]);
    const y = recompute([x, other], (inside) => inside.exp());
    expect(run(graphOf({ d: gradient(y.sum(), [other])[0]! }))["d"]).toEqual([0, 0, 0]);
  });

  it("may be differentiated with respect to captured tensors alone", () => {
    const w = parameter("w", [3]);
    const y = recompute([x], (inside) => inside.mul(w).mul(w));
    const [dw] = backpropagate([y], [full([3], 1)], [w]);
    const expected = graphOf({ dw: x.mul(w).mul(2) });
    expect(run(graphOf({ dw: dw! }))).toEqual(run(expected));
  });
});
