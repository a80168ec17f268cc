import { existsSync } from "node:fs";
import { afterEach, expect, test, vi } from "vitest";
import { ndarray, toNumbers } from "../../../src/engine/arrays/ndarray.ts";
import { input, parameter } from "../../../src/engine/graph/functional.ts";
import { graphOf } from "../../../src/engine/graph/graph.ts";
import { batch } from "../../../src/engine/graph/shape.ts";
import { quantizeLinears } from "../../../src/engine/passes/quantize.ts";
import { normal, randomKey } from "../../../src/engine/random/random.ts";
import { expandedWeights } from "../../../src/engine/runtime/expanded-weights.ts";
import { nodeBackend } from "../../../src/engine/runtime/ort-node.ts";
import { readFileRange } from "../../../src/engine/runtime/read-file-node.ts";
import {
  arrayWeights,
  readWeight,
  weightFiles,
} from "../../../src/engine/runtime/stored-weight.ts";
import { weightFile } from "../../../src/engine/runtime/weight-file-node.ts";

const large = 2 ** 26;

afterEach(() => vi.unstubAllEnvs());

test("arrays come back from the file, which is deleted", async () => {
  const file = (await weightFile(large))!;
  const arrays = [
    ndarray("int8", [2, 3], [1, -2, 3, -4, 127, -128]),
    ndarray("float32", [2], [0.5, -1.25]),
  ];
  const stored = [await file.put(arrays[0]!), await file.put(arrays[1]!)];
  await file.finish();
  for (const [i, weight] of stored.entries()) {
    expect(await readWeight(weight, readFileRange)).toEqual(arrays[i]);
  }
  const [path] = weightFiles(stored[0]!);
  expect(existsSync(path!)).toBe(true);
  file.remove();
  expect(existsSync(path!)).toBe(false);
});

test("few bytes stay in the model", async () => {
  expect(await weightFile(large - 1)).toBeUndefined();
});

test("a folder that does not exist is named", async () => {
  vi.stubEnv("TMPDIR", "/nowhere/at/all");
  await expect(weightFile(large)).rejects.toThrow(
    "The 64 MiB of expanded weights cannot be written to /nowhere/at/all: free space there, or name another folder in TMPDIR.",
  );
});

test("a program computes the same from the file as from its model", async () => {
  const weights = arrayWeights(
    Object.fromEntries(["a", "b", "c"].map((name, i) => [name, normal(randomKey(i), [64, 64])])),
  );
  const y = ["a", "b", "c"].reduce(
    (h, name) => h.linear(parameter(name, [64, 64])).silu(),
    input("x", [batch, 16, 64]),
  );
  const { graph, weights: int8 } = quantizeLinears(graphOf({ y }), weights);
  const backend = nodeBackend("cpu");
  const x = normal(randomKey(9), [2, 16, 64]);
  const inside = await backend.compile(graph, { weights: int8 });

  const file = (await weightFile(large))!;
  const apart = await expandedWeights(graph, int8, readFileRange, async () => file);
  await file.finish();
  expect(graph.parameters.some(({ dtype }) => dtype === "int8")).toBe(true);
  const outside = await backend.compile(graph, { weights: apart });
  expect(toNumbers((await outside.run({ x }))["y"]!)).toEqual(
    toNumbers((await inside.run({ x }))["y"]!),
  );
  await Promise.all([inside.dispose(), outside.dispose()]);
  file.remove();
});
