import path from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { countParameters } from "../../src/engine/passes/cost.ts";
import { FormatError } from "../../src/engine/errors.ts";
import { evaluateFloat64 } from "../../src/engine/reference/evaluate.ts";
import { input } from "../../src/engine/graph/functional.ts";
import { graphOf, leafName } from "../../src/engine/graph/graph.ts";
import { type NdArray, ndarray, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { batch, resolve } from "../../src/engine/graph/shape.ts";
import { withRecording } from "../../src/verify/recording-node.ts";
import { verifyRecording } from "../../src/verify/verify.ts";
import {
  distanceBucket,
  t5Encoder,
  t5EncoderConfig,
  type T5EncoderConfig,
  t5EncoderIn,
  t5EncoderParams,
  t5EncoderPresets,
} from "../../src/models/text-encoders/t5-encoder.ts";
import { createParams } from "../../src/nn/params.ts";
import { fieldReader } from "../../src/weights/config-fields.ts";
import { randomArray } from "../support/arrays.ts";
import { publishedShapes, shapedWeights, without } from "../support/shaped-weights.ts";

const fixtures = path.resolve(import.meta.dirname, "../fixtures");
const preset = t5EncoderPresets["T5-XXL"];

it("the recording of the original is reproduced", async () => {
  const report = await withRecording(path.join(fixtures, "t5"), (recording) =>
    verifyRecording(recording, async () => nodeBackend("cpu")),
  );
  expect(report.outputs.map(({ name }) => name)).toEqual([
    "out.case0.last_hidden_state",
    "out.case1.last_hidden_state",
    "out.bucket_row0",
  ]);
  for (const { ok, max_error } of report.outputs) {
    expect(ok).toBe(true);
    expect(max_error).toBeLessThan(2e-5);
  }
});

describe("the published keys of T5-XXL", () => {
  const published = publishedShapes("T5-XXL-encoder");
  const [own, shared] = ["encoder.embed_tokens.weight", "shared.weight"];
  const table = published[own]!;
  const open = (shapes: Record<string, number[]>) => t5EncoderIn(shapedWeights(shapes));

  it("are accepted, have the counted parameters, and give the config of the preset", () => {
    const { config } = open(published);
    expect(config).toEqual(preset);
    const ids = input("ids", [batch, 4], "int64");
    const graph = graphOf({ y: t5Encoder(createParams(), { ids }, config) });
    expect(countParameters(graph)).toBe(4_762_310_656);
  });

  it("of flan-t5-large give the config of its preset", () => {
    const { config } = open(publishedShapes("flan-t5-large-encoder"));
    expect(config).toEqual(t5EncoderPresets["flan-t5-large"]);
  });

  it("can have either name of the token table, or both, and a decoder beside them", () => {
    const tables = [
      { [own]: table },
      { [shared]: table },
      {
        [own]: table,
        [shared]: table,
        "decoder.final_layer_norm.weight": [4096],
        "lm_head.weight": table,
      },
    ];
    for (const names of tables) {
      expect(open({ ...without(published, own), ...names }).config).toEqual(preset);
    }
    expect(() => open(without(published, own))).toThrow(`it lacks "${shared}" [32128, 4096]`);
  });

  it("are refused if one is missing, extra or of another shape", () => {
    const key = "encoder.block.3.layer.1.DenseReluDense.wo.weight";
    expect(() => open(without(published, key))).toThrow(FormatError);
    expect(() => open(without(published, key))).toThrow(`it lacks "${key}"`);
    expect(() => open({ ...published, [key]: [7] })).toThrow(`"${key}" is [7] instead of [`);
    // The first T5's feed-forward layers.
    const gateless = "encoder.block.0.layer.1.DenseReluDense.wi.weight";
    expect(() => open({ ...published, [gateless]: [7] })).toThrow(`has no "${gateless}"`);
    expect(() => open({})).toThrow("but file has 0 weights");
  });
});

describe("t5EncoderConfig", () => {
  const xxl = {
    d_model: 4096,
    num_layers: 24,
    num_heads: 64,
    d_ff: 10_240,
    feed_forward_proj: "gated-gelu",
  };
  const configOf = (args: Record<string, unknown>) =>
    t5EncoderConfig(fieldReader("config.json", args));

  it("reads the published configuration", () => {
    expect(configOf(xxl)).toEqual(preset);
    expect(configOf({ feed_forward_proj: "gated-gelu" })).toMatchObject({ heads: 8, headSize: 64 });
  });

  it.each([
    [
      { feed_forward_proj: "relu" },
      '"feed_forward_proj" = "relu", but it must be one of gated-gelu',
    ],
    [{ feed_forward_proj: null }, 'has no "feed_forward_proj"'],
    [{ relative_attention_num_buckets: 3 }, "has 3 "],
    [{ relative_attention_max_distance: 8 }, "for distances up to 8"],
  ])("refuses %j", (fault, message) => {
    expect(() => configOf({ ...xxl, ...fault })).toThrow(message);
  });
});

describe("distanceBucket", () => {
  it("assigns non-decreasing buckets to distances, separate for both directions", () => {
    const config = fc.record({
      buckets: fc.integer({ min: 2, max: 64 }).map((half) => 2 * half),
      maxDistance: fc.integer({ min: 40, max: 1000 }),
    });
    fc.assert(
      fc.property(config, fc.integer({ min: 1, max: 5000 }), (given, distance) => {
        const half = given.buckets / 2;
        const [before, nearer] = [
          distanceBucket(-distance, given),
          distanceBucket(1 - distance, given),
        ];
        expect(before).toBeGreaterThanOrEqual(nearer);
        expect(before - nearer).toBeLessThanOrEqual(half);
        expect(before).toBeLessThan(half);
        expect(distanceBucket(distance, given)).toBe(half + before);
        const known =
          distance >= given.maxDistance
            ? half - 1
            : distance < Math.floor(half / 2)
              ? distance
              : before;
        expect(before).toBe(known);
      }),
      { seed: 1 },
    );
    expect(distanceBucket(0, preset)).toBe(0);
  });
});

const tiny: T5EncoderConfig = {
  vocabulary: 7,
  width: 6,
  depth: 2,
  heads: 2,
  headSize: 4,
  hidden: 5,
  buckets: 8,
  maxDistance: 6,
  epsilon: 1e-6,
  biasEachLayer: false,
};

const weights: Record<string, NdArray> = Object.fromEntries(
  [...t5EncoderParams(tiny).declared].map(([name, { tensor }], i) => [
    name,
    randomArray(70 + i, "float32", resolve(tensor.shape, undefined), -1, 1),
  ]),
);

/** The tokens of one text. */
function read(ids: readonly number[], mask?: readonly number[]): number[][] {
  const length = ids.length;
  const leaves = {
    ids: input("ids", [batch, length], "int64"),
    ...(mask && { mask: input("mask", [batch, length], "bool") }),
  };
  const graph = graphOf({ y: t5Encoder(createParams(), leaves, tiny) });
  const names = graph.parameters.map(leafName);
  const flat = toNumbers(
    evaluateFloat64(graph, {
      ids: ndarray("int64", [1, length], ids),
      ...(mask && { mask: ndarray("bool", [1, length], mask) }),
      ...Object.fromEntries(names.map((name) => [name, weights[name]!])),
    })["y"]!,
  );
  return Array.from({ length }, (_, i) => flat.slice(6 * i, 6 * (i + 1)));
}

describe("t5Encoder", () => {
  it("lets every token attend to all tokens", () => {
    const [before, after] = [read([1, 2, 3, 4]), read([1, 2, 3, 5])];
    for (const token of [0, 1, 2, 3]) expect(after[token]).not.toEqual(before[token]);
  });

  it("ignores padding with a mask, and attends to it without one", () => {
    const [padded, other] = [read([1, 2, 0, 0], [1, 1, 0, 0]), read([1, 2, 5, 6], [1, 1, 0, 0])];
    expect(other.slice(0, 2)).toEqual(padded.slice(0, 2));
    read([1, 2]).forEach((row, i) =>
      row.forEach((x, j) => expect(x).toBeCloseTo(padded[i]![j]!, 12)),
    );
    expect(read([1, 2, 5, 6])[0]).not.toEqual(read([1, 2, 0, 0])[0]);
  });

  it("depends on the order of words only by their distances", () => {
    expect(read([1, 2, 3])[0]).not.toEqual(read([1, 3, 2])[0]);
    // Masked tokens in front move the others, but not against one another.
    const moved = read([0, 0, 1, 2, 3], [0, 0, 1, 1, 1]).slice(2);
    read([1, 2, 3]).forEach((row, i) =>
      row.forEach((x, j) => expect(x).toBeCloseTo(moved[i]![j]!, 12)),
    );
  });
});
