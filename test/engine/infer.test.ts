import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { isFloat } from "../../src/engine/arrays/ndarray.ts";
import { ShapeError } from "../../src/engine/errors.ts";
import { evaluate, evaluateFloat64, evaluateNode } from "../../src/engine/reference/evaluate.ts";
import {
  attention,
  concat,
  full,
  input,
  parameter,
  where,
} from "../../src/engine/graph/functional.ts";
import { graphOf } from "../../src/engine/graph/graph.ts";
import type { OpName } from "../../src/engine/graph/ops.ts";
import { graphToString } from "../../src/engine/graph/print.ts";
import { batch, isStatic, resolve, type Shape } from "../../src/engine/graph/shape.ts";
import { apply, applyMany } from "../../src/engine/graph/tensor.ts";
import { verifyGraph } from "../../src/engine/passes/verify.ts";
import { randomArray } from "../support/arrays.ts";
import { drawer, opSamples } from "../support/op-samples.ts";

const float = (shape: Shape) => input("x", shape);
const other = (shape: Shape) => input("y", shape);
const int = (shape: Shape) => input("i", shape, "int64");
const bool = (shape: Shape) => input("c", shape, "bool");

/** Draws a node of the op on new leaves, and values for a drawn batch size. */
function drawNode(op: OpName, g: fc.GeneratorValue) {
  const draw = drawer(g);
  const { inputs, attributes } = opSamples[op](draw);
  const leaves = inputs.map(({ shape, dtype }, i) => input(`x${i}`, shape, dtype));
  const outputs = applyMany(op, leaves, attributes);
  const batchSize = draw.int(0, 3);
  const values = inputs.map(({ shape, dtype, low, high }, i) =>
    randomArray(i, dtype, resolve(shape, batchSize), low, high),
  );
  return { leaves, outputs, batchSize, values };
}

describe.each(Object.keys(opSamples) as OpName[])("%s", (op) => {
  it("evaluates to the shapes and dtypes that were inferred", () => {
    fc.assert(
      fc.property(fc.gen(), (g) => {
        const { outputs, batchSize, values } = drawNode(op, g);
        const { node } = outputs[0]!;
        if (op === "input" || op === "parameter") return;
        const arrays = evaluateNode(node, values, batchSize);
        for (const [i, { dtype, shape }] of outputs.entries()) {
          const expected = resolve(shape, batchSize);
          expect(arrays[i]!.shape).toEqual(expected);
          expect(arrays[i]!.data).toHaveLength(expected.reduce((a, b) => a * b, 1));
          expect(arrays[i]!.dtype).toBe(isFloat(dtype) ? "float64" : dtype);
        }
      }),
    );
  });

  it("makes a graph that passes, prints and runs", () => {
    fc.assert(
      fc.property(fc.gen(), (g) => {
        const { leaves, outputs, batchSize, values } = drawNode(op, g);
        const graph = graphOf(Object.fromEntries(outputs.map((t, i) => [i, t])));
        verifyGraph(graph);
        expect(graphToString(graph)).toContain("return 0: ");
        const batched = leaves.some(({ shape }) => !isStatic(shape));
        if (leaves.length === 0 || (!batched && !outputs.every(({ shape }) => isStatic(shape))))
          return;
        const given = Object.fromEntries(values.map((array, i) => [`x${i}`, array]));
        const [rounded, exact] = [evaluate(graph, given), evaluateFloat64(graph, given)];
        for (const [i, { dtype, shape }] of outputs.entries()) {
          expect(rounded[i]!.dtype).toBe(dtype);
          expect(rounded[i]!.shape).toEqual(resolve(shape, batchSize));
          expect(exact[i]!.shape).toEqual(rounded[i]!.shape);
        }
      }),
      { numRuns: 30 },
    );
  });
});

