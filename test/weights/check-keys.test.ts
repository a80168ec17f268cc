import { describe, expect, it } from "vitest";
import { FormatError } from "../../src/engine/errors.ts";
import { type NdArray, ndarray } from "../../src/engine/arrays/ndarray.ts";
import { createParams, zero } from "../../src/nn/params.ts";
import { checkedWeights, checkKeys, type KeyMap } from "../../src/weights/check-keys.ts";
import { joinRows } from "../../src/weights/views.ts";
import { bytesSource, openSafetensors, safetensorsBytes } from "../../src/weights/index.ts";

function model() {
  const p = createParams();
  p.at("a").param("weight", [2, 3], zero);
  p.at("a").param("bias", [2], zero);
  p.buffer("table", ndarray("float32", [1, 2], [0, 1]));
  return p;
}

const sound: Readonly<Record<string, readonly number[]>> = { "a.weight": [2, 3], "a.bias": [2] };

function check(shapes: Readonly<Record<string, readonly number[]>>, map?: KeyMap): void {
  const entries = new Map(Object.entries(shapes).map(([name, shape]) => [name, { shape }]));
  checkKeys(model(), { name: "x.safetensors", entries }, map);
}

describe("checkKeys", () => {
  it("accepts all declared weights, with or without fixed tables", () => {
    expect(() => check(sound)).not.toThrow();
    expect(() => check({ ...sound, table: [1, 2] })).not.toThrow();
  });

  it("accepts a 1×1 convolution as a linear layer, and no other shape", () => {
    expect(() => check({ ...sound, "a.weight": [2, 3, 1, 1] })).not.toThrow();
    for (const shape of [[2, 3, 1], [3, 2, 1, 1], [2, 3, 3, 3], [6], [1, 1, 2, 3]]) {
      expect(() => check({ ...sound, "a.weight": shape })).toThrow('"a.weight" is [');
    }
    expect(() => check({ ...sound, "a.bias": [2, 1, 1] })).toThrow('"a.bias" is [2, 1, 1]');
  });

  it.each([
    [{ "a.weight": [2, 3] }, 'it lacks "a.bias" [2];'],
    [{ ...sound, table: [2, 2] }, '"table" is [2, 2] instead of [1, 2];'],
    [{ ...sound, b: [1] }, 'the model has no "b";'],
    [
      { "a.bias": [3], c: [1] },
      'it lacks "a.weight" [2, 3]; the model has no "c"; "a.bias" is [3]',
    ],
    [{ ...sound, 1: [], 2: [], 3: [], 4: [], 5: [] }, 'the model has no "1", "2", "3" and 2 more;'],
  ])("names the defect of %j in one sentence", (shapes, message) => {
    expect(() => check(shapes)).toThrow(FormatError);
    expect(() => check(shapes)).toThrow(`x.safetensors does not fit the model: ${message}`);
  });

  it("uses the keys of the checkpoint and ignores those of other models", () => {
    const map: KeyMap = {
      keyOf: (name) => `m.${name.replace("weight", "w")}`,
      owns: (key) => key.startsWith("m."),
    };
    expect(() => check({ "m.a.w": [2, 3], "m.a.bias": [2], other: [4] }, map)).not.toThrow();
    expect(() => check({ "m.a.bias": [2], other: [4] }, map)).toThrow('it lacks "m.a.w" [2, 3];');
    expect(() => check({ "m.a.w": [2, 3], "m.a.bias": [2], "m.x": [4] }, map)).toThrow('no "m.x"');
  });
});

describe("checkedWeights", () => {
  it("returns weights in the shapes of the model", async () => {
    const tensors = {
      "a.weight": ndarray("float32", [2, 3, 1, 1], [1, 2, 3, 4, 5, 6]),
      "a.bias": ndarray("float16", [2], [1, 2]),
    };
    const bytes = safetensorsBytes(Object.entries(tensors));
    const source = checkedWeights(model(), await openSafetensors(bytesSource(bytes, "x")));
    expect(source("a.weight")).toEqual({
      kind: "array",
      array: ndarray("float32", [2, 3], [1, 2, 3, 4, 5, 6]),
    });
    expect(source("a.bias")).toMatchObject({ array: { dtype: "float16", shape: [2] } });
    expect(source("a.other")).toBeUndefined();
  });

  it("refuses integers without a scale, also among the parts of a weight", async () => {
    const integers = ndarray("int8", [2, 3], [1, 2, 3, 4, 5, 6]);
    const scale = ndarray("float32", [], [0.5]);
    const bias = ndarray("float32", [2], [1, 2]);
    const opened = (tensors: readonly (readonly [string, NdArray])[]) =>
      openSafetensors(bytesSource(safetensorsBytes([...tensors, ["a.bias", bias]]), "x"));
    const bare = await opened([["a.weight", integers]]);
    const message =
      'x: tensor "a.weight" is I8 without a scale, so that its numbers are unknown; give';
    expect(() => checkedWeights(model(), bare)).toThrow(message);
    const scaled = [
      ["a.weight", integers],
      ["a.weight_scale", scale],
    ] as const;
    const whole = await opened(scaled);
    expect(() => checkedWeights(model(), whole)).not.toThrow();
    const row = ndarray("int8", [1, 3], [1, 2, 3]);
    const parts = await opened([
      ["a.0", row],
      ["a.1", row],
    ]);
    const joined = joinRows(parts, (name) =>
      name === "a.0" ? { name: "a.weight", rest: ["a.1"] } : undefined,
    );
    expect(() => checkedWeights(model(), joined)).toThrow('x: tensor "a.0" is I8 without a scale');
  });

  it("refuses a checkpoint that does not fit", async () => {
    const bytes = safetensorsBytes([["a.bias", ndarray("float32", [2], [1, 2])]]);
    const weights = await openSafetensors(bytesSource(bytes, "x"));
    expect(() => checkedWeights(model(), weights)).toThrow(
      'x does not fit the model: it lacks "a.w',
    );
  });
});
