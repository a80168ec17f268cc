import { describe, expect, it } from "vitest";
import {
  type Form,
  layersOf,
  type Network,
  remedied,
  type Remedy,
} from "../../bench/remedy-graphs.ts";
import { ndarray } from "../../src/engine/arrays/ndarray.ts";
import { input, parameter } from "../../src/engine/graph/functional.ts";
import { graphOf } from "../../src/engine/graph/graph.ts";
import { batch } from "../../src/engine/graph/shape.ts";
import { quantizeLinears } from "../../src/engine/passes/quantize.ts";
import { fork, normal, randomKey } from "../../src/engine/random/random.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { arrayWeights } from "../../src/engine/runtime/stored-weight.ts";

const [TOKENS, WIDTH] = [16, 64];
const names = ["first", "middle", "last"];

/** Three linear layers on tokens, of which the middle one is computed in integers. */
const network = {
  graph: graphOf({
    output: names.reduce(
      (h, name) => h.linear(parameter(name, [WIDTH, WIDTH])),
      input("x", [batch, TOKENS, WIDTH]),
    ),
  }),
  weights: arrayWeights(
    Object.fromEntries(
      names.map((name, i) => {
        const { data } = normal(fork(randomKey(3), i), [WIDTH, WIDTH]);
        return [
          name,
          ndarray(
            "float32",
            [WIDTH, WIDTH],
            data.map((x) => x / Math.sqrt(WIDTH)),
          ),
        ];
      }),
    ),
  ),
};

/** One row is a hundred times as large as the others. */
const x = normal(randomKey(1), [1, TOKENS, WIDTH]);
x.data.set(x.data.subarray(0, WIDTH).map((value) => 100 * value));

const [layer] = layersOf(network, "shipped");
const calibration = {
  channels: new Map([[layer!, new Float32Array(WIDTH).fill(4)]]),
  levels: new Map([[layer!, new Map()]]),
};

/** The rows behind the large one. */
async function rowsOf({ graph, weights }: Network): Promise<Float32Array> {
  const program = await nodeBackend("cpu").compile(graph, { weights });
  const { output } = await program.run({ x });
  await program.dispose();
  return (output!.data as Float32Array).subarray(WIDTH);
}

const changedBy = (remedy: Omit<Remedy, "name">) =>
  remedied(network, { name: "", ...remedy }, calibration);

/** The relative error of these rows. */
async function errorOf(remedy: Omit<Remedy, "name">): Promise<number> {
  const [exact, rounded] = await Promise.all(
    [network, await changedBy(remedy)].map((each) => rowsOf(each)),
  );
  return Math.hypot(...exact!.map((value, i) => value - rounded![i]!)) / Math.hypot(...exact!);
}

describe("remedies for the rounding of activations", () => {
  it("change the middle layer, or more layers", () => {
    const count = (layers: Remedy["layers"]) => layersOf(network, layers).length;
    expect([count("shipped"), count("tokens"), count("all")]).toEqual([1, 3, 3]);
  });

  it.each<readonly [Omit<Remedy, "name">]>([
    ...(["row", "row with zero point", "weights alone"] satisfies Form[]).map(
      (form) => [{ form }] as const,
    ),
    [{ smooth: true }],
    [{ rotate: true }],
    [{ smooth: true, rotate: true }],
    [{ layers: "all" }],
  ])("the error is small with %o", async (remedy) => {
    const error = await errorOf(remedy);
    expect(error).toBeGreaterThan(1e-4);
    expect(error).toBeLessThan(0.03);
  });

  it("a scale for each row is what ships, bit by bit", async () => {
    const shipped = quantizeLinears(network.graph, network.weights);
    expect(await rowsOf(await changedBy({}))).toEqual(await rowsOf(shipped));
  });

  it("one scale for all rows rounds the small ones away", async () => {
    expect(await errorOf({ form: "tensor" })).toBeGreaterThan(0.2);
  });
});
