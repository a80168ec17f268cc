import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
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
  arrayWeight,
  arrayWeights,
  channelsWeight,
  fileWeight,
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
  const stored = (await file.put([arrays.map(arrayWeight)])).flat();
  for (const [i, weight] of stored.entries()) {
    expect(await readWeight(weight, readFileRange)).toEqual(arrays[i]);
  }
  const [written] = weightFiles(stored[0]!);
  expect(existsSync(written!)).toBe(true);
  file.remove();
  expect(existsSync(written!)).toBe(false);
});

test("several threads write the same columns of rounded numbers as one", async () => {
  const folder = mkdtempSync(path.join(tmpdir(), "patchwise-weight-file-"));
  const source = path.join(folder, "source.bin");
  // Rows of which neither number nor width is a multiple of four, and others.
  const shapes = [
    [67, 33],
    [128, 64],
    [5, 300],
    [64, 70],
  ] as const;
  const sizes = shapes.map(([rows, width]) => 4 * rows * width);
  const floats = normal(randomKey(1), [sizes.reduce((a, b) => a + b) / 4]).data;
  writeFileSync(source, floats);
  const originals = shapes.map((shape, i) => {
    const offset = sizes.slice(0, i).reduce((a, b) => a + b, 0);
    return fileWeight(source, offset, "float32", shape);
  });
  const groups = originals.map((original) => Object.values(channelsWeight(original)));
  const made = await Promise.all(
    [1, 3].map(async (threads) => {
      const file = (await weightFile(large, threads))!;
      const stored = (await file.put(groups)).flat();
      const arrays = await Promise.all(stored.map((weight) => readWeight(weight, readFileRange)));
      file.remove();
      return arrays;
    }),
  );
  expect(made[1]).toEqual(made[0]);
  for (const [i, [rows, width]] of shapes.entries()) {
    const [values, scale] = made[0]!.slice(2 * i, 2 * i + 2).map(toNumbers);
    const rounded = toNumbers(await readWeight(originals[i]!, readFileRange)).map((x, at) =>
      Math.floor(x * (1 / scale![Math.floor(at / width)]!) + 0.5),
    );
    const columns = rounded.map((_, at) => rounded[(at % rows) * width + Math.floor(at / rows)]!);
    expect(values).toEqual(columns);
  }
  rmSync(folder, { recursive: true });
});

test("a weight that a thread cannot read ends the writing with its error", async () => {
  const file = (await weightFile(large, 2))!;
  const lost = ["/nowhere/a.bin", "/nowhere/b.bin"].map((name) => [
    fileWeight(name, 0, "float32", [4]),
  ]);
  await expect(file.put(lost)).rejects.toThrow("/nowhere/");
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
  expect(graph.parameters.some(({ dtype }) => dtype === "int8")).toBe(true);
  const outside = await backend.compile(graph, { weights: apart });
  expect(toNumbers((await outside.run({ x }))["y"]!)).toEqual(
    toNumbers((await inside.run({ x }))["y"]!),
  );
  await Promise.all([inside.dispose(), outside.dispose()]);
  file.remove();
});