describe("a shape error", () => {
  const weight = parameter("blocks.3.attn.qkv.weight", [1024, 320]);
  const at = "(at blocks.3.attn.qkv)";

  it.each<[string, () => unknown]>([
    [
      `matmul: [2, 77, 768] × [1024, 320]: inner sizes 768 and 1024 differ ${at}`,
      () => float([2, 77, 768]).matmul(weight),
    ],
    [
      `matmul: [768, 2]ᵀ × [1024, 320]ᵀ: inner sizes 768 and 320 differ ${at}`,
      () => float([768, 2]).matmul(weight, { transposeA: true, transposeB: true }),
    ],
    [
      `linear: [B, 77, 768] × weight [1024, 320]: the last size 768 is not the weight's 320 ${at}`,
      () => float([batch, 77, 768]).linear(weight),
    ],
    [`add: [2, 3] and [1024, 320] do not broadcast ${at}`, () => float([2, 3]).add(weight)],
    // What comes after a layer is named by it, too.
    [`add: [1024, 320] and [7] do not broadcast ${at}`, () => weight.exp().add(float([7]))],
  ])("says %s", (message, make) => {
    expect(make).toThrow(new ShapeError(message));
  });

  it.each<[OpName, string, () => unknown]>([
    ["input", "[2, -1] has the size -1", () => float([2, -1])],
    ["parameter", "[2.5] has the size 2.5", () => parameter("w", [2.5])],
    ["full", "[NaN] has the size NaN", () => full([NaN], 0)],
    ["exp", "expected a float dtype, got int64", () => int([2]).exp()],
    ["neg", "expected numbers, got bool", () => bool([2]).neg()],
    ["add", "dtypes float32 and int64 differ; cast one of them", () => float([2]).add(int([2]))],
    ["mul", "expected numbers, got bool; cast first, or use and/or", () => bool([2]).mul(bool([]))],
    ["less", "[2, 3] and [2] do not broadcast", () => float([2, 3]).less(other([2]))],
    ["add", "[B, 3] and [4, 3] do not broadcast", () => float([batch, 3]).add(other([4, 3]))],
    ["not", "expected dtype bool, got float32", () => float([]).not()],
    ["and", "expected dtype bool, got int64", () => bool([]).and(int([]))],
    ["where", "expected dtype bool, got float32", () => where(float([]), other([]), other([]))],
    ["where", "[3] and [2] do not broadcast", () => where(bool([3]), float([2]), other([1]))],
    ["sum", "expected numbers, got bool; cast first", () => bool([2]).sum()],
    ["sum", "axes [1, 1] contain an axis twice", () => float([2, 3]).sum([1, 1])],
    ["mean", "expected a float dtype, got int64", () => int([2]).mean()],
    ["cumsum", "expected numbers, got bool; cast first", () => bool([2]).cumsum(0)],
    [
      "softmax",
      "axis 0 does not exist in 0 dimensions",
      () => apply("softmax", [float([])], { axis: 0 }),
    ],
    ["matmul", "[3] has 1 dimensions, expected at least 2", () => float([3]).matmul(other([3, 2]))],
    ["matmul", "[2] and [3] do not broadcast", () => float([2, 1, 1]).matmul(other([3, 1, 1]))],
    ["linear", "weight is [3], expected [out, in]", () => float([3]).linear(other([3]))],
    [
      "linear",
      "bias is float32 [3], expected float32 [4]",
      () => float([3]).linear(other([4, 3]), input("b", [3])),
    ],
    [
      "linear",
      "bias is float16 [4], expected float32 [4]",
      () => float([3]).linear(other([4, 3]), input("b", [4], "float16")),
    ],
    ["reshape", "[2, 3] does not hold as many elements as [4]", () => float([2, 3]).reshape([4])],
    [
      "reshape",
      "[B, 3] does not hold as many elements as [2, 3]",
      () => float([batch, 3]).reshape([2, 3]),
    ],
    ["reshape", "has the size -1", () => float([6]).reshape([-1, -1])],
    ["reshape", "has the size -1", () => float([2, 3]).reshape([4, -1])],
    [
      "transpose",
      "[0, 0] is not a permutation of the axes of [2, 3]",
      () => float([2, 3]).transpose([0, 0]),
    ],
    ["expand", "[2, 3] does not expand to [2, 4]", () => float([2, 3]).expand([2, 4])],
    ["expand", "[2, 3] does not expand to [3]", () => float([2, 3]).expand([3])],
    [
      "concat",
      "[2, 3], [3, 3] differ outside of axis 1",
      () => concat([float([2, 3]), other([3, 3])], 1),
    ],
    [
      "concat",
      "[B], [2] mix the batch with a number on axis 0",
      () => concat([float([batch]), other([2])], 0),
    ],
    ["concat", "dtypes float32 and int64 differ", () => concat([float([2]), int([2])], 0)],
    [
      "slice",
      "2:1:1 is outside of axis 0 of [3]",
      () => apply("slice", [float([3])], { starts: [2], ends: [1], steps: [1] }),
    ],
    ["slice", "step is 0, expected a whole number from 1", () => float([3]).slice(0, 0, 3, 0)],
    [
      "slice",
      "axis 0 of [B] holds the batch: take the whole axis, or split it",
      () => apply("slice", [float([batch])], { starts: [0], ends: [2], steps: [1] }),
    ],
    ["split", "sizes [1, 1] do not add up to axis 0 of [3]", () => float([3]).split([1, 1], 0)],
    [
      "split",
      "axis 1 of [2, 3] does not divide into 2 equal parts",
      () => float([2, 3]).split(2, 1),
    ],
    [
      "pad",
      "[3] needs one padding a dimension",
      () =>
        float([3]).pad([
          [1, 1],
          [0, 0],
        ]),
    ],
    ["pad", "padding -1, 0 is negative; slice instead", () => float([3]).pad([[-1, 0]])],
    ["pad", "axis 0 is the batch and cannot be padded", () => float([batch]).pad([[1, 0]])],
    ["gather", "expected dtype int64 or int32, got float32", () => float([3]).gather(other([2]))],
    [
      "scatterSum",
      "indices [3] do not number the rows of [2, 4]",
      () => apply("scatterSum", [float([2, 4]), int([3])], { size: 2 }),
    ],
    ["oneHot", "depth is 0, expected a whole number from 1", () => int([2]).oneHot(0)],
    [
      "conv",
      "[1, 2, 3] and weight [1, 2]: expected both to have 3, 4 or 5",
      () => float([1, 2, 3]).conv(other([1, 2])),
    ],
    [
      "conv",
      "[1, 4, 5] with weight [2, 4, 3] in 2 groups: expected 4 = 2 × 4 channels",
      () => float([1, 4, 5]).conv(other([2, 4, 3]), undefined, { groups: 2 }),
    ],
    [
      "conv",
      "a window of 4 does not fit into 3 pixels padded by 0 and 0",
      () => float([1, 1, 3]).conv(other([1, 1, 4])),
    ],
    [
      "conv",
      "stride has 2 entries for 1 spatial axes",
      () => float([1, 1, 3]).conv(other([1, 1, 3]), undefined, { stride: [1, 1] }),
    ],
    [
      "conv",
      "stride is 0, expected a whole number from 1",
      () => float([1, 1, 3]).conv(other([1, 1, 3]), undefined, { stride: 0 }),
    ],
    [
      "conv",
      "padding is -1",
      () => float([1, 1, 3]).conv(other([1, 1, 1]), undefined, { padding: -1 }),
    ],
    [
      "conv",
      "a spatial axis cannot be the batch",
      () => float([1, 1, batch]).conv(other([1, 1, 1])),
    ],
    [
      "convTranspose",
      "[1, 2, 3] with weight [3, 1, 1] in 1 groups: expected 2 channels in both",
      () => float([1, 2, 3]).convTranspose(other([3, 1, 1])),
    ],
    [
      "convTranspose",
      "output padding 2 is not below stride 2 or dilation 1",
      () =>
        float([1, 1, 3]).convTranspose(other([1, 1, 1]), undefined, {
          stride: 2,
          outputPadding: 2,
        }),
    ],
    [
      "convTranspose",
      "2 pixels under a window of 1 leave nothing within padding 1 and 1",
      () => float([1, 1, 2]).convTranspose(other([1, 1, 1]), undefined, { padding: 1 }),
    ],
    [
      "upsampleNearest",
      "scale is 0.5, expected a whole number from 1",
      () => float([1, 1, 2]).upsampleNearest(0.5),
    ],
    [
      "layerNorm",
      "weight is float32 [3], expected float32 [4]",
      () => float([2, 4]).layerNorm({ weight: other([3]) }),
    ],
    [
      "rmsNorm",
      "weight is float32 [3], expected float32 [4]",
      () => float([2, 4]).rmsNorm({ weight: other([3]) }),
    ],
    [
      "groupNorm",
      "the channels of [2, 3, 4] do not divide into 2 groups",
      () => float([2, 3, 4]).groupNorm(2),
    ],
    [
      "attention",
      "[2, 4]: expected [batch, tokens, heads · size] with 2 heads",
      () => attention(float([2, 4]), other([2, 4]), other([2, 4]), { heads: 2 }),
    ],
    [
      "attention",
      "q [1, 2, 4], k [1, 3, 6] and v [1, 3, 4] do not fit",
      () => attention(float([1, 2, 4]), other([1, 3, 6]), input("v", [1, 3, 4]), { heads: 2 }),
    ],
    [
      "attention",
      "bias [4] does not broadcast to [1, 2, 2, 3]",
      () =>
        attention(float([1, 2, 4]), other([1, 3, 4]), input("v", [1, 3, 4]), {
          heads: 2,
          bias: input("b", [4]),
        }),
    ],
    ["barrier", "input 1 is missing", () => apply("barrier", [float([])], {})],
  ])("of %s says: %s", (op, message, make) => {
    expect(make).toThrow(ShapeError);
    expect(make).toThrow(message);
    expect(make).toThrow(new RegExp(`^${op}: `));
  });

  it("of a reference to an axis names the range", () => {
    expect(() => float([2, 3]).sum(2)).toThrow(
      "axis 2 does not exist in 2 dimensions: expected a whole number from -2 to 1",
    );
    expect(() => float([batch]).size(0)).toThrow("Axis 0 holds the batch");
  });
});
