import { describe, expect, it } from "vitest";
import { recompute } from "../../src/engine/graph/recompute.ts";
import { constantOf, full, input, parameter } from "../../src/engine/graph/functional.ts";
import { graphOf } from "../../src/engine/graph/graph.ts";
import { hashGraph } from "../../src/engine/passes/hash.ts";
import { ndarray } from "../../src/engine/arrays/ndarray.ts";
import { batch, batchTimes } from "../../src/engine/graph/shape.ts";
import { apply, type Tensor } from "../../src/engine/graph/tensor.ts";
import { ditTraining } from "../support/models.ts";

const hash = (outputs: Tensor | Record<string, Tensor>) =>
  hashGraph(graphOf("node" in outputs ? { y: outputs as Tensor } : outputs));
const x = input("x", [batch, 6]);
const y = input("y", [batch, 6]);

describe("hashGraph", () => {
  it("is 128 bits in hexadecimal", () => {
    expect(hash(x.exp())).toMatch(/^[0-9a-f]{32}$/);
  });

  it("is the same for the same model made again", () => {
    const config = { tokens: 2, hidden: 4, heads: 2, depth: 2 };
    const first = hashGraph(ditTraining(config, true));
    expect(hashGraph(ditTraining(config, true))).toBe(first);
    expect(hashGraph(ditTraining(config))).not.toBe(first);
    expect(hashGraph(ditTraining({ ...config, depth: 3 }, true))).not.toBe(first);
  });

  it("does not depend on the order in which nodes and outputs were made", () => {
    const [e1, s1] = [x.exp(), y.sin()];
    const [s2, e2] = [y.sin(), x.exp()];
    expect(hash({ a: e1.sub(s1), b: s1 })).toBe(hash({ b: s2, a: e2.sub(s2) }));
  });

  it("does not depend on the memory that a constant lies in", () => {
    const wide = new Float32Array([9, 1, 2, 9]);
    const inside = apply("constant", [], { value: ndarray("float32", [2], wide.subarray(1, 3)) });
    expect(hash(inside)).toBe(hash(constantOf([1, 2], [2])));
  });

  const bytes = (values: number[]) => constantOf(values, [values.length], "uint8");
  const variants: readonly (readonly [string, Tensor | Record<string, Tensor>])[] = [
    ["an op", x.exp()],
    ["another op", x.sin()],
    ["an op twice", x.exp().exp()],
    ["two outputs", { y: x.exp(), z: x.exp().exp() }],
    ["two outputs swapped", { z: x.exp(), y: x.exp().exp() }],
    ["another name of the output", { z: x.exp() }],
    ["another leaf", y.exp()],
    ["another shape of the leaf", input("x", [batch, 7]).exp()],
    ["another batch of the leaf", input("x", [batchTimes(2), 6]).exp()],
    ["a number in place of the batch", input("x", [1, 6]).exp()],
    ["another dtype of the leaf", input("x", [batch, 6], "float16").exp()],
    ["a parameter in place of the input", parameter("x", [batch, 6]).exp()],
    ["operands", x.sub(y)],
    ["operands swapped", y.sub(x)],
    ["one operand twice", x.sub(x)],
    ["an attribute", x.softmax(0)],
    ["another value of the attribute", x.softmax(1)],
    ["a flag", x.gelu("none")],
    ["another flag", x.gelu("tanh")],
    ["the first of two outputs of a node", x.split(2, 1)[0]!],
    ["the second of two outputs of a node", x.split(2, 1)[1]!],
    ["a reshape to the batch", x.reshape([batchTimes(6)])],
    ["a reshape to two axes", x.reshape([batchTimes(2), 3])],
    ["0", full([], 0)],
    ["-0", full([], -0)],
    ["NaN", full([], NaN)],
    ["infinity", full([], Infinity)],
    ["minus infinity", full([], -Infinity)],
    ["a constant", constantOf([1, 2], [2])],
    ["another element", constantOf([1, 3], [2])],
    ["other places of the elements", constantOf([2, 1], [2])],
    ["another shape of the constant", constantOf([1, 2], [2, 1])],
    ["another dtype of the constant", constantOf([1, 2], [2], "int32")],
    ...[[1], [1, 0], [1, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0, 0], [0, 1], [0, 0, 0, 0, 1]].map(
      (values) => [`the bytes ${values.join()}`, bytes(values)] as const,
    ),
    ["a block", recompute([x], (inside) => inside.exp().sin())],
    ["another block", recompute([x], (inside) => inside.sin().exp())],
    ["a block that ignores an input", recompute([x, y], (inside) => inside.exp().sin())],
    ["the block without recomputation", x.exp().sin()],
    ["a barrier", apply("barrier", [x, y], {})],
  ];

  it("differs wherever what is computed differs", () => {
    const seen = new Map<string, string>();
    for (const [name, outputs] of variants) {
      const found = hash(outputs);
      expect(seen.get(found), `${name} hashes like ${seen.get(found)}`).toBeUndefined();
      seen.set(found, name);
    }
  });

  it("spreads a change of one bit over all of it", () => {
    const bits = (text: string) =>
      Array.from(text, (digit) => Number.parseInt(digit, 16).toString(2).padStart(4, "0")).join("");
    const flips = new Array<number>(128).fill(0);
    const samples = 400;
    for (let i = 0; i < samples; i++) {
      const values = Array.from({ length: 13 }, (_, j) => (i * 31 + j * 17) % 256);
      const changed = values.with(i % 13, values[i % 13]! ^ (1 << (i % 8)));
      const [a, b] = [bits(hash(bytes(values))), bits(hash(bytes(changed)))];
      for (let bit = 0; bit < 128; bit++) flips[bit]! += a[bit] === b[bit] ? 0 : 1;
    }
    // Half of 400 flips, five standard deviations of √(400/4) = 10 to either side.
    for (const count of flips) expect(Math.abs(count - samples / 2)).toBeLessThan(50);
  });
});
