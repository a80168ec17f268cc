import { describe, expect, it } from "vitest";
import { ndarray } from "../../src/engine/arrays/ndarray.ts";
import { input, parameter } from "../../src/engine/graph/functional.ts";
import { graphOf, leafName } from "../../src/engine/graph/graph.ts";
import { batch } from "../../src/engine/graph/shape.ts";
import type { Tensor } from "../../src/engine/graph/tensor.ts";
import { quantizeLinears } from "../../src/engine/passes/quantize.ts";
import { normal, randomKey, fork } from "../../src/engine/random/random.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { arrayWeights } from "../../src/engine/runtime/stored-weight.ts";

const [TOKENS, WIDTH] = [16, 384];

const shapes: Record<string, readonly [number, number]> = {
  first: [WIDTH, 64],
  time: [WIDTH, 512],
  modulation: [2 * WIDTH, WIDTH],
  small: [WIDTH, WIDTH],
  canvas: [TOKENS * 64, WIDTH],
  read: [WIDTH, 64],
  middle: [WIDTH, WIDTH],
  last: [64, WIDTH],
};

/** Tokens that a time modulates, to which a picture made of the time is added. */
function network() {
  const weight = (name: string) => parameter(name, shapes[name]!);
  const x = input("x", [batch, TOKENS, 64]);
  const told = input("t", [batch, 512]).linear(weight("time")).silu();
  const onEach = (row: Tensor) => row.reshape([batch, 1, WIDTH]);
  const [shift, scale] = told.linear(weight("modulation")).split(2, -1) as [Tensor, Tensor];
  const picture = told.linear(weight("canvas")).reshape([batch, TOKENS, 64]).linear(weight("read"));
  const h = x
    .linear(weight("first"))
    .add(picture)
    .add(onEach(told.linear(weight("small"))));
  const moved = h.layerNorm().mul(onEach(scale).add(1)).add(onEach(shift));
  return graphOf({ y: moved.linear(weight("middle")).linear(weight("last")) });
}

const values = Object.fromEntries(
  Object.entries(shapes).map(([name, shape], i) => {
    const { data } = normal(fork(randomKey(3), i), shape);
    return [
      name,
      ndarray(
        "float32",
        shape,
        data.map((value) => value / Math.sqrt(shape[1])),
      ),
    ];
  }),
);
const stored = arrayWeights(values);

describe("layers are quantized where it pays and costs no quality", () => {
  const graph = network();
  const quantized = quantizeLinears(graph, stored);

  it("inner layers on tokens and large modulations, but not what makes the condition or tokens of it", () => {
    const names = quantized.graph.parameters
      .filter(({ dtype }) => dtype === "int8")
      .map((leaf) => leafName(leaf).replace(/\[.*/, ""));
    expect(names.toSorted()).toEqual(["middle", "modulation"]);
  });

  it("the result differs by the rounding of 8 bits", async () => {
    const inputs = {
      x: normal(randomKey(1), [2, TOKENS, 64]),
      t: normal(randomKey(2), [2, 512]),
    };
    const backend = nodeBackend("cpu");
    const [exact, rounded] = await Promise.all([
      backend.compile(graph, { weights: stored }),
      backend.compile(quantized.graph, { weights: quantized.weights }),
    ]);
    const { y: expected } = await exact.run(inputs);
    const { y: actual } = await rounded.run(inputs);
    const squares = (error: (i: number) => number) =>
      Math.hypot(...Array.from({ length: expected!.data.length }, (_, i) => error(i)));
    const size = squares((i) => Number(expected!.data[i]));
    const distance = squares((i) => Number(actual!.data[i]) - Number(expected!.data[i])) / size;
    expect(distance).toBeLessThan(0.02);
    expect(distance).toBeGreaterThan(0.001);
    await Promise.all([exact.dispose(), rounded.dispose()]);
  });
});
