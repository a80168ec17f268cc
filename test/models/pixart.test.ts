import { readFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { ShapeError } from "../../src/engine/errors.ts";
import { evaluateFloat64 } from "../../src/engine/reference/evaluate.ts";
import { input } from "../../src/engine/graph/functional.ts";
import { gradient } from "../../src/engine/gradients/gradient.ts";
import { graphOf, leafName } from "../../src/engine/graph/graph.ts";
import { type NdArray, ndarray, sizeOf, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { randomKey } from "../../src/engine/random/random.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { batch, resolve } from "../../src/engine/graph/shape.ts";
import { withRecording } from "../../src/verify/recording-node.ts";
import { verifyRecording } from "../../src/verify/verify.ts";
import {
  pixArt,
  pixArtConfig,
  type PixArtConfig,
  type PixArtInputs,
} from "../../src/models/pixart/pixart.ts";
import { createParams, initialize, type ParamsRoot } from "../../src/nn/params.ts";
import { checkKeys } from "../../src/weights/check-keys.ts";
import { fieldReader } from "../../src/weights/config-fields.ts";
import { randomArray } from "../support/arrays.ts";

const fixtures = path.resolve(import.meta.dirname, "../fixtures");
const backend = nodeBackend("cpu");
const extraLarge: PixArtConfig = {
  size: 128,
  channels: 4,
  outputs: 8,
  patch: 2,
  heads: 16,
  headSize: 72,
  depth: 28,
  textWidth: 4096,
  textProjection: true,
  attentionBias: true,
  gelu: "tanh",
  affineNorms: false,
  epsilon: 1e-6,
  interpolation: 2,
  sizeConditions: false,
};

/** The published models, by image size. */
const pixArtPresets = {
  "PixArt-XL-2-256": { ...extraLarge, size: 32, interpolation: 1 },
  "PixArt-XL-2-512": { ...extraLarge, size: 64, interpolation: 1 },
  "PixArt-XL-2-1024": { ...extraLarge, sizeConditions: true },
  "PixArt-Sigma-XL-2-256": { ...extraLarge, size: 32, interpolation: 1 },
  "PixArt-Sigma-XL-2-512": { ...extraLarge, size: 64, interpolation: 1 },
  "PixArt-Sigma-XL-2-1024": extraLarge,
} satisfies Record<string, PixArtConfig>;

/** Traces the model for its weights, which `checkKeys` and `initialize` need. */
function pixArtParams(config: PixArtConfig): ParamsRoot {
  const { channels, patch, textWidth, sizeConditions } = config;
  const p = createParams();
  const inputs: PixArtInputs = {
    x: input("x", [batch, channels, patch, patch]),
    t: input("t", [batch]),
    text: input("text", [batch, 1, textWidth]),
    ...(sizeConditions && {
      resolution: input("resolution", [batch, 2]),
      aspectRatio: input("aspectRatio", [batch, 1]),
    }),
  };
  pixArt(p, inputs, config);
  return p;
}

const configOf = (args: Record<string, unknown>) => pixArtConfig(fieldReader("config.json", args));

describe("recordings of the original code", () => {
  it.each([
    ["pixart_alpha", 1],
    ["pixart_sigma", 59],
  ])("%s is reproduced with every gradient", async (folder, count) => {
    const report = await withRecording(path.join(fixtures, folder), (recording) =>
      verifyRecording(recording, async () => backend),
    );
    expect(report.outputs.filter(({ ok }) => !ok)).toEqual([]);
    expect(report.outputs).toHaveLength(count);
    // The recording's tolerance would hide a wrong epsilon of the norms, which moves outputs by 8e-6 at least.
    const y = report.outputs.find(({ name }) => name === "out.y")!;
    expect(y.max_error).toBeLessThan(5e-6);
  });
});

describe("the published keys of PixArt-Sigma-XL-2-1024", () => {
  const name = "PixArt-Sigma-XL-2-1024";
  const published = () => {
    const file = path.join(fixtures, "keys", `${name}.json`);
    const shapes = JSON.parse(readFileSync(file, "utf8")) as Record<string, number[]>;
    return new Map(Object.entries(shapes).map(([key, shape]) => [key, { shape }]));
  };
  const params = pixArtParams(pixArtPresets[name]);
  const check = (entries: ReturnType<typeof published>) =>
    checkKeys(params, { name: "file", entries });

  it("are accepted, and have the counted number of parameters", () => {
    expect(() => check(published())).not.toThrow();
    const sizes = [...params.declared.values()].map(({ tensor }) =>
      sizeOf(resolve(tensor.shape, undefined)),
    );
    expect(sizes.reduce((sum, size) => sum + size, 0)).toBe(610_856_096);
  });

  it("are refused by name if one is missing, extra or of another shape", () => {
    for (const key of published().keys()) {
      const entries = published();
      entries.delete(key);
      expect(() => check(entries)).toThrow(`file does not fit the model: it lacks "${key}" [`);
      entries.set(key, { shape: [7] });
      expect(() => check(entries)).toThrow(`"${key}" is [7] instead of [`);
    }
    const extra = published().set("pos_embed.pos", { shape: [1] });
    expect(() => check(extra)).toThrow('the model has no "pos_embed.pos"');
  });

  it("lack the size embedding of the α model for 1024 pixels", () => {
    const alpha = pixArtParams(pixArtPresets["PixArt-XL-2-1024"]);
    expect(() => checkKeys(alpha, { name: "file", entries: published() })).toThrow(
      'it lacks "adaln_single.emb.resolution_embedder.linear_1.weight" [384, 256], ',
    );
  });
});

describe("pixArtConfig", () => {
  const published = { sample_size: 128, caption_channels: 4096, cross_attention_dim: 1152 };

  it("reads the published configurations", () => {
    expect(configOf(published)).toEqual(pixArtPresets["PixArt-XL-2-1024"]);
    expect(configOf({ ...published, use_additional_conditions: false })).toEqual(
      pixArtPresets["PixArt-Sigma-XL-2-1024"],
    );
    expect(configOf({ ...published, sample_size: 32 })).toEqual(pixArtPresets["PixArt-XL-2-256"]);
  });

  it("distinguishes null from missing fields", () => {
    const config = configOf({ in_channels: 3, out_channels: null, cross_attention_dim: 40 });
    expect(config).toMatchObject({ outputs: 3, textWidth: 40, textProjection: false });
    expect(configOf({})).toMatchObject({ outputs: 8, textWidth: 1152 });
  });

  it.each([
    [{ norm_type: "layer_norm" }, '"norm_type" = "layer_norm"'],
    [{ attention_type: "gated" }, '"attention_type" = "gated"'],
    [{ activation_fn: "geglu" }, '"activation_fn" = "geglu", but it must be one of gelu, '],
    [{ caption_channels: 0 }, '"caption_channels" = 0, but it must be a whole number'],
  ])("refuses %j", (fault, message) => {
    expect(() => configOf({ ...published, ...fault })).toThrow(message);
  });
});

const tiny: PixArtConfig = {
  ...pixArtPresets["PixArt-XL-2-1024"],
  size: 8,
  channels: 2,
  outputs: 3,
  heads: 2,
  headSize: 6,
  depth: 2,
  textWidth: 5,
};
const inputs = {
  x: input("x", [batch, 2, 4, 6]),
  t: input("t", [batch]),
  text: input("text", [batch, 4, 5]),
  mask: input("mask", [batch, 4], "bool"),
  resolution: input("resolution", [batch, 2]),
  aspectRatio: input("aspectRatio", [batch, 1]),
};
const given = {
  x: randomArray(1, "float32", [2, 2, 4, 6]),
  t: ndarray("float32", [2], [3, 700]),
  text: randomArray(2, "float32", [2, 4, 5]),
  mask: ndarray("bool", [2, 4], [1, 1, 0, 0, 1, 0, 1, 1]),
  resolution: ndarray("float32", [2, 2], [512, 768, 640, 640]),
  aspectRatio: ndarray("float32", [2, 1], [0.67, 1]),
};

/** Weights none of which is zero, as some are at first. */
function opened(config: PixArtConfig): Record<string, NdArray> {
  return Object.fromEntries(
    [...pixArtParams(config).declared].map(([name, { tensor }], i) => [
      name,
      randomArray(9 + i, "float32", resolve(tensor.shape, undefined), -0.5, 0.5),
    ]),
  );
}

function run(
  weights: Record<string, NdArray>,
  changed: Record<string, NdArray> = {},
  config = tiny,
): number[] {
  const graph = graphOf({ y: pixArt(createParams(), inputs, config) });
  const values: Record<string, NdArray> = { ...given, ...weights, ...changed };
  const leaves = [...graph.inputs, ...graph.parameters].map(leafName);
  const arrays = Object.fromEntries(leaves.map((name) => [name, values[name]!]));
  return toNumbers(evaluateFloat64(graph, arrays)["y"]!);
}

describe("pixArt", () => {
  const weights = opened(tiny);

  it("ignores masked tokens of the text", () => {
    const text = toNumbers(given.text);
    // Token 2 of the first text is masked, token 0 is not.
    const masked = text.map((x, i) => (i >= 10 && i < 15 ? x + 3 : x));
    const seen = text.map((x, i) => (i < 5 ? x + 3 : x));
    const [before, after, other] = [text, masked, seen].map((numbers) =>
      run(weights, { text: ndarray("float32", [2, 4, 5], numbers) }),
    );
    expect(after).toEqual(before);
    expect(other).not.toEqual(before);
  });

  it("depends on every condition, separately for each image", () => {
    const before = run(weights);
    const half = before.length / 2;
    for (const name of ["t", "resolution", "aspectRatio"] as const) {
      const array = given[name];
      const numbers = toNumbers(array);
      // Changed for the second image alone.
      const changed = numbers.map((x, i) => (i >= numbers.length / 2 ? x + 1 : x));
      const after = run(weights, { [name]: ndarray("float32", array.shape, changed) });
      expect(after.slice(0, half)).toEqual(before.slice(0, half));
      expect(after.slice(half)).not.toEqual(before.slice(half));
    }
  });

  it("predicts zero and ignores the text at initialization", () => {
    const first = initialize(pixArtParams(tiny), randomKey(1));
    expect(run(first).every((x) => x === 0)).toBe(true);
    const head = { "proj_out.weight": weights["proj_out.weight"]! };
    const other = { text: randomArray(3, "float32", [2, 4, 5]) };
    expect(run({ ...first, ...head })).toEqual(run({ ...first, ...head }, other));
  });

  it("spans the same positions at every size", () => {
    const table = (config: PixArtConfig, side: number) => {
      const x = input("x", [batch, 2, side, side]);
      const y = pixArt(createParams(), { ...inputs, x }, config);
      const constants = graphOf({ y }).nodes.flatMap(({ attributes }) =>
        "value" in attributes && typeof attributes.value === "object" ? [attributes.value] : [],
      );
      const found = constants.find(({ shape }) => shape.at(-1) === 12 && shape.length === 2)!;
      return Array.from({ length: found.shape[0]! }, (_, i) =>
        toNumbers(found).slice(12 * i, 12 * (i + 1)),
      );
    };
    // Every second patch of twice as many stands where a patch of the config's size does.
    const [small, large] = [table(tiny, 8), table(tiny, 16)];
    small.forEach((row, i) => expect(large[Math.floor(i / 4) * 16 + (i % 4) * 2]).toEqual(row));
    // With interpolation 2, patch 2 stands where patch 1 does without.
    const plain = table({ ...tiny, interpolation: 1 }, 8);
    expect(small[2]).toEqual(plain[1]);
  });

  it("has the same gradients with recomputed blocks", () => {
    const gradients = (recompute: boolean) => {
      const params = createParams();
      const loss = pixArt(params, inputs, tiny, { recompute }).square().mean();
      const wrt = [...params.declared.values()].map(({ tensor }) => tensor);
      const outputs = Object.fromEntries(gradient(loss, wrt).map((g, i) => [`g${i}`, g]));
      const graph = graphOf(outputs);
      const values: Record<string, NdArray> = { ...given, ...weights };
      const leaves = [...graph.inputs, ...graph.parameters].map(leafName);
      return evaluateFloat64(
        graph,
        Object.fromEntries(leaves.map((name) => [name, values[name]!])),
      );
    };
    const [again, kept] = [gradients(true), gradients(false)];
    expect(Object.keys(again)).toHaveLength(pixArtParams(tiny).declared.size);
    for (const [name, array] of Object.entries(kept)) {
      const numbers = toNumbers(again[name]!);
      toNumbers(array).forEach((x, i) => expect(numbers[i]).toBeCloseTo(x, 10));
    }
  });

  const sized = { x: inputs.x, t: inputs.t, text: inputs.text };
  const cases: readonly (readonly [string, PixArtInputs, PixArtConfig, string])[] = [
    ["a missing size", sized, tiny, "give both"],
    ["a needless size", inputs, { ...tiny, sizeConditions: false }, "leave them out"],
    ["a width that three do not divide", inputs, { ...tiny, headSize: 8 }, "which 16 cannot be"],
    ["latents that patches do not divide", inputs, { ...tiny, patch: 4 }, "cannot be cut"],
  ];
  it.each(cases)("refuses %s", (_, wrong, config, message) => {
    const trace = () => pixArt(createParams(), wrong, config);
    expect(trace).toThrow(ShapeError);
    expect(trace).toThrow(message);
  });
});
