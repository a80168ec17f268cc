import { describe, expect, it } from "vitest";
import { ShapeError } from "../../src/engine/errors.ts";
import { evaluate, evaluateFloat64 } from "../../src/engine/reference/evaluate.ts";
import {
  attention,
  constantOf,
  detach,
  full,
  input,
  parameter,
  where,
} from "../../src/engine/graph/functional.ts";
import { backpropagate, gradient } from "../../src/engine/gradients/gradient.ts";
import { graphOf, is } from "../../src/engine/graph/graph.ts";
import { ndarray, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { batch } from "../../src/engine/graph/shape.ts";
import type { Tensor } from "../../src/engine/graph/tensor.ts";

/** dy/dx of Σ f(x) at given numbers. */
function slopes(f: (x: Tensor) => Tensor, at: readonly number[]): number[] {
  const x = input("x", [at.length], "float64");
  const graph = graphOf({ dx: gradient(f(x).sum(), [x])[0]! });
  const given = graph.inputs.length > 0 ? { x: ndarray("float64", [at.length], at) } : {};
  return toNumbers(evaluateFloat64(graph, given)["dx"]!);
}

describe("gradient", () => {
  const x = input("x", [2, 3]);

  it("is zero for tensors that the loss does not depend on", () => {
    const [unused, used] = [parameter("unused", [batch, 4], "float16"), parameter("w", [3])];
    const [a, b] = gradient(x.mul(used).sum(), [unused, used]) as [Tensor, Tensor];
    expect(is(a.node, "full") && a.node.attributes).toEqual({
      value: 0,
      shape: [batch, 4],
      dtype: "float16",
    });
    expect(b.shape).toEqual([3]);
  });

  it("is zero through ops without a slope", () => {
    for (const f of ["sign", "floor", "ceil", "round"] as const) {
      expect(slopes((t) => t[f](), [-1.3, 0.2, 1.7])).toEqual([0, 0, 0]);
    }
    expect(slopes((t) => detach(t), [1.5])).toEqual([0]);
    expect(slopes((t) => t.cast("int64").cast("float64"), [1.5])).toEqual([0]);
    expect(slopes((t) => t.less(1).cast("float64"), [0.5])).toEqual([0]);
  });

  it("of a loss for itself is one", () => {
    const loss = x.sum();
    expect(toNumbers(evaluate(graphOf({ d: gradient(loss, [loss])[0]! }), {})["d"]!)).toEqual([1]);
  });

  it("is also available for intermediate tensors", () => {
    const middle = x.mul(2);
    const loss = middle.mul(middle).sum();
    const graph = graphOf({ d: gradient(loss, [middle])[0]! });
    const given = { x: ndarray("float32", [2, 3], [1, 2, 3, 4, 5, 6]) };
    expect(toNumbers(evaluate(graph, given)["d"]!)).toEqual([4, 8, 12, 16, 20, 24]);
  });

  it("sums the gradients of several outputs", () => {
    const [a, b] = [x.mul(2), x.mul(3)];
    const [dx] = backpropagate([a, b], [full([2, 3], 1), full([2, 3], 10)], [x]);
    expect(new Set(toNumbers(evaluate(graphOf({ dx: dx! }), {})["dx"]!))).toEqual(new Set([32]));
  });

  it("accepts a scalar cotangent for a whole output", () => {
    const [dx] = backpropagate([x.mul(2)], [full([], 1)], [x]);
    expect(dx!.shape).toEqual([2, 3]);
  });

  it.each([
    ["float32 [2, 3]", x],
    ["int64 []", input("i", [], "int64")],
  ])("refuses a loss that is %s", (type, loss) => {
    expect(() => gradient(loss, [x])).toThrow(ShapeError);
    expect(() => gradient(loss, [x])).toThrow(`the loss is ${type}, expected a float scalar`);
  });

  it("has any order: the derivatives of tanh up to the fourth", () => {
    const t = input("t", [], "float64");
    const orders = [t.tanh()];
    for (let i = 0; i < 4; i++) orders.push(gradient(orders[i]!, [t])[0]!);
    const graph = graphOf(Object.fromEntries(orders.map((y, i) => [i, y])));
    const found = evaluateFloat64(graph, { t: ndarray("float64", [], [0.7]) });
    const y = Math.tanh(0.7);
    const s = 1 - y * y;
    const expected = [y, s, -2 * y * s, s * (6 * y * y - 2), s * (16 * y - 24 * y ** 3)];
    for (const [i, value] of expected.entries()) {
      expect(toNumbers(found[i]!)[0]).toBeCloseTo(value, 12);
    }
  });
});

describe("slopes at the edges", () => {
  it("are shared by equal largest elements", () => {
    expect(slopes((t) => t.max(), [3, 1, 3])).toEqual([0.5, 0, 0.5]);
  });
  it("go to the first of two equal operands", () => {
    expect(slopes((t) => t.maximum(0), [-1, 0, 1])).toEqual([0, 1, 1]);
    expect(slopes((t) => t.minimum(0), [-1, 0, 1])).toEqual([1, 1, 0]);
  });
  it("of relu and abs are zero at zero", () => {
    expect(slopes((t) => t.relu(), [-1, 0, 2])).toEqual([0, 0, 1]);
    expect(slopes((t) => t.abs(), [-2, 0, 2])).toEqual([-1, 0, 1]);
  });
  it("of whole powers are those of polynomials, also at zero", () => {
    expect(slopes((t) => t.pow(0), [0, -1, 2])).toEqual(
      [0, 0, 0].map((zero) => expect.closeTo(zero)),
    );
    expect(slopes((t) => t.pow(1), [0, -1, 2])).toEqual([1, 1, 1]);
    expect(slopes((t) => t.pow(2), [0, -1, 2])).toEqual([0, -2, 4]);
    expect(slopes((t) => t.pow(3), [0, -1, 2])).toEqual([0, 3, 12]);
  });
  it("of 0^b in b is zero", () => {
    expect(slopes((t) => full([1], 0, "float64").pow(t), [2])).toEqual([0]);
  });
  it.each<[string, (t: Tensor) => Tensor]>([
    ["gelu", (t) => t.gelu()],
    ["gelu by tanh", (t) => t.gelu("tanh")],
    ["silu", (t) => t.silu()],
    ["sigmoid", (t) => t.sigmoid()],
    ["tanh", (t) => t.tanh()],
    ["erf", (t) => t.erf()],
    ["softmax", (t) => t.softmax().mul(t)],
    ["logSoftmax", (t) => t.logSoftmax()],
    ["layerNorm", (t) => t.layerNorm().mul(t)],
    ["rmsNorm", (t) => t.rmsNorm()],
  ])("of %s stay finite far out, to the second order", (_, f) => {
    const far = [-1e4, -800, -50, 0, 50, 800, 1e4];
    expect(slopes(f, far).every(Number.isFinite)).toBe(true);
    const second = (t: Tensor) => {
      const x = t.mul(1);
      return gradient(f(x).sum(), [x])[0]!;
    };
    expect(slopes(second, far).every(Number.isFinite)).toBe(true);
  });
  it("of a norm stay finite for constant input", () => {
    expect(slopes((t) => t.layerNorm(), [3, 3, 3]).every(Number.isFinite)).toBe(true);
    expect(slopes((t) => t.rmsNorm(), [0, 0, 0]).every(Number.isFinite)).toBe(true);
    const groups = (t: Tensor) => t.reshape([1, 1, 3]).groupNorm(1);
    expect(slopes(groups, [3, 3, 3]).every(Number.isFinite)).toBe(true);
  });
  it("do not flow through a mask of minus infinity", () => {
    const hidden = constantOf([0, 1, 0], [3], "bool");
    const minus = full([], -Infinity, "float64");
    expect(slopes((t) => where(hidden, minus, t).softmax().mul(t), [1, 2, 3])[1]).toBe(0);
    const bias = constantOf([0, -Infinity, 0], [3], "float64");
    const attend = (t: Tensor) => {
      const tokens = t.reshape([1, 3, 1]);
      return attention(tokens, tokens, tokens.mul(tokens), { heads: 1, bias });
    };
    expect(slopes(attend, [1, 2, 3]).every(Number.isFinite)).toBe(true);
  });
  it("are cast back to the dtype of the input", () => {
    const half = input("half", [2], "float16");
    const [d] = gradient(
      half
        .cast("float32")
        .mul(constantOf([0.1, 3], [2]))
        .sum(),
      [half],
    );
    expect(d!.dtype).toBe("float16");
    const found = evaluate(graphOf({ d: d! }), {});
    expect(toNumbers(found["d"]!)).toEqual([0.0999755859375, 3]);
  });
});
