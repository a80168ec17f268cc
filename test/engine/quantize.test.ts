import { describe, expect, it } from "vitest";
import { castArray, type NdArray, ndarray, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { attention, input, parameter } from "../../src/engine/graph/functional.ts";
import { type Graph, graphOf, is, leafName } from "../../src/engine/graph/graph.ts";
import { gradient } from "../../src/engine/gradients/gradient.ts";
import { batch, resolve } from "../../src/engine/graph/shape.ts";
import { applyMany, type Tensor } from "../../src/engine/graph/tensor.ts";
import { quantizeLinears } from "../../src/engine/passes/quantize.ts";
import { simplify } from "../../src/engine/passes/simplify.ts";
import { evaluate } from "../../src/engine/reference/evaluate.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import {
  arrayWeights,
  channelsWeight,
  readWeight,
} from "../../src/engine/runtime/stored-weight.ts";
import { randomArray } from "../support/arrays.ts";

const width = 64;
/** Where a device rounds an activation to the other integer, a result changes by 1/127 of one of its 64 terms. */
const rounding = 2e-4;

/** A transformer of one block: tokens [B, 16, 8] and a vector [B, 64] → [B, 16, 8]. */
function network(): Graph {
  const x = input("x", [batch, 16, 8]);
  const modulation = input("c", [batch, width]).linear(parameter("modulation", [width, width]));
  const h = x.linear(parameter("embed", [width, 8])).add(modulation.unsqueeze(1));
  const weights = parameter("qkv", [3 * width, width]).split([width, width, width], 0);
  const [q, k, v] = weights.map((weight) => h.linear(weight)) as [Tensor, Tensor, Tensor];
  const mixed = attention(q, k, v, { heads: 2 }).linear(
    parameter("proj", [width, width]),
    parameter("bias", [width]),
  );
  return graphOf({ y: h.add(mixed).linear(parameter("last", [8, width])) });
}

const graph = network();
const arrays: Record<string, NdArray> = Object.fromEntries(
  graph.parameters.map((each, i) => {
    const shape = resolve(each.shape, undefined);
    return [leafName(each), randomArray(i, "float32", shape, -0.2, 0.2)];
  }),
);
const weights = arrayWeights(arrays);
const quantized = quantizeLinears(graph, weights);
/** The first image is always the same, and the others have larger numbers. */
const inputsOf = (rows: number) => ({
  x: ndarray(
    "float32",
    [rows, 16, 8],
    [
      ...toNumbers(randomArray(50, "float32", [1, 16, 8])),
      ...toNumbers(randomArray(52, "float32", [rows - 1, 16, 8], -20, 20)),
    ],
  ),
  c: randomArray(51, "float32", [rows, width]),
});

/** ‖a − b‖ / ‖b‖. */
function distance(a: NdArray, b: NdArray): number {
  const [found, wanted] = [toNumbers(a), toNumbers(b)];
  const squares = (values: readonly number[]) => values.reduce((sum, x) => sum + x * x, 0);
  return Math.sqrt(squares(found.map((x, i) => x - wanted[i]!)) / squares(wanted));
}

async function run({ graph: of, weights: source }: typeof quantized, rows: number) {
  const program = await nodeBackend().compile(of, { weights: source });
  const { y } = await program.run(inputsOf(rows));
  await program.dispose();
  return y!;
}

describe("quantizeLinears", () => {
  it("replaces the inner layers on tokens, and quantizes what several of them read once", () => {
    const left = quantized.graph.nodes.filter((node) => is(node, "linear"));
    expect(left.map(({ scope }) => scope).sort()).toEqual(["embed", "last", "modulation"]);
    const { nodes } = simplify(quantized.graph);
    expect(nodes.filter((node) => is(node, "quantizedLinear"))).toHaveLength(4);
    expect(nodes.filter((node) => is(node, "quantizeRows"))).toHaveLength(2);
  });

  it("leaves layers alone whose weights are given to each run", () => {
    expect(quantizeLinears(graph, () => undefined).graph.nodes).toEqual(graph.nodes);
  });

  it("computes what the reference interpreter does, which is near the float32 network", async () => {
    const stored: Record<string, NdArray> = {};
    for (const name of quantized.graph.parameters.map(leafName)) {
      stored[name] = await readWeight(quantized.weights(name)!, async () => {});
    }
    const inputs = inputsOf(2);
    const wanted = evaluate(quantized.graph, { ...inputs, ...stored })["y"]!;
    const found = await run(quantized, 2);
    expect(distance(found, wanted)).toBeLessThan(rounding);
    const plain = evaluate(graph, { ...inputs, ...arrays })["y"]!;
    expect(distance(found, plain)).toBeLessThan(0.03);
    expect(distance(found, plain)).toBeGreaterThan(1e-4);
  });

  it("quantizes each image of a batch as it is quantized alone", async () => {
    const [alone, among] = [await run(quantized, 1), await run(quantized, 3)];
    const own = ndarray(
      "float32",
      alone.shape,
      among.data.slice(0, alone.data.length) as Float32Array,
    );
    expect(distance(own, alone)).toBeLessThan(rounding);
  });

  it("refuses a gradient through rounded numbers", () => {
    const x = input("x", [2, 3]);
    const [, scale] = applyMany("quantizeRows", [x], {});
    expect(() => gradient(scale!.sum(), [x])).toThrow("quantizeRows has no gradient");
  });
});

describe("a weight quantized by channel", () => {
  it("is the weight to within half a step of each channel, and holds rows of zeros", async () => {
    const weight = ndarray("float32", [3, 4], [0.9, -2, 0.5, 0.1, 0, 0, 0, 0, 100, 1, -49, 3]);
    const { values, scale } = channelsWeight({
      kind: "array",
      array: castArray(weight, "float16"),
    });
    const [q, s] = [
      await readWeight(values, async () => {}),
      await readWeight(scale, async () => {}),
    ];
    expect(q).toMatchObject({ dtype: "int8", shape: [4, 3] });
    expect(toNumbers(s)).toEqual([2 / 127, 0, 100 / 127].map(Math.fround));
    expect(toNumbers(q)).toEqual([57, 0, 127, -127, 0, 1, 32, 0, -62, 6, 0, 4]);
  });
});
