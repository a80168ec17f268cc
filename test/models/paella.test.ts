import path from "node:path";
import { describe, expect, it } from "vitest";
import { countParameters } from "../../src/engine/passes/cost.ts";
import { evaluateFloat64 } from "../../src/engine/reference/evaluate.ts";
import { graphOf } from "../../src/engine/graph/graph.ts";
import { input } from "../../src/engine/graph/functional.ts";
import { type NdArray, ndarray, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { batch } from "../../src/engine/graph/shape.ts";
import { withRecording } from "../../src/verify/recording-node.ts";
import { verifyRecording } from "../../src/verify/verify.ts";
import {
  paella,
  type PaellaConfig,
  paellaConfig,
  paellaPresets,
} from "../../src/models/paella/paella.ts";
import { paellaV1, paellaV1Config, paellaV1Presets } from "../../src/models/paella/paella-v1.ts";
import {
  decodeQuantized,
  decodeCodes,
  encodeToCodes,
  type VQGANConfig,
  vqganKeys,
  vqganPresets,
} from "../../src/models/coders/vqgan.ts";
import { createParams, type ParamsRoot } from "../../src/nn/params.ts";
import { countedPresets } from "../../src/pipelines/counted-presets.ts";
import { checkKeys, type KeyMap } from "../../src/weights/check-keys.ts";
import { fieldReader } from "../../src/weights/config-fields.ts";
import { randomArray } from "../support/arrays.ts";
import { evaluated, randomValues } from "../support/network-values.ts";
import { publishedShapes, shapedWeights } from "../support/shaped-weights.ts";

const fixtures = path.resolve(import.meta.dirname, "../fixtures");
const backend = nodeBackend("cpu");

const tokensOf = (side: number) => input("tokens", [batch, side, side], "int64");

describe("recordings of the original implementations", () => {
  it.each([
    ["paella", 145],
    ["paella_v1", 125],
    ["paella_wide", 89],
    ["paella_v1_wide", 82],
    ["paella_vqgan", 6],
  ])("%s is reproduced, with exactly equal codes", async (folder, outputs) => {
    const report = await withRecording(path.join(fixtures, folder), (recording) =>
      verifyRecording(recording, async () => backend),
    );
    expect(report.outputs.filter(({ ok }) => !ok)).toEqual([]);
    expect(report.outputs).toHaveLength(outputs);
  });
});

describe("the published models", () => {
  const paramsOf: Readonly<Record<string, (params: ParamsRoot) => unknown>> = {
    "Paella-v1": (params) => {
      const told = { share: input("share", [batch]), clip: input("clip", [batch, 1024]) };
      return paellaV1(params, { tokens: tokensOf(32), ...told }, paellaV1Presets["Paella-v1"]);
    },
    "Paella-v3": (params) => {
      const told = { share: input("share", [batch]), text: input("text", [batch, 8, 2560]) };
      return paella(params, { tokens: tokensOf(16), ...told }, paellaPresets["Paella-v3"]);
    },
    "Paella-VQGAN": (params) => {
      const config = vqganPresets["Paella-VQGAN"];
      encodeToCodes(params, input("images", [batch, 3, 8, 8]), config);
      return decodeCodes(params, tokensOf(2), config);
    },
  };

  it.each([
    ["Paella-v1", "Paella-v1", 577_995_184, undefined],
    ["Paella-v3", "Paella-v3", 1_008_350_592, undefined],
    ["Paella-VQGAN", "Paella-v3-VQGAN", 18_406_894, vqganKeys([])],
  ] as const)(
    "%s has the keys of its checkpoint, and its parameters",
    (name, file, count, keys?: KeyMap) => {
      const params = createParams();
      paramsOf[name]!(params);
      const checkpoint = shapedWeights(publishedShapes(file));
      expect(() => checkKeys(params, checkpoint, keys)).not.toThrow();
      expect(countParameters(countedPresets().get(name)!.graph())).toBe(count);
    },
  );
});

describe("Paella", () => {
  const small: PaellaConfig = {
    ...paellaPresets["Paella-v3"],
    codebook: 16,
    channels: 4,
    shareWidth: 7,
    conditionWidth: 8,
    textWidth: 6,
    clipWidth: 5,
    clipTokens: 2,
    levels: [
      { width: 8, heads: -1, blocks: 1, parts: "CFT" },
      { width: 12, heads: 3, blocks: 1, parts: "CA" },
    ],
  };
  const tokens = ndarray("int64", [1, 4, 4], [...new Array(16).keys()]);
  const logits = (config: PaellaConfig, given: Record<string, NdArray>) => {
    const params = createParams();
    const output = paella(
      params,
      {
        tokens: tokensOf(4),
        share: input("share", [batch]),
        text: input("text", [batch, 3, 6]),
        clipImage: "clipImage" in given ? input("clipImage", [batch, 5]) : undefined,
      },
      config,
    );
    return evaluated(output, { ...randomValues(params), tokens, ...given });
  };
  const told = {
    share: ndarray("float32", [1], [0.5]),
    text: randomArray(1, "float32", [1, 3, 6]),
  };

  it("gives logits of each position that depend on noise ratio, text and picture", () => {
    const plain = logits(small, told);
    expect(plain.shape).toEqual([1, 16, 4, 4]);
    for (const other of [
      { ...told, share: ndarray("float32", [1], [0.6]) },
      { ...told, text: randomArray(2, "float32", [1, 3, 6]) },
      { ...told, clipImage: randomArray(3, "float32", [1, 5]) },
    ]) {
      expect(toNumbers(logits(small, other))).not.toEqual(toNumbers(plain));
    }
  });

  it("attends to the condition alone without self-attention", () => {
    const alone = logits({ ...small, selfAttention: false }, told);
    expect(toNumbers(alone)).not.toEqual(toNumbers(logits(small, told)));
  });

  it("reads the arguments of the original", () => {
    const read = (fields: object) => paellaConfig(fieldReader("args", { ...fields }));
    expect(read({ byt5_embd: 2560 })).toEqual(paellaPresets["Paella-v3"]);
    expect(() => read({ level_config: "CT" })).toThrow(
      'args has "level_config" = "CT", but it must be a list of strings.',
    );
    expect(() => read({ level_config: ["CT"] })).toThrow(
      'args has "level_config" for 1 levels, but c_hidden for 3; give one for each.',
    );
    expect(() => read({ nhead: [-1, 16, -1] })).toThrow(
      'args divides a width of 1280 into -1 heads; correct "nhead".',
    );
    expect(() => read({ c_out: 8 })).toThrow('another "c_out" than "c_in", 256');
    expect(() => read({ kernel_size: 4 })).toThrow('"kernel_size" = 4; give an odd number');
  });

  it("refuses codes that its levels cannot halve, and unknown parts", () => {
    const trace = (config: PaellaConfig, side: number) => () => {
      const inputs = { share: input("share", [batch]), text: input("text", [batch, 3, 6]) };
      return paella(createParams(), { tokens: tokensOf(side), ...inputs }, config);
    };
    expect(trace(small, 4)).not.toThrow();
    expect(trace(small, 6)).toThrow(
      "A map of tokens of 6×6 cannot be made 4 times smaller, as this network does; use multiples of 4, at least 4.",
    );
    const levels = [{ width: 8, heads: -1, blocks: 1, parts: "CX" }];
    expect(trace({ ...small, levels }, 4)).toThrow('the part "X"; use only C, T, A and F');
  });
});

describe("Paella version 1", () => {
  const read = (fields: object) => paellaV1Config(fieldReader("args", { ...fields }));

  it("reads the arguments of the original", () => {
    expect(read({ num_labels: 8192 })).toEqual(paellaV1Presets["Paella-v1"]);
    expect(() => read({})).toThrow('args has no "num_labels"');
    expect(() => read({ num_labels: 8, up_levels: [1, 2] })).toThrow(
      "args has 3 down_levels and 2 up_levels; give as many of both.",
    );
  });

  it("refuses codes that its levels cannot halve or pad by reflection", () => {
    const config = read({ num_labels: 8, c_hidden: 16, c_clip: 4, c_r: 8 });
    const trace = (side: number) => () => {
      const told = { share: input("share", [batch]), clip: input("clip", [batch, 4]) };
      return paellaV1(createParams(), { tokens: tokensOf(side), ...told }, config);
    };
    expect(trace(8)).not.toThrow();
    expect(trace(10)).toThrow("10×10 cannot be made 4 times smaller");
    expect(trace(4)).toThrow("use multiples of 4, at least 8");
  });
});

describe("the VQGAN", () => {
  const config: VQGANConfig = {
    ...vqganPresets["Paella-VQGAN"],
    levels: 3,
    bottleneckBlocks: 1,
    hidden: 16,
    codebook: 8,
  };
  const params = createParams();
  const images = input("images", [batch, 3, 16, 8]);
  const { latents, quantized, indices } = encodeToCodes(params, images, config);
  const shown = {
    latents,
    quantized,
    indices,
    decoded: decodeQuantized(params, quantized, config),
    again: decodeCodes(params, indices, config),
  };
  const values: Record<string, NdArray> = {
    ...randomValues(params),
    images: randomArray(9, "float32", [2, 3, 16, 8]),
  };
  const found = evaluateFloat64(graphOf(shown), values);

  it("encodes 2^levels × 2^levels pixels as one code, and decodes codes to pictures", () => {
    expect(found["indices"]!.shape).toEqual([2, 2, 1]);
    expect(found["decoded"]!.shape).toEqual([2, 3, 16, 8]);
  });

  it("decodes code numbers like their vectors", () => {
    const [decoded, again] = [toNumbers(found["decoded"]!), toNumbers(found["again"]!)];
    for (const [i, value] of decoded.entries()) expect(again[i]).toBeCloseTo(value, 5);
  });

  it("chooses the nearest of all codes", () => {
    const codes = toNumbers(values["vquantizer.codebook.weight"]!);
    const encoded = toNumbers(found["latents"]!).map((value) => value * config.scale);
    const nearest = toNumbers(found["indices"]!);
    for (const [place, index] of nearest.entries()) {
      const distance = (code: number) =>
        [0, 1, 2, 3].reduce((sum, channel) => {
          // [B, C, 2, 1]
          const at = (Math.floor(place / 2) * 4 + channel) * 2 + (place % 2);
          return sum + (encoded[at]! - codes[4 * code + channel]!) ** 2;
        }, 0);
      const distances = [...new Array(8).keys()].map(distance);
      expect(distances[index]).toBe(Math.min(...distances));
    }
  });
});
