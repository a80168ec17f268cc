import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { sizeOf } from "../../src/engine/arrays/ndarray.ts";
import { countParameters } from "../../src/engine/passes/cost.ts";
import { networkPresets, traceNetwork } from "../../src/models/network.ts";
import { declaredTensors } from "../../src/nn/params.ts";
import { countedPresets } from "../../src/pipelines/counted-presets.ts";
import { lonePart } from "../../src/pipelines/open/lone-part.ts";
import { openModel } from "../../src/pipelines/open/open-node.ts";
import { openSafetensorsFile } from "../../src/weights/safetensors/file-node.ts";
import { closing } from "../../src/weights/sources/closing.ts";
import { patchwise } from "../support/cli.ts";
import { publishedShapes } from "../support/shaped-weights.ts";

const scratch = mkdtempSync(path.join(tmpdir(), "patchwise-published-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

/** A file of a published model in bfloat16, at its full length: a hole in the file system, which takes no room on the disk. */
function hollowFile(list: string): string {
  let end = 0;
  const header: Record<string, unknown> = {};
  for (const [name, shape] of Object.entries(publishedShapes(list))) {
    const start = end;
    end += 2 * sizeOf(shape);
    header[name] = { dtype: "BF16", shape, data_offsets: [start, end] };
  }
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  const file = path.join(scratch, `${list}.safetensors`);
  const descriptor = openSync(file, "w");
  writeSync(descriptor, Buffer.concat([length, json]));
  ftruncateSync(descriptor, 8 + json.length + end);
  closeSync(descriptor);
  return file;
}

/** The counts of `published.json`: of the original code at full size. */
const counts: Readonly<Record<string, number>> = {
  "FLUX.1-dev": 11_901_408_320,
  "FLUX.1-schnell": 11_891_178_560,
  "FLUX.1-ae": 83_819_683,
  "FLUX.2-klein-4B": 3_875_544_576,
  "FLUX.2-ae": 84_046_115,
  "Z-Image-Turbo": 6_154_908_736,
  "Qwen3-4B": 4_022_468_096,
  "MiniT2I-B/16": 258_122_880,
  "MiniT2I-B/16-MF": 262_076_544,
  "MiniT2I-L/16": 911_766_696,
  "flan-t5-large": 341_231_104,
  "T5-XXL": 4_762_310_656,
  "CLIP-L": 123_650_304,
  "CLIP-G": 694_659_840,
  "SD3-medium": 2_028_328_000,
  "SD3.5-medium": 2_243_171_520,
  "SD3.5-large": 8_056_627_520,
  "SD-VAE": 83_653_863,
  "SD3-VAE": 83_819_683,
  "Sana-1.6B": 1_604_462_752,
  "Wan2.1-T2V-1.3B": 1_418_996_800,
  "Wan2.2-TI2V-5B": 4_999_787_712,
  "Wan2.1-VAE": 126_892_531,
  "Wan2.2-VAE": 704_688_668,
  "Paella-v1": 577_995_184,
  "Paella-v3": 1_008_350_592,
  "Paella-VQGAN": 18_406_894,
};

it.each(Object.entries(counts))("the preset %s has %d parameters", (name, parameters) => {
  expect(countedPreset(name)).toBe(parameters);
});

function countedPreset(name: string): number {
  const network = networkPresets().get(name);
  return countParameters(
    network
      ? { parameters: declaredTensors(traceNetwork(network).params) }
      : countedPresets().get(name)!.graph(),
  );
}

describe("the published file of a network", () => {
  it.each([
    ["FLUX.1-dev", "FLUX.1-dev", 28, 3.5],
    ["FLUX.1-schnell", "FLUX.1-schnell", 4, 1],
    ["FLUX.2-klein-4B", "FLUX.2-klein-4B", 4, 1],
    ["Z-Image-Turbo", "Z-Image-Turbo", 8, 1],
    ["Z-Image-Turbo-single-file", "Z-Image-Turbo", 8, 1],
    ["MiniT2I-B-16", "MiniT2I-B/16", 100, 6],
    ["MiniT2I-L-16", "MiniT2I-L/16", 100, 6],
    ["MiniT2I-B-16-MF-flax", "MiniT2I-B/16-MF", 4, 12],
  ] as const)(
    "%s opens with its defaults, and lacks its parts",
    async (list, preset, ...wanted) => {
      const model = await openModel(hollowFile(list));
      await model.close();
      const { steps, guidance } = model.defaults;
      expect([steps, guidance]).toEqual(wanted);
      expect(model.network).toEqual(networkPresets().get(preset));
      expect(model.missingParts).toMatch(/lacks the text encoder/);
      expect(model.process.guidesItself).toBe(preset === "MiniT2I-B/16-MF");
    },
  );

  it("is counted by patchwise info", () => {
    const { code, out, err } = patchwise(["info", hollowFile("FLUX.2-klein-4B"), "--json"]);
    expect([code, err]).toEqual([0, ""]);
    const parameters = counts["FLUX.2-klein-4B"]!;
    expect(JSON.parse(out)).toMatchObject({
      family: "FLUX.2",
      parameters,
      defaults: { steps: 4, guidance: 1, sampler: "euler" },
      stored_bytes: { bfloat16: 2 * parameters },
    });
  });

  it.each([
    ["FLUX.2-klein-4B-diffusers", "holds a network under the names of diffusers"],
    ["PixArt-Sigma-XL-2-1024", "is a PixArt, which is not supported"],
  ])("is named where it cannot be opened: %s", async (list, message) => {
    await expect(openModel(hollowFile(list))).rejects.toThrow(message);
  });
});

describe("the published file of a part", () => {
  it.each([
    ["Qwen3-4B", "Qwen3-4B", "a Qwen3 text encoder", "--text-encoders"],
    ["flan-t5-large-encoder", "flan-t5-large", "a T5 encoder", "--text-encoders"],
    ["T5-XXL-encoder", "T5-XXL", "a T5 encoder", "--text-encoders"],
    ["CLIP-L-text", "CLIP-L", "a CLIP text encoder", "--text-encoders"],
    ["CLIP-G-text", "CLIP-G", "a CLIP text encoder", "--text-encoders"],
    ["FLUX.1-ae", "FLUX.1-ae", "an autoencoder", "--vae"],
    ["FLUX.2-ae", "FLUX.2-ae", "an autoencoder", "--vae"],
    ["SD3-VAE-diffusers", "SD3-VAE", "an autoencoder", "--vae"],
  ])("%s is counted, and draws nothing", async (list, preset, title, option) => {
    const file = hollowFile(list);
    const part = await closing(await openSafetensorsFile(file), async (own) => lonePart(own));
    expect(countParameters(part!.graph())).toBe(counts[preset]);
    await expect(openModel(file)).rejects.toThrow(
      `is ${title}, which draws nothing by itself; give the file of a network as the model, and this one as ${option}`,
    );
  });

  it("is counted by patchwise info", () => {
    const { code, out, err } = patchwise(["info", hollowFile("FLUX.2-ae")]);
    expect([code, err]).toEqual([0, ""]);
    expect(out).toMatch(/\n {2}parameters +84,046,115\n(.*\n)* {2}weights +160 MiB in bfloat16\n/);
  });
});
