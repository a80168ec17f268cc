import path from "node:path";
import { describe, expect, it } from "vitest";
import { FormatError, ShapeError } from "../../src/engine/errors.ts";
import { castArray, type NdArray, ndarray, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { countParameters } from "../../src/engine/passes/cost.ts";
import { evaluateFloat64 } from "../../src/engine/reference/evaluate.ts";
import { input } from "../../src/engine/graph/functional.ts";
import { graphOf, leafName } from "../../src/engine/graph/graph.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { batch, resolve } from "../../src/engine/graph/shape.ts";
import { withRecording } from "../../src/verify/recording-node.ts";
import { verifyRecording } from "../../src/verify/verify.ts";
import {
  type ClipText,
  clipText,
  clipTextConfig,
  type ClipTextConfig,
  clipTextIn,
  clipTextParams,
  clipTextPresets,
} from "../../src/models/text-encoders/clip-text.ts";
import { createParams } from "../../src/nn/params.ts";
import { fieldReader } from "../../src/weights/config-fields.ts";
import { bytesSource, openSafetensors, safetensorsBytes } from "../../src/weights/index.ts";
import { randomArray } from "../support/arrays.ts";
import { publishedShapes, shapedWeights, without } from "../support/shaped-weights.ts";

const fixtures = path.resolve(import.meta.dirname, "../fixtures");
const backend = nodeBackend("cpu");
const configOf = (args: Record<string, unknown>) =>
  clipTextConfig(fieldReader("config.json", args));

it.each(["clip_l", "clip_g"])("the recording %s is reproduced", async (folder) => {
  const report = await withRecording(path.join(fixtures, folder), (recording) =>
    verifyRecording(recording, async () => backend),
  );
  expect(report.outputs).toHaveLength(7);
  // The recording's tolerance would hide a wrong epsilon of the norms, which moves outputs by 1e-4.
  for (const { ok, max_error } of report.outputs) {
    expect(ok).toBe(true);
    expect(max_error).toBeLessThan(1e-5);
  }
});

describe.each([
  ["CLIP-L", "CLIP-L-text", 123_650_304],
  ["CLIP-G", "CLIP-G-text", 694_659_840],
] as const)("the published keys of %s", (name, file, count) => {
  const published = publishedShapes(file);
  const table = "text_model.embeddings.token_embedding.weight";

  it("are accepted, have the counted parameters, and give the config of the preset", () => {
    const { config } = clipTextIn(shapedWeights(published), name);
    expect(config).toEqual(clipTextPresets[name]);
    const p = createParams();
    const ids = input("ids", [batch, 77], "int64");
    const { projected } = clipText(p, { ids }, config);
    expect(countParameters(graphOf({ projected }))).toBe(count);
  });

  it("can be in a file with other weights", () => {
    const more = {
      "text_model.embeddings.position_ids": [1, 77],
      logit_scale: [],
      "vision_model.post_layernorm.weight": [1024],
    };
    expect(clipTextIn(shapedWeights({ ...published, ...more }), name).config).toEqual(
      clipTextPresets[name],
    );
  });

  it("can lack the projection if no config requires it", () => {
    const bare = shapedWeights(without(published, "text_projection.weight"));
    expect(clipTextIn(bare, name).config.projection).toBeNull();
    expect(() => clipTextIn(bare, clipTextPresets[name])).toThrow(
      'file does not fit the model: it lacks "text_projection.weight" [',
    );
  });

  it("are refused if one is missing, of another shape, or not of a CLIP", () => {
    const norm = "text_model.final_layer_norm.bias";
    const open = (shapes: Record<string, number[]>) => () =>
      clipTextIn(shapedWeights(shapes), name);
    expect(open(without(published, norm))).toThrow(FormatError);
    expect(open(without(published, norm))).toThrow(`it lacks "${norm}"`);
    expect(open({ ...published, [norm]: [7] })).toThrow(`"${norm}" is [7] instead of [`);
    expect(open({ ...published, "text_model.extra": [7] })).toThrow('has no "text_model.extra"');
    expect(open({})).toThrow("but file has 0 weights");
    expect(open({ [table]: published[table]! })).toThrow("it lacks");
  });
});

describe("clipTextConfig", () => {
  const l = {
    architectures: ["CLIPTextModelWithProjection"],
    hidden_size: 768,
    intermediate_size: 3072,
    num_attention_heads: 12,
    projection_dim: 768,
    eos_token_id: 2,
  };

  it("reads the published configurations", () => {
    expect(configOf(l)).toEqual(clipTextPresets["CLIP-L"]);
    expect(
      configOf({
        ...l,
        hidden_act: "gelu",
        hidden_size: 1280,
        intermediate_size: 5120,
        num_attention_heads: 20,
        num_hidden_layers: 32,
        projection_dim: 1280,
      }),
    ).toEqual(clipTextPresets["CLIP-G"]);
    expect(configOf({ ...l, architectures: ["CLIPTextModel"] }).projection).toBeNull();
    expect(configOf({ ...l, eos_token_id: 49_407 }).end).toBe(49_407);
  });

  it.each([
    [{ hidden_act: "relu" }, '"hidden_act" = "relu", but it must be one of quick_gelu, gelu'],
    [{ architectures: ["CLIPModel"] }, '"architectures" = ["CLIPModel"]'],
    [{ hidden_size: "768" }, '"hidden_size" = "768", but it must be a whole number'],
  ])("refuses %j", (fault, message) => {
    expect(() => configOf({ ...l, ...fault })).toThrow(message);
  });
});

const tiny: ClipTextConfig = {
  vocabulary: 9,
  positions: 6,
  width: 4,
  depth: 2,
  heads: 2,
  hidden: 8,
  activation: "quick_gelu",
  epsilon: 1e-5,
  projection: 3,
};

const weights: Record<string, NdArray> = Object.fromEntries(
  [...clipTextParams(tiny).declared].map(([name, { tensor }], i) => [
    name,
    randomArray(40 + i, "float32", resolve(tensor.shape, undefined), -1, 1),
  ]),
);

/** Each output of one text, row by row. */
function read(
  ids: readonly number[],
  config = tiny,
): { readonly [K in keyof ClipText]: number[][] } {
  const leaf = input("ids", [batch, ids.length], "int64");
  const graph = graphOf({ ...clipText(createParams(), { ids: leaf }, config) });
  const names = graph.parameters.map(leafName);
  const values = Object.fromEntries(names.map((name) => [name, weights[name]!]));
  const given = { ids: ndarray("int64", [1, ids.length], ids), ...values };
  const entries = Object.entries(evaluateFloat64(graph, given)).map(([name, array]) => {
    const width = array.shape.at(-1)!;
    const flat = toNumbers(array);
    const rows = Array.from({ length: flat.length / width }, (_, i) =>
      flat.slice(width * i, width * (i + 1)),
    );
    return [name, rows] as const;
  });
  return Object.fromEntries(entries) as ReturnType<typeof read>;
}

describe("clipText", () => {
  it("lets no token attend to later ones", () => {
    const [before, after] = [read([7, 1, 2, 3, 8, 8]), read([7, 1, 2, 5, 0, 8])];
    for (const layer of ["last", "penultimate"] as const) {
      expect(after[layer].slice(0, 3)).toEqual(before[layer].slice(0, 3));
      expect(after[layer][3]).not.toEqual(before[layer][3]);
      expect(after[layer][5]).not.toEqual(before[layer][5]);
    }
  });

  it("pools at the first largest token, or the first end-of-text token", () => {
    const text = read([7, 1, 8, 8, 0, 3]);
    expect(text.pooled).toEqual([text.last[2]]);
    const ended = read([7, 1, 8, 3, 0, 3], { ...tiny, end: 3 });
    expect(ended.pooled).toEqual([ended.last[3]]);
  });

  it("projects the pooled text if there is a projection", () => {
    const { pooled, projected } = read([7, 1, 8, 8, 8, 8]);
    const rows = toNumbers(weights["text_projection.weight"]!);
    const expected = [0, 1, 2].map((row) =>
      pooled[0]!.reduce((sum, x, i) => sum + x * rows[4 * row + i]!, 0),
    );
    projected[0]!.forEach((x, i) => expect(x).toBeCloseTo(expected[i]!, 12));
    const bare = read([7, 1, 8, 8, 8, 8], { ...tiny, projection: null });
    expect(bare.projected).toEqual(bare.pooled);
  });

  it("accepts shorter texts, but not longer ones", () => {
    const [short, long] = [read([7, 1, 8]), read([7, 1, 8, 8, 8, 8])];
    expect(short.pooled).toEqual(long.pooled);
    expect(() => read([7, 1, 2, 3, 4, 5, 8])).toThrow(ShapeError);
    expect(() => read([7, 1, 2, 3, 4, 5, 8])).toThrow("at most 6 tokens, got 7");
  });

  it("returns the embeddings as the penultimate output of a single layer", () => {
    const { penultimate } = read([7, 1], { ...tiny, depth: 1 });
    const [tokens, places] = ["token", "position"].map((name) =>
      toNumbers(weights[`text_model.embeddings.${name}_embedding.weight`]!),
    ) as [number[], number[]];
    expect(penultimate).toEqual(
      [7, 1].map((id, row) => [0, 1, 2, 3].map((i) => tokens[4 * id + i]! + places[4 * row + i]!)),
    );
  });

  it.each(["float16", "bfloat16"] as const)("computes with weights in %s", async (dtype) => {
    const rounded = Object.values(weights).map((array) => castArray(array, dtype));
    const names = Object.keys(weights);
    const run = async (as: "float32" | typeof dtype) => {
      const tensors = rounded.map((array, i) => [names[i]!, castArray(array, as)] as const);
      const file = await openSafetensors(bytesSource(safetensorsBytes(tensors), "file"));
      const ids = input("ids", [batch, 6], "int64");
      const { last } = clipText(createParams(), { ids }, tiny);
      const program = await backend.compile(graphOf({ last }), {
        weights: clipTextIn(file, tiny).weights,
      });
      const given = { ids: ndarray("int64", [1, 6], [7, 1, 2, 8, 8, 8]) };
      const found = toNumbers((await program.run(given))["last"]!);
      await program.dispose();
      return found;
    };
    expect(await run(dtype)).toEqual(await run("float32"));
  });
});
