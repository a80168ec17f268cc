import { describe, expect, it } from "vitest";
import { ndarray, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { gradient } from "../../src/engine/gradients/gradient.ts";
import { graphOf, leafName } from "../../src/engine/graph/graph.ts";
import { input, parameter } from "../../src/engine/graph/functional.ts";
import { countMultiplyAdds } from "../../src/engine/passes/cost.ts";
import { graphToString } from "../../src/engine/graph/print.ts";
import { randomKey } from "../../src/engine/random/random.ts";
import { traceNetwork } from "../../src/models/network.ts";
import { rotaryTable } from "../../src/nn/positions.ts";
import { openRoute } from "../../src/nn/token-route.ts";
import { explainIssues } from "../../src/training/config/explain.ts";
import { trainingSchema } from "../../src/training/config/config.ts";
import { configuredRouting } from "../../src/training/tasks/routing.ts";
import { randomArray } from "../support/arrays.ts";
import { finiteDifferences, runWith } from "../support/finite-differences.ts";
import { tinyNetwork, tinyTextNetwork } from "../support/tiny-model.ts";

const network = { ...tinyNetwork, size: [32, 32], depth: 4, hidden: 64 } as const;
const settings = (training: object) => trainingSchema.parse({ steps: 1, ...training });
const routed = (training: object, of: object = network) =>
  configuredRouting(settings(training), { ...network, ...of });

describe("a route", () => {
  const kept = ndarray("int64", [2, 3], [0, 2, 3, 1, 3, 4]);
  const rows = input("x", [2, 6, 4], "float64");

  it("leaves patches out and puts them back, or a filler, beside tokens that always stay", () => {
    const filler = parameter("filler", [4], "float64");
    const values = {
      x: randomArray(1, "float64", [2, 6, 4]),
      filler: randomArray(2, "float64", [4]),
      kept,
    };
    for (const own of [undefined, filler]) {
      const route = openRoute(
        { kept: input("kept", [2, 3], "int64"), from: 1, to: 3, filler: own },
        5,
      );
      expect([0, 1, 2, 3].map((block) => route.within(block))).toEqual([false, true, true, false]);
      const inside = route.enter(rows);
      const after = route.leave(rows, inside.mul(2));
      const found = runWith(graphOf({ inside, after }), values);
      const x = toNumbers(values.x);
      const at = (row: number, place: number) =>
        x.slice((row * 6 + place) * 4, (row * 6 + place) * 4 + 4);
      const places = [
        [0, 2, 3, 5],
        [1, 3, 4, 5],
      ];
      expect(toNumbers(found["inside"]!)).toEqual(
        places.flatMap((chosen, row) => chosen.flatMap((place) => at(row, place))),
      );
      expect(toNumbers(found["after"]!)).toEqual(
        places.flatMap((chosen, row) =>
          Array.from({ length: 6 }, (_, place) => {
            if (chosen.includes(place)) return at(row, place).map((value) => 2 * value);
            return own ? toNumbers(values.filler) : at(row, place);
          }).flat(),
        ),
      );
    }
  });

  it("has the gradients of finite differences", () => {
    const filler = parameter("filler", [4], "float64");
    const x = parameter("x", [2, 6, 4], "float64");
    const route = openRoute({ kept: input("kept", [2, 3], "int64"), from: 0, to: 1, filler }, 5);
    const loss = route.leave(x, route.enter(x).square()).mul(x.add(1)).sin().sum();
    const values = {
      x: randomArray(3, "float64", [2, 6, 4]),
      filler: randomArray(4, "float64", [4]),
      kept,
    };
    const leaves = [x, filler];
    const gradients = gradient(loss, leaves);
    const slopes = runWith(graphOf({ x: gradients[0]!, filler: gradients[1]! }), values);
    for (const leaf of leaves) {
      const expected = finiteDifferences(loss, leaf, values);
      const errors = toNumbers(slopes[leafName(leaf)]!).map((slope, i) =>
        Math.abs(slope - expected[i]!),
      );
      expect(Math.max(...errors)).toBeLessThan(1e-7);
    }
  });

  it("turns the kept patches by the angles of their own places", () => {
    const table = rotaryTable([5], 4, { extra: 1 });
    const route = openRoute({ kept: input("kept", [2, 3], "int64"), from: 0, to: 1 }, 5);
    const { cos } = route.angles(table);
    const all = toNumbers(runWith(graphOf({ cos: table.cos }), {})["cos"]!);
    const own = toNumbers(runWith(graphOf({ cos }), { kept })["cos"]!);
    const places = [0, 2, 3, 5, 1, 3, 4, 5];
    expect(own).toEqual(places.flatMap((place) => all.slice(2 * place, 2 * place + 2)));
  });
});

describe("training.routing and training.masked", () => {
  it.each([
    ["routing", { share: 0.5, from: 1, to: 3 }, undefined],
    ["routing", { share: 0.75, from: 1 }, tinyTextNetwork],
    ["masked", { share: 0.5, blocks: 2 }, undefined],
  ])("%s %j computes fewer products", (name, asked, other) => {
    const of = other ? { ...other, size: [32, 32], depth: 4 } : network;
    const own = { ...network, ...of } as typeof network;
    const { route } = configuredRouting(settings({ [name]: asked }), own)!;
    const count = (given?: typeof route) =>
      countMultiplyAdds(graphOf({ output: traceNetwork(own, { route: given }).output }), 1);
    const saved = 1 - count(route) / count();
    expect(saved).toBeGreaterThan(0.15);
    expect(saved).toBeLessThan(0.5);
  });

  it("with a share of 0 change nothing", () => {
    for (const name of ["routing", "masked"]) {
      expect(routed({ [name]: { share: 0 } })).toBeUndefined();
    }
    const [plain, without] = [{}, { route: undefined }].map((options) =>
      graphToString(graphOf({ output: traceNetwork(network, options).output })),
    );
    expect(without).toBe(plain);
  });

  it("draw other patches for each example and key, without repetition", () => {
    const routing = routed({ routing: { share: 0.5 } })!;
    expect(routing.own.declared.size).toBe(0);
    const draw = (seed: number) => routing.inputs(3, randomKey(seed))["routes"]!;
    const { shape, dtype } = draw(1);
    const patches = (32 / network.patch) ** 2;
    expect([dtype, shape]).toEqual(["int64", [3, patches / 2]]);
    const rows = Array.from({ length: 3 }, (_, row) =>
      toNumbers(draw(1)).slice((row * patches) / 2, ((row + 1) * patches) / 2),
    );
    for (const row of rows) {
      expect(new Set(row).size).toBe(patches / 2);
      expect(Math.max(...row)).toBeLessThan(patches);
    }
    expect(rows[0]).not.toEqual(rows[1]);
    expect(toNumbers(draw(2))).not.toEqual(rows.flat());
  });

  it("train a token for masked patches, which is no part of the network", () => {
    const { own } = routed({ masked: {} })!;
    expect([...own.declared.keys()]).toEqual(["mask_token"]);
    expect(traceNetwork(network).params.declared.has("mask_token")).toBe(false);
  });

  it.each([
    [{ routing: {}, masked: {} }, {}, "give one of them"],
    [
      { routing: { to: 5 } },
      {},
      "blocks from 1 up to 5, but the network has 4; give 0 ≤ from < to ≤ 4",
    ],
    [{ routing: { from: 3, to: 2 } }, {}, "blocks from 3 up to 2, but the network has 4"],
    [{ masked: { blocks: 9 } }, {}, "training.masked.blocks is 9, but the network has 4 blocks"],
    [
      { routing: {} },
      { kind: "u-vit" },
      "is for networks of the kind dit, and the model is of the kind u-vit",
    ],
    [
      { masked: {} },
      { attention: { kind: "window", size: 2 } },
      "attention of the kind window needs as a whole grid",
    ],
    [
      { routing: {}, features: { alignment: 1, block: 2 } },
      {},
      "training.features.block is 2, a block that does not see all patches because of training.routing",
    ],
  ])("%j refuses what does not fit %j", (training, of, message) => {
    expect(() => routed(training, of)).toThrow(message);
  });

  it("say which shares there are", () => {
    const { error } = trainingSchema.safeParse(
      { steps: 1, routing: { share: 1 } },
      { reportInput: true },
    );
    expect(explainIssues(error!.issues, trainingSchema).message).toMatch(/routing\.share.*1/);
  });
});
