import { describe, expect, it } from "vitest";
import { toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { input } from "../../src/engine/graph/functional.ts";
import { graphOf } from "../../src/engine/graph/graph.ts";
import { evaluateFloat64 } from "../../src/engine/reference/evaluate.ts";
import { groupedQueryAttention } from "../../src/nn/attention.ts";
import { createParams, zero } from "../../src/nn/params.ts";
import { randomArray } from "../support/arrays.ts";

describe("groupedQueryAttention", () => {
  it("gives each group of neighbouring query heads one head of keys and values", () => {
    const [tokens, width, headSize] = [5, 6, 4];
    const options = { heads: 4, keyHeads: 2, headSize };
    const shapes = {
      "q_proj.weight": [16, width],
      "k_proj.weight": [8, width],
      "v_proj.weight": [8, width],
      "o_proj.weight": [width, 16],
    };
    const arrays = Object.fromEntries(
      Object.entries(shapes).map(([name, shape], i) => [name, randomArray(i, "float32", shape)]),
    );
    const values = { ...arrays, x: randomArray(9, "float32", [1, tokens, width]) };
    const x = input("x", [1, tokens, width]);
    const params = createParams();
    const got = groupedQueryAttention(params, x, options);

    // Written out, head by head, with head h of the queries on head ⌊h/2⌋ of keys and values.
    const weight = (name: keyof typeof shapes) => params.param(name, shapes[name], zero);
    const part = (name: keyof typeof shapes, head: number) =>
      x.linear(weight(name).slice(0, head * headSize, (head + 1) * headSize));
    const want = [0, 1, 2, 3]
      .map((head) => {
        const scores = part("q_proj.weight", head)
          .matmul(part("k_proj.weight", Math.floor(head / 2)), { transposeB: true })
          .div(Math.sqrt(headSize));
        const mixed = scores.softmax().matmul(part("v_proj.weight", Math.floor(head / 2)));
        return mixed.linear(
          weight("o_proj.weight").slice(1, head * headSize, (head + 1) * headSize),
        );
      })
      .reduce((sum, each) => sum.add(each));
    const result = evaluateFloat64(graphOf({ got, want }), values);
    for (const [i, value] of toNumbers(result["got"]!).entries()) {
      expect(value).toBeCloseTo(toNumbers(result["want"]!)[i]!, 10);
    }
  });
});
