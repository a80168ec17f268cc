import path from "node:path";
import { describe, expect, it } from "vitest";
import { type NdArray, ndarray, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { FormatError, ShapeError } from "../../src/engine/errors.ts";
import { constant, input } from "../../src/engine/graph/functional.ts";
import { graphOf } from "../../src/engine/graph/graph.ts";
import { batch } from "../../src/engine/graph/shape.ts";
import { countParameters } from "../../src/engine/passes/cost.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { latteCheckpointConfig, latteConfig } from "../../src/models/latte/checkpoint.ts";
import { lattePresets } from "../../src/models/latte/config.ts";
import { networkPresets, networkSchema, traceNetwork } from "../../src/models/network.ts";
import {
  diffusersWanConfig,
  diffusersWanKeys,
  wanConfig,
} from "../../src/models/wan/checkpoint.ts";
import { type WanConfig, wanPresets } from "../../src/models/wan/config.ts";
import { packedWan } from "../../src/models/wan/wan.ts";
import { createParams } from "../../src/nn/params.ts";
import { preciseTimestepEmbedding } from "../../src/nn/timestep-embedding.ts";
import { publishedModel } from "../../src/pipelines/open/published-checkpoint.ts";
import { withRecording } from "../../src/verify/recording-node.ts";
import { verifyRecording } from "../../src/verify/verify.ts";
import { checkKeys } from "../../src/weights/check-keys.ts";
import { fieldReader } from "../../src/weights/config-fields.ts";
import { randomArray } from "../support/arrays.ts";
import { numbersOf, randomValues } from "../support/network-values.ts";
import { publishedShapes, shapedWeights } from "../support/shaped-weights.ts";

const fixtures = path.resolve(import.meta.dirname, "../fixtures");
const backend = nodeBackend("cpu");

describe("recordings of the original implementations", () => {
  // Their gradients are those of a part of the weights, which keeps the files small.
  it.each([
    ["latte", 30],
    ["wan_t2v", 63],
    ["wan22_ti2v", 47],
  ])("%s is reproduced with its gradients", async (folder, outputs) => {
    const report = await withRecording(path.join(fixtures, folder), (recording) =>
      verifyRecording(recording, async () => backend),
    );
    expect(report.outputs.filter(({ ok }) => !ok)).toEqual([]);
    expect(report.outputs.length).toBe(outputs);
  });
});

describe("the published models", () => {
  it.each([
    ["Latte-XL/2", "Latte-XL-2-ucf101", 674_112_416],
    ["Latte-XL/2-unconditional", "Latte-XL-2-uncond", 673_994_912],
    ["Wan2.1-T2V-1.3B", "Wan2.1-T2V-1.3B", 1_418_996_800],
    ["Wan2.2-TI2V-5B", "Wan2.2-TI2V-5B", 4_999_787_712],
  ])("%s has the keys and the parameters of its checkpoint", (name, file, parameters) => {
    const { params, output } = traceNetwork(networkPresets().get(name)!);
    const checkpoint = shapedWeights(publishedShapes(file));
    expect(() => checkKeys(params, checkpoint)).not.toThrow();
    const asked = [...params.declared.keys(), ...params.buffers.keys()];
    expect(asked.sort()).toEqual([...checkpoint.entries.keys()].sort());
    // The originals count fixed tables, too.
    const tables = [...params.buffers.values()].map(({ value }) => value.data.length);
    const fixed = tables.reduce((sum, length) => sum + length, 0);
    expect(countParameters(graphOf({ output })) + fixed).toBe(parameters);
  });

  it.each([
    ["Latte-XL-2-ucf101", { kind: "latte", ...lattePresets["Latte-XL/2"] }],
    ["Latte-XL-2-uncond", { kind: "latte", ...lattePresets["Latte-XL/2-unconditional"] }],
    ["Wan2.1-T2V-1.3B", { kind: "wan", ...wanPresets["Wan2.1-T2V-1.3B"] }],
    ["Wan2.2-TI2V-5B", { kind: "wan", ...wanPresets["Wan2.2-TI2V-5B"] }],
  ])("%s is recognised by its keys and shapes", (file, network) => {
    expect(publishedModel(shapedWeights(publishedShapes(file))).network).toEqual(network);
  });

  it("are configs that the schema accepts", () => {
    for (const [kind, presets] of [
      ["latte", lattePresets],
      ["wan", wanPresets],
    ] as const) {
      for (const config of Object.values(presets)) {
        expect(networkSchema().parse({ kind, ...config })).toEqual({ kind, ...config });
      }
    }
  });
});

const tiny: WanConfig = {
  ...wanPresets["Wan2.1-T2V-1.3B"],
  size: [4, 6],
  frames: 2,
  channels: 3,
  outputs: 3,
  hidden: 16,
  inner: 12,
  depth: 2,
  heads: 2,
  frequencies: 8,
  condition: { kind: "text", width: 5, length: 3 },
};

/** A clip of Wan as constants: its latents, its times and its text. */
function clip(seed: number, shape: readonly number[], t: NdArray) {
  return {
    x: constant(randomArray(seed, "float32", shape)),
    t: constant(t),
    text: constant(randomArray(seed + 1, "float32", [shape[0]!, 3, 5])),
  };
}

const times = (...values: number[]) => ndarray("float32", [1, values.length], values);
const time = (value: number) => ndarray("float32", [1], [value]);

describe("Wan", () => {
  const clips = [
    clip(1, [1, 3, 2, 4, 6], time(700)),
    clip(3, [1, 3, 3, 2, 4], time(20.25)),
    clip(5, [1, 3, 1, 4, 4], times(0, 0, 900, 900)),
  ];

  it("gives each of several packed clips what it gives alone", () => {
    const root = createParams();
    const together = packedWan(root, clips, tiny);
    const values = randomValues(root);
    for (const [i, each] of clips.entries()) {
      const [alone] = packedWan(root, [each], tiny);
      const expected = numbersOf(alone!, values);
      const got = numbersOf(together[i]!, values);
      expect(got.every((value, at) => Math.abs(value - expected[at]!) < 1e-6)).toBe(true);
    }
  });

  it("takes one time for all tokens or one for each", () => {
    const root = createParams();
    const [first] = clips;
    const same = { ...first!, t: constant(times(...new Array<number>(12).fill(700))) };
    const other = { ...first!, t: constant(times(0, ...new Array<number>(11).fill(700))) };
    const [one, each, mixed] = [first!, same, other].map((c) => packedWan(root, [c], tiny)[0]!);
    const values = randomValues(root);
    const expected = numbersOf(one!, values);
    const got = numbersOf(each!, values);
    expect(Math.max(...got.map((x, i) => Math.abs(x - expected[i]!)))).toBeLessThan(1e-6);
    expect(numbersOf(mixed!, values)).not.toEqual(expected);
  });

  it("reads padding of the text as zeros", () => {
    const traced = traceNetwork({ kind: "wan", ...tiny });
    const values = {
      ...randomValues(traced.params),
      x: randomArray(1, "float32", [1, 3, 2, 4, 6]),
      t: time(5),
    };
    const masked = (text: NdArray, shown: number[]) =>
      numbersOf(traced.output, { ...values, y: text, mask: ndarray("bool", [1, 3], shown) });
    const text = randomArray(9, "float32", [1, 3, 5]);
    const zeroed = ndarray(
      "float32",
      [1, 3, 5],
      toNumbers(text).map((value, i) => (i < 10 ? value : 0)),
    );
    expect(masked(text, [1, 1, 0])).toEqual(masked(zeroed, [1, 1, 1]));
    expect(masked(text, [1, 1, 1])).not.toEqual(masked(zeroed, [1, 1, 1]));
  });

  it.each<[string, readonly number[], string]>([
    ["a picture", [1, 3, 4, 6], "give a picture as a clip of one frame"],
    ["sides that patches do not divide", [1, 3, 2, 5, 6], "cannot be cut into patches of 1×2×2"],
    ["too many frames", [1, 3, 1025, 2, 2], "end at 1024"],
  ])("refuses %s", (_, shape, message) => {
    const trace = () => packedWan(createParams(), [clip(1, shape, time(1))], tiny);
    expect(trace).toThrow(ShapeError);
    expect(trace).toThrow(message);
  });

  it("has times as precise as in float64", () => {
    const given = [0, 1, 20.25, 333.3333, 937.5, 999, 1000].map(Math.fround);
    const t = input("t", [batch]);
    const values = { t: ndarray("float32", [given.length], given) };
    const got = numbersOf(preciseTimestepEmbedding(t, 64), values);
    const angles = given.map((at) =>
      Array.from({ length: 32 }, (_, i) => at * 10_000 ** (-i / 32)),
    );
    const expected = angles.flatMap((row) => [...row.map(Math.cos), ...row.map(Math.sin)]);
    expect(Math.max(...got.map((x, i) => Math.abs(x - expected[i]!)))).toBeLessThan(1e-6);
  });
});

describe("the arguments of the originals", () => {
  const read = (fields: object) => fieldReader("config.json", fields as Record<string, unknown>);

  it.each<[object, string]>([
    [{ model_type: "i2v" }, '"model_type" = "i2v"'],
    [{ window_size: [4, 4] }, '"window_size" = [4, 4]'],
    [{ patch_size: [2, 2] }, "frames, rows and columns"],
    [{ dim: 30, num_heads: 4 }, "each head needs an even width"],
    [{ speed: 2 }, '"speed", which is no argument of WanModel'],
  ])("of Wan are refused by name: %o", (fields, message) => {
    expect(() => wanConfig(read(fields))).toThrow(FormatError);
    expect(() => wanConfig(read(fields))).toThrow(message);
  });

  it.each<[object, string]>([
    [{ extras: 3 }, '"extras" = 3'],
    [{ depth: 5 }, "come in pairs"],
    [{ frames: 4 }, '"frames", which is no argument of Latte'],
  ])("of Latte are refused by name: %o", (fields, message) => {
    expect(() => latteConfig(read(fields))).toThrow(FormatError);
    expect(() => latteConfig(read(fields))).toThrow(message);
  });

  it("of Latte choose a class, a text or nothing as the condition", () => {
    const kinds = [1, 2, 78].map((extras) => latteConfig(read({ extras })).condition.kind);
    expect(kinds).toEqual(["none", "class", "text"]);
  });

  it("of diffusers' Wan give the same config", () => {
    const config = diffusersWanConfig(
      read({ num_attention_heads: 12, ffn_dim: 8960, num_layers: 30 }),
    );
    expect(config).toEqual(wanPresets["Wan2.1-T2V-1.3B"]);
    expect(() => diffusersWanConfig(read({ image_dim: 1280 }))).toThrow('"image_dim" = 1280');
  });
});

it("diffusers' names of Wan's weights", () => {
  const names = {
    "patch_embedding.weight": "patch_embedding.weight",
    "text_embedding.2.bias": "condition_embedder.text_embedder.linear_2.bias",
    "time_projection.1.weight": "condition_embedder.time_proj.weight",
    "blocks.0.modulation": "blocks.0.scale_shift_table",
    "blocks.0.self_attn.norm_q.weight": "blocks.0.attn1.norm_q.weight",
    "blocks.0.cross_attn.k.bias": "blocks.0.attn2.to_k.bias",
    "blocks.0.cross_attn.o.weight": "blocks.0.attn2.to_out.0.weight",
    "blocks.0.norm3.bias": "blocks.0.norm2.bias",
    "blocks.0.ffn.0.weight": "blocks.0.ffn.net.0.proj.weight",
    "head.modulation": "scale_shift_table",
    "head.head.bias": "proj_out.bias",
  };
  const mapped = Object.keys(names).map((name) => diffusersWanKeys.keyOf(name));
  expect(mapped).toEqual(Object.values(names));
});

it("a Latte whose heads no shape shows asks for them", () => {
  const shapes = publishedShapes("Latte-XL-2-uncond");
  const other = { ...shapes, "x_embedder.proj.weight": [48, 4, 2, 2] };
  expect(() => latteCheckpointConfig(shapedWeights(other))).toThrow("give --heads");
  expect(latteCheckpointConfig(shapedWeights(other), 4).heads).toBe(4);
});
