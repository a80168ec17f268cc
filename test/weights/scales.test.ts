import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { castArray, type NdArray, ndarray, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { input, parameter } from "../../src/engine/graph/functional.ts";
import { graphOf } from "../../src/engine/graph/graph.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { openSafetensorsFile, writeSafetensors } from "../../src/weights/safetensors/file-node.ts";
import {
  openSafetensors,
  readFloat32,
  readTensor,
} from "../../src/weights/safetensors/safetensors.ts";
import { safetensorsBytes } from "../../src/weights/safetensors/write.ts";
import { bytesSource } from "../../src/weights/sources/source.ts";
import { storedWeights } from "../../src/weights/stored.ts";
import { joinQkv, splitRows } from "../../src/weights/views.ts";

const folder = mkdtempSync(join(tmpdir(), "patchwise-scales-"));
afterAll(() => rmSync(folder, { recursive: true }));

const open = (tensors: Record<string, NdArray>) =>
  openSafetensors(bytesSource(safetensorsBytes(Object.entries(tensors)), "m.safetensors"));
const bytes = (text: string) => {
  const data = new TextEncoder().encode(text);
  return { dtype: "uint8", shape: [data.length], data } as const;
};

const all = Uint8Array.from({ length: 256 }, (_, bits) => bits);
const weight = (dtype: "float8_e4m3fn" | "float8_e5m2"): NdArray => ({
  dtype,
  shape: [4, 64],
  data: all,
});
const one = ndarray("float32", [], [0.375]);
const rows = ndarray("float32", [4], [1, 0.5, -2, 3]);
/** NaN and infinities stand among all patterns. */
const times = (array: NdArray, scales: readonly number[]) =>
  toNumbers(castArray(array, "float32")).map((value, i) =>
    Math.fround(value * scales[scales.length === 1 ? 0 : Math.floor(i / 64)]!),
  );

const e4m3 = weight("float8_e4m3fn");
const e5m2 = weight("float8_e5m2");
const forms: readonly (readonly [string, Record<string, NdArray>, number[]])[] = [
  ["without a scale, in E4M3", { "a.weight": e4m3 }, times(e4m3, [1])],
  ["without a scale, in E5M2", { "a.weight": e5m2 }, times(e5m2, [1])],
  [
    "with the scale_weight of older files",
    {
      "a.weight": e4m3,
      "a.scale_weight": { ...one, shape: [1] },
      "a.scale_input": one,
      scaled_fp8: ndarray("float8_e4m3fn", [2], [0, 0]),
    },
    times(e4m3, [0.375]),
  ],
  [
    "with the weight_scale of newer files",
    {
      "a.weight": e5m2,
      "a.weight_scale": one,
      "a.input_scale": one,
      "a.comfy_quant": bytes('{"format": "float8_e5m2"}'),
    },
    times(e5m2, [0.375]),
  ],
  [
    "with a scale for each row, in bfloat16",
    { "a.weight": e4m3, "a.weight_scale": castArray(rows, "bfloat16") },
    times(e4m3, toNumbers(rows)),
  ],
];

describe.each(forms)("a weight in 8-bit floats %s", (_, tensors, expected) => {
  it("is read as what it stands for", async () => {
    const weights = await open(tensors);
    expect([...weights.entries.keys()]).toEqual(["a.weight"]);
    const entry = weights.entries.get("a.weight")!;
    expect(toNumbers(await readFloat32(entry))).toEqual(expected);
    expect(toNumbers(await readTensor(entry))).toEqual(expected);
  });

  it("is computed with where it lies in its file", async () => {
    const path = join(folder, "m.safetensors");
    await writeSafetensors(path, Object.entries(tensors));
    const weights = await openSafetensorsFile(path);
    const graph = graphOf({ y: parameter("a.weight", [4, 64]).mul(1) });
    const program = await nodeBackend("cpu").compile(graph, { weights: storedWeights(weights) });
    expect(toNumbers((await program.run({}))["y"]!)).toEqual(expected);
    await program.dispose();
    await weights.close();
  });
});

it.each(forms)(
  "rows of a table in 8-bit floats are chosen by their numbers: %s",
  async (_, tensors, expected) => {
    const path = join(folder, "table.safetensors");
    await writeSafetensors(path, Object.entries(tensors));
    const file = await openSafetensorsFile(path);
    const graph = graphOf({ y: parameter("a.weight", [4, 64]).gather(input("ids", [3], "int64")) });
    for (const weights of [file, await open(tensors)]) {
      const program = await nodeBackend("cpu").compile(graph, { weights: storedWeights(weights) });
      const { y } = await program.run({ ids: ndarray("int64", [3], [3, 0, 2]) });
      const row = (i: number) => expected.slice(64 * i, 64 * (i + 1));
      expect(toNumbers(y!)).toEqual([...row(3), ...row(0), ...row(2)]);
      await program.dispose();
    }
    await file.close();
  },
);

const integers: NdArray = { dtype: "int8", shape: [4, 64], data: new Int8Array(all.buffer) };
const plain = times(castArray(integers, "float32"), toNumbers(rows));

/** W·R by its definition: R is a power of Kronecker of H4 / 2 for each group. */
function rotated(values: readonly number[], group: number): number[] {
  const h4 = [
    [1, 1, 1, -1],
    [1, 1, -1, 1],
    [1, -1, 1, 1],
    [-1, 1, 1, 1],
  ];
  const element = (i: number, j: number, size: number): number =>
    size === 1 ? 1 : (h4[i % 4]![j % 4]! / 2) * element(i >> 2, j >> 2, size / 4);
  return values.map((_, at) => {
    const [start, j] = [at - (at % group), at % group];
    let sum = 0;
    for (let i = 0; i < group; i++) sum += values[start + i]! * element(i, j, group);
    return sum;
  });
}

const turned = (size: number, more: object = {}) =>
  JSON.stringify({ format: "int8_tensorwise", convrot: true, convrot_groupsize: size, ...more });
const scaled = { "a.weight": integers, "a.weight_scale": { ...rows, shape: [4, 1] } };

describe.each<[string, Record<string, NdArray>, string | undefined, readonly number[]]>([
  ["with a scale for each row", scaled, undefined, plain],
  [
    "with a note",
    { ...scaled, "a.comfy_quant": bytes('{"format":"int8_tensorwise"}') },
    undefined,
    plain,
  ],
  ["rotated by 4", { ...scaled, "a.comfy_quant": bytes(turned(4)) }, undefined, rotated(plain, 4)],
  [
    "rotated by 16",
    { ...scaled, "a.comfy_quant": bytes(turned(16)) },
    undefined,
    rotated(plain, 16),
  ],
  [
    "rotated by 64",
    { ...scaled, "a.comfy_quant": bytes(turned(64)) },
    undefined,
    rotated(plain, 64),
  ],
  ["rotated, as the metadata say", scaled, turned(16), rotated(plain, 16)],
])("a weight in 8-bit integers %s", (_, tensors, note, expected) => {
  const metadata: [string, string][] =
    note === undefined ? [] : [["_quantization_metadata", `{"layers":{"a":${note}}}`]];
  const near = (values: readonly number[]) => {
    const most = Math.max(...values.map((value, i) => Math.abs(value - expected[i]!)));
    expect(most).toBeLessThan(2e-4);
  };

  it("is read, and computed with where it lies, as what it stands for", async () => {
    const path = join(folder, "i.safetensors");
    await writeSafetensors(path, Object.entries(tensors), metadata);
    const weights = await openSafetensorsFile(path);
    expect([...weights.entries.keys()]).toEqual(["a.weight"]);
    near(toNumbers(await weights.read("a.weight")));
    const split = splitRows(weights, () => ["0", "1"]);
    const halves = [await split.read("0"), await split.read("1")];
    near(halves.flatMap((half) => toNumbers(half)));
    const graph = graphOf({ y: parameter("a.weight", [4, 64]).mul(1) });
    const program = await nodeBackend("cpu").compile(graph, { weights: storedWeights(weights) });
    near(toNumbers((await program.run({}))["y"]!));
    await program.dispose();
    await weights.close();
  });
});

describe("notes on formats", () => {
  it.each([
    ["nvfp4", '{"format":"nvfp4"}', 'in the format "nvfp4", which cannot be read'],
    ["no format", '{"convrot":true}', "names no format"],
    ["no JSON", "{", "should be a JSON object"],
    ["a wrong group", turned(8), "must be a power of 4"],
    ["rows that are no whole groups", turned(256), "no whole groups of 256"],
  ])("are refused: %s", async (_, note, message) => {
    await expect(open({ ...scaled, "a.comfy_quant": bytes(note) })).rejects.toThrow(message);
  });
});

describe("scales", () => {
  it("may be in another shard than their weights", async () => {
    await writeSafetensors(join(folder, "1.safetensors"), [["a.weight", e4m3]]);
    await writeSafetensors(join(folder, "2.safetensors"), [["a.weight_scale", one]]);
    const index = join(folder, "sharded.safetensors.index.json");
    const weight_map = { "a.weight": "1.safetensors", "a.weight_scale": "2.safetensors" };
    writeFileSync(index, JSON.stringify({ metadata: {}, weight_map }));
    const weights = await openSafetensorsFile(index);
    expect([...weights.entries.keys()]).toEqual(["a.weight"]);
    expect(toNumbers(await weights.read("a.weight"))).toEqual(times(e4m3, [0.375]));
    await weights.close();
  });

  it("stay with their rows where tensors are joined and split", async () => {
    const names = ["a.to_q", "a.to_k", "a.to_v"];
    const tensors = names.flatMap((name, i) => [
      [`${name}.weight`, e4m3] as const,
      [`${name}.weight_scale`, i === 1 ? rows : ndarray("float32", [], [i + 2])] as const,
    ]);
    const weights = joinQkv(await open(Object.fromEntries(tensors)));
    const expected = [times(e4m3, [2]), times(e4m3, toNumbers(rows)), times(e4m3, [4])].flat();
    expect(toNumbers(await weights.read("a.to_qkv.weight"))).toEqual(expected);

    // Parts of three rows each, so that two of them lie in two tensors.
    const split = splitRows(weights, () => ["0", "1", "2", "3"]);
    const parts = await Promise.all(["0", "1", "2", "3"].map((name) => split.read(name)));
    expect(parts.flatMap((part) => toNumbers(part))).toEqual(expected);
  });

  it("are left as they are beside weights of other dtypes", async () => {
    const weights = await open({ "a.weight": castArray(one, "float16"), "a.weight_scale": one });
    expect([...weights.entries.keys()].toSorted()).toEqual(["a.weight", "a.weight_scale"]);
  });

  it.each([[[2, 2]], [[2]], [[64]], [[1, 64]], [[0]]])("must fit: %j is refused", async (shape) => {
    const count = shape.reduce((product, size) => product * size, 1);
    const scale = ndarray(
      "float32",
      shape,
      Array.from({ length: count }, () => 1),
    );
    await expect(open({ "a.weight": e4m3, "a.weight_scale": scale })).rejects.toThrow(
      `m.safetensors: tensor "a.weight_scale" is [${shape.join(", ")}], but the scale of "a.weight" [4, 64] must be one number, or one for each row; give the model in float16, bfloat16 or float32.`,
    );
  });
});
