import { describe, expect, it } from "vitest";
import { ndarray, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { jvp } from "../../src/engine/gradients/jvp.ts";
import { attention, input } from "../../src/engine/graph/functional.ts";
import { graphOf } from "../../src/engine/graph/graph.ts";
import type { Tensor } from "../../src/engine/graph/tensor.ts";
import { evaluateFloat64 } from "../../src/engine/reference/evaluate.ts";
import { randomArray } from "../support/arrays.ts";

describe("jvp", () => {
  /** A block with the parts of a transformer: x [1, 3, 4] and t [1] → [1, 3, 4]. */
  const block = (x: Tensor, t: Tensor) => {
    const normed = x.rmsNorm().mul(t.mul(3).sin().add(2));
    const mixed = attention(normed, x, normed.tanh(), { heads: 2 });
    return mixed.silu().add(x.layerNorm()).div(t.clamp(0.05, 1)).gelu("tanh");
  };
  const [x, t] = [input("x", [1, 3, 4]), input("t", [1])];
  const along = [input("dx", [1, 3, 4]), input("dt", [1])] as const;
  const values = {
    x: randomArray(1, "float64", [1, 3, 4]),
    t: ndarray("float64", [1], [0.4]),
    dx: randomArray(2, "float64", [1, 3, 4]),
    dt: ndarray("float64", [1], [0.7]),
  };

  it("is the limit of differences along a direction", () => {
    const { slope } = evaluateFloat64(graphOf({ slope: jvp(block(x, t), [x, t], along) }), values);
    const at = (step: number) => {
      const moved = block(x.add(along[0].mul(step)), t.add(along[1].mul(step)));
      return toNumbers(evaluateFloat64(graphOf({ moved }), values)["moved"]!);
    };
    const step = 1e-5;
    const [before, after] = [at(-step), at(step)];
    for (const [i, value] of toNumbers(slope!).entries()) {
      expect(value).toBeCloseTo((after[i]! - before[i]!) / (2 * step), 6);
    }
  });

  it("leaves no trace of the reverse pass that it is made of", () => {
    const y = x.mul(t).sin();
    const { dt: _, ...read } = values;
    const { slope } = evaluateFloat64(graphOf({ slope: jvp(y, [x], [along[0]]) }), read);
    const want = toNumbers(values.x).map(
      (value, i) => Math.cos(value * 0.4) * 0.4 * toNumbers(values.dx)[i]!,
    );
    for (const [i, value] of toNumbers(slope!).entries()) expect(value).toBeCloseTo(want[i]!, 12);
  });

  it("refuses directions that do not fit, and tensors that are made of each other", () => {
    const y = block(x, t);
    expect(() => jvp(y, [x], [along[1]])).toThrow("the direction of a float32 [1, 3, 4] is");
    expect(() => jvp(y, [x, t], [along[0]])).toThrow("1 directions for 2 tensors");
    expect(() => jvp(y, [x, x.mul(2)], [along[0], along[0]])).toThrow("computed from another");
  });
});
