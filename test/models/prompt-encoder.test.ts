import { describe, expect, it } from "vitest";
import { evaluateFloat64 } from "../../src/engine/reference/evaluate.ts";
import { input } from "../../src/engine/graph/functional.ts";
import { gradient } from "../../src/engine/gradients/gradient.ts";
import { graphOf } from "../../src/engine/graph/graph.ts";
import { type NdArray, ndarray, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { batch, resolve } from "../../src/engine/graph/shape.ts";
import {
  promptEncoder,
  type PromptEncoderConfig,
} from "../../src/models/text-encoders/prompt-encoder.ts";
import { promptEncoderSchema } from "../../src/models/text-encoders/prompt-encoder.ts";
import { createParams } from "../../src/nn/params.ts";
import { randomArray } from "../support/arrays.ts";
import { finiteDifferences, runWith } from "../support/finite-differences.ts";

const config: PromptEncoderConfig = {
  vocabulary: 7,
  wordWidth: 3,
  width: 4,
  depth: 2,
  heads: 2,
  length: 4,
};

const params = createParams();
const inputs = {
  ids: input("ids", [batch, 4], "int64"),
  mask: input("mask", [batch, 4], "bool"),
};
const output = promptEncoder(params, inputs.ids, inputs.mask, config); // [B, 4, 4]
const weights = Object.fromEntries(
  [...params.declared].map(([name, { tensor }], i) => [
    name,
    randomArray(20 + i, "float64", resolve(tensor.shape, undefined), -1, 1),
  ]),
);

const ints = (values: readonly number[]) => ndarray("int64", [values.length / 4, 4], values);
const bools = (values: readonly number[]) => ndarray("bool", [values.length / 4, 4], values);
const given = { ids: ints([1, 2, 3, 0, 4, 5, 0, 0]), mask: bools([1, 1, 1, 0, 1, 1, 0, 0]) };

/** The tokens of each prompt, as lists of numbers. */
function tokensOf(changed: Record<string, NdArray> = {}): number[][][] {
  const values = { ...given, ...weights, ...changed };
  const flat = toNumbers(evaluateFloat64(graphOf({ output }), values)["output"]!);
  const rows = Array.from({ length: flat.length / 4 }, (_, i) => flat.slice(4 * i, 4 * i + 4));
  return Array.from({ length: rows.length / 4 }, (_, i) => rows.slice(4 * i, 4 * i + 4));
}

describe("promptEncoder", () => {
  it("gives every token of every prompt the width of the model", () => {
    expect(output.shape).toEqual([batch, 4, 4]);
    expect([...params.declared.keys()].slice(0, 3)).toEqual([
      "words",
      "projection.weight",
      "projection.bias",
    ]);
  });

  it("ignores padding", () => {
    const [first, second] = tokensOf();
    const [other, another] = tokensOf({ ids: ints([1, 2, 3, 6, 4, 5, 6, 2]) });
    expect(other!.slice(0, 3)).toEqual(first!.slice(0, 3));
    expect(another!.slice(0, 2)).toEqual(second!.slice(0, 2));
  });

  it("lets each token attend to all tokens of its prompt, and to no other prompt", () => {
    const [first, second] = tokensOf();
    for (const [place, ids] of [
      [1, 2, 6, 0],
      [6, 2, 3, 0],
    ].entries()) {
      const [other, same] = tokensOf({ ids: ints([...ids, 4, 5, 0, 0]) });
      for (const token of [0, 1, 2]) expect(other![token], `${place}`).not.toEqual(first![token]);
      expect(same).toEqual(second);
    }
  });

  it("depends on the order of words", () => {
    const [first] = tokensOf();
    const [other] = tokensOf({ ids: ints([2, 1, 3, 0, 4, 5, 0, 0]) });
    const apart = first![2]!.map((x, i) => Math.abs(x - other![2]![i]!));
    expect(Math.max(...apart)).toBeGreaterThan(1e-3);
  });

  it("gives finite outputs for an empty prompt", () => {
    const [empty] = tokensOf({ mask: bools([0, 0, 0, 0, 1, 1, 0, 0]) });
    expect(empty!.flat().every(Number.isFinite)).toBe(true);
  });

  it("has the same gradients as finite differences", () => {
    const target = randomArray(3, "float64", [2, 4, 4]);
    const wanted = input("target", [batch, 4, 4], "float32");
    const keep = inputs.mask.cast("float32").unsqueeze(-1);
    const loss = output.sub(wanted).mul(keep).square().mean();
    const leaves = [...params.declared.values()].map(({ tensor }) => tensor);
    const values = { ...given, ...weights, target };
    const gradients = graphOf(
      Object.fromEntries(gradient(loss, leaves).map((g, i) => [`g${i}`, g])),
    );
    const found = runWith(gradients, values);
    for (const [i, leaf] of leaves.entries()) {
      const expected = finiteDifferences(loss, leaf, values);
      toNumbers(found[`g${i}`]!).forEach((x, j) => expect(x).toBeCloseTo(expected[j]!, 9));
    }
    expect(leaves).toHaveLength(3 + 2 * 10 + 1);
  });

  it("looks words up by gather if their table is not trained", () => {
    const loss = output.square().mean();
    const rest = [...params.declared].flatMap(([name, { tensor }]) =>
      name === "words" ? [] : [tensor],
    );
    const opsOf = (leaves: typeof rest) =>
      graphOf(Object.fromEntries(gradient(loss, leaves).map((g, i) => [`g${i}`, g]))).nodes.map(
        ({ op }) => op,
      );
    expect(opsOf(rest)).not.toContain("scatterSum");
    expect(opsOf([params.declared.get("words")!.tensor])).toContain("scatterSum");
  });

  it("computes the same in ONNX Runtime", async () => {
    const float32 = Object.fromEntries(
      Object.entries(weights).map(([name, array]) => [
        name,
        ndarray("float32", array.shape, toNumbers(array)),
      ]),
    );
    const expected = toNumbers(
      evaluateFloat64(graphOf({ output }), { ...given, ...float32 })["output"]!,
    );
    const program = await nodeBackend("cpu").compile(graphOf({ output }));
    const found = toNumbers((await program.run({ ...given, ...float32 }))["output"]!);
    await program.dispose();
    const apart = found.map((x, i) => Math.abs(x - expected[i]!));
    expect(Math.max(...apart)).toBeLessThan(5e-6);
  });
});

describe("promptEncoderSchema", () => {
  it("accepts a complete config", () => {
    expect(promptEncoderSchema.parse(config)).toEqual(config);
  });

  it("refuses head widths that do not suit rotary positions", () => {
    const { error } = promptEncoderSchema.safeParse({ ...config, heads: 4 });
    expect(error?.issues[0]).toMatchObject({
      path: ["heads"],
      message: "4 heads do not divide the width 4 into even parts, which rotary positions need",
    });
  });
});
