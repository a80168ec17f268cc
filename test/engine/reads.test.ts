import { describe, expect, it } from "vitest";
import { countParameters, peakMemory } from "../../src/engine/passes/cost.ts";
import { parameter, storedTable } from "../../src/engine/graph/functional.ts";
import { graphOf } from "../../src/engine/graph/graph.ts";
import { ndarray } from "../../src/engine/arrays/ndarray.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import type { Tensor } from "../../src/engine/graph/tensor.ts";
import { readsOf } from "../../src/engine/passes/reads.ts";

const ranges = (weight: Tensor, outputs: Record<string, Tensor>) => {
  const { whole, cuts } = readsOf(weight, graphOf(outputs));
  return { whole, cuts: cuts.map((cut) => cut.map(({ start, rows }) => [start, rows])) };
};

describe("how a graph reads a weight", () => {
  const w = parameter("w", [6, 4]);
  const [a, b] = w.split([2, 4], 0) as [Tensor, Tensor];

  it.each<[string, Record<string, Tensor>, object]>([
    [
      "its parts",
      { y: a.add(1), z: b.add(1) },
      {
        whole: false,
        cuts: [
          [
            [0, 2],
            [2, 4],
          ],
        ],
      },
    ],
    ["rows", { y: w.slice(0, 1, 4).add(1) }, { whole: false, cuts: [[[1, 3]]] }],
    [
      "rows, and all of it",
      { y: w.slice(0, 1, 4).sum().add(w.sum()) },
      { whole: true, cuts: [[[1, 3]]] },
    ],
    ["columns", { y: w.slice(1, 1, 4) }, { whole: true, cuts: [] }],
    ["every other row", { y: w.slice(0, 0, 6, 2) }, { whole: true, cuts: [] }],
    ["rows, and gives it out", { y: w.slice(0, 1, 4), w }, { whole: true, cuts: [[[1, 3]]] }],
  ])("as %s", (_, outputs, expected) => {
    expect(ranges(w, outputs)).toEqual(expected);
  });

  it("counts rows after axes of length 1", () => {
    const table = parameter("table", [1, 6, 4]);
    expect(ranges(table, { y: table.slice(1, 2, 5).add(1) })).toEqual({
      whole: false,
      cuts: [[[2, 3]]],
    });
    expect(ranges(table, { y: table.slice(2, 2, 3).add(1) }).whole).toBe(true);
  });
});

describe("a table", () => {
  const table = storedTable("table", [1, 6, 2]);
  const graph = graphOf({ y: table.slice(1, 2, 5).add(parameter("bias", [2])) });

  it("is not counted as a parameter, and takes the memory of the rows that are read", () => {
    expect(countParameters(graph)).toBe(2);
    expect(peakMemory(graph).weights).toBe(4 * (3 * 2 + 2));
  });

  it("is sliced in the file, for every kind of storage", async () => {
    const numbers = Array.from({ length: 12 }, (_, i) => i);
    const bias = { kind: "array", array: ndarray("float32", [2], [100, 200]) } as const;
    for (const dtype of ["float32", "float16"] as const) {
      const array = ndarray(dtype, [1, 6, 2], numbers);
      for (const stored of [
        { kind: "array", array } as const,
        { kind: "rows", parts: [{ kind: "array", array }] } as const,
      ]) {
        const program = await nodeBackend("cpu").compile(graph, {
          weights: (name) => (name === "table" ? stored : bias),
        });
        const { y } = await program.run({});
        expect(y).toEqual(ndarray("float32", [1, 3, 2], [104, 205, 106, 207, 108, 209]));
        await program.dispose();
      }
    }
  });
});
