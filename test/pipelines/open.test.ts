import {
  copyFileSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { FormatError, PatchwiseError, UsageError } from "../../src/engine/errors.ts";
import { castArray } from "../../src/engine/arrays/ndarray.ts";
import {
  openModel,
  openPipeline,
  type OpenPipelineOptions,
} from "../../src/pipelines/open/open-node.ts";
import type { NetworkConfig } from "../../src/models/index.ts";
import type { LoraTrainingConfig } from "../../src/training/config/config.ts";
import type { TrainContext } from "../../src/training/run/train-node.ts";
import { loraPlan } from "../../src/training/tasks/lora-node.ts";
import { type GenerateRequest } from "../../src/pipelines/settings.ts";
import { finished } from "../../src/pipelines/pipeline.ts";
import { writeSafetensors } from "../../src/weights/index-node.ts";
import { openSafetensorsFile } from "../../src/weights/safetensors/file-node.ts";
import { autoencoderKLConfig } from "../../src/models/coders/autoencoder-kl-config.ts";
import { fieldReader } from "../../src/weights/config-fields.ts";
import {
  narrowVAE,
  writeDiffusersDiT,
  writeOriginalDiT,
  writeVAE,
} from "../support/model-folders.ts";
import { randomWeights, tinyNetwork, tinyTextNetwork } from "../support/tiny-model.ts";
import { smallModels, writeSmallFolder } from "../support/flux-folders.ts";
import { writeTrained } from "../support/trained-folder.ts";

const scratch = mkdtempSync(path.join(tmpdir(), "patchwise-open-"));
const at = (...parts: string[]) => path.join(scratch, ...parts);
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

beforeAll(async () => {
  await writeDiffusersDiT(at("diffusers"));
  await writeDiffusersDiT(at("half"), { half: true });
  await writeOriginalDiT(at("dit.safetensors"));
  await writeVAE(at("autoencoder"));
});

async function draw(source: string, request: GenerateRequest, options: OpenPipelineOptions = {}) {
  const pipeline = await openPipeline(source, options);
  try {
    return await finished(pipeline.generate(request));
  } finally {
    await pipeline.dispose();
  }
}

function apart(a: Uint8Array, b: Uint8Array): number {
  expect(a.length).toBe(b.length);
  return a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i]!)), 0);
}

async function trained(name: string, network?: NetworkConfig) {
  await writeTrained(at(name), network);
  return at(name);
}

/** A trained folder whose card says something else than its weights. */
async function lying(name: string, fields: Record<string, unknown>) {
  const folder = await trained(name);
  const file = path.join(folder, "model.json");
  const card = JSON.parse(readFileSync(file, "utf8")) as { network: object };
  writeFileSync(file, JSON.stringify({ ...card, network: { ...card.network, ...fields } }));
  return folder;
}

/** Sets one field of a config in a copy of a folder. */
function withField(from: string, folder: string, file: string, field: string, value: number) {
  rmSync(folder, { recursive: true, force: true });
  cpSync(from, folder, { recursive: true });
  const config = JSON.parse(readFileSync(path.join(folder, file), "utf8")) as object;
  writeFileSync(path.join(folder, file), JSON.stringify({ ...config, [field]: value }));
  return folder;
}

describe("a config that asks for far more than its weights are", () => {
  beforeAll(() => writeSmallFolder(at("flux"), smallModels.dev));

  it.each([
    [
      "diffusers",
      "transformer/config.json",
      "num_layers",
      /config\.json says that its model has a depth of 1000000000/,
    ],
    [
      "diffusers",
      "transformer/config.json",
      "attention_head_dim",
      /config\.json says that its model has a hidden of/,
    ],
    [
      "diffusers",
      "transformer/config.json",
      "sample_size",
      /config\.json says that its network draws 1000000000×1000000000: it would consist of/,
    ],
    [
      "diffusers",
      "vae/config.json",
      "layers_per_block",
      /vae.* says that its model has a layers of 1000000000/,
    ],
    [
      "flux",
      "transformer/config.json",
      "num_single_layers",
      /says that its model has a singleDepth of/,
    ],
    [
      "flux",
      "transformer/config.json",
      "joint_attention_dim",
      /says that its model has a condition\.width of/,
    ],
    [
      "flux",
      "text_encoder/config.json",
      "num_hidden_layers",
      /text_encoder.* says that its model has a depth of/,
    ],
    [
      "flux",
      "text_encoder/config.json",
      "max_position_embeddings",
      /text_encoder.* has a positions of/,
    ],
    [
      "flux",
      "text_encoder_2/config.json",
      "num_layers",
      /text_encoder_2.* says that its model has a depth of/,
    ],
    ["flux", "text_encoder_2/config.json", "num_heads", /text_encoder_2.* has a heads of/],
  ])("is refused before anything is traced: %s, %s, %s", async (from, file, field, sentence) => {
    const opened = openModel(withField(at(from), at("evil"), file, field, 1e9), {});
    await expect(opened).rejects.toThrow(sentence);
    await expect(opened).rejects.toBeInstanceOf(FormatError);
  });

  it("or for sizes that do not go together is refused in one sentence", async () => {
    const opened = openModel(
      withField(at("diffusers"), at("evil"), "vae/config.json", "norm_num_groups", 3),
    );
    await expect(opened).rejects.toThrow(
      /^The configs of .*evil describe a model that cannot be built: groupNorm: .*; download the whole folder again\.$/,
    );
  });

  it("is refused by LoRA trainings", async () => {
    const base = await lying("lora-base", { depth: 10_000_000 });
    const config = { base, data: { kind: "images", path: at("nowhere") } };
    const planned = loraPlan(config as unknown as LoraTrainingConfig, {} as TrainContext);
    await expect(planned).rejects.toThrow(/says that its model has a depth of 10000000/);
  });
});

describe("a trained folder", () => {
  it("draws classes", async () => {
    const [picture] = await draw(await trained("classes"), { class: "cat" });
    expect(picture).toMatchObject({ width: 8, height: 8, channels: 3, seed: 0 });
  });

  it("draws prompts with the folder's tokenizer", async () => {
    const folder = await trained("prompts", tinyTextNetwork);
    const [red, blue] = await Promise.all(
      ["red cat", "blue dog"].map((prompt) => draw(folder, { prompt })),
    );
    expect(red![0]!.pixels).not.toEqual(blue![0]!.pixels);
  });

  it("draws latents with the folder's autoencoder", async () => {
    const latents = { autoencoder: autoencoderKLConfig(fieldReader("vae", narrowVAE)) };
    await writeTrained(at("latents"), { ...tinyNetwork, channels: 4 }, { latents });
    copyFileSync(
      at("autoencoder/diffusion_pytorch_model.safetensors"),
      at("latents/vae.safetensors"),
    );
    const [picture] = await draw(at("latents"), { class: 0 });
    expect(picture).toMatchObject({ width: 16, height: 16, channels: 3 });
    rmSync(at("latents/vae.safetensors"));
    await expect(draw(at("latents"), { class: 0 })).rejects.toThrow(
      /Cannot open .*vae\.safetensors/,
    );
  });

  it("draws nearly the same from weights in float16", async () => {
    const folder = await trained("precise");
    const half = await trained("halved");
    await writeSafetensors(
      path.join(half, "model.safetensors"),
      Object.entries(randomWeights(tinyNetwork)).map(
        ([name, array]) => [name, castArray(array, "float16")] as const,
      ),
    );
    const [a, b] = await Promise.all([folder, half].map((each) => draw(each, { class: 0 })));
    expect(apart(a![0]!.pixels, b![0]!.pixels)).toBeLessThanOrEqual(8);
  });
});

describe("a folder in diffusers' layout", () => {
  it("draws the classes of its id2label", async () => {
    const pipeline = await openPipeline(at("diffusers"));
    const classOf = (name: string) => pipeline.settings({ class: name }).class;
    expect(["Tinca tinca", "tench", "crane", "1", "2"].map(classOf)).toEqual([
      "tench",
      "tench",
      "crane",
      "1",
      "crane",
    ]);
    expect(pipeline.settings({ class: 0 })).toMatchObject({
      steps: 50,
      guidance: 4,
      sampler: "ddpm",
      width: 8,
      height: 8,
    });
    await pipeline.dispose();
  });

  it.each([
    { _class_name: "DDIMScheduler" },
    { _class_name: "DDIMScheduler", timestep_spacing: "trailing" },
    { _class_name: "EulerDiscreteScheduler" },
    { _class_name: "DPMSolverMultistepScheduler", variance_type: "learned_range" },
    { _class_name: "UniPCMultistepScheduler" },
    { _class_name: "FlowMatchEulerDiscreteScheduler" },
  ])("draws with its scheduler: %j", async (scheduler) => {
    const folder = at(Object.values(scheduler).join("-"));
    await writeDiffusersDiT(folder, { scheduler });
    const [picture] = await draw(folder, { class: 0, steps: 3 });
    expect(new Set(picture!.pixels).size).toBeGreaterThan(10);
  });

  it("draws with another sampler and another autoencoder on request", async () => {
    const request = { class: 0, steps: 3 };
    const [own] = await draw(at("diffusers"), request);
    const [other] = await draw(at("diffusers"), { ...request, sampler: "heun" });
    expect(apart(own!.pixels, other!.pixels)).toBeGreaterThan(1);
    const [same] = await draw(at("diffusers"), request, { vae: at("autoencoder") });
    expect(apart(own!.pixels, same!.pixels)).toBeLessThanOrEqual(1);
  });

  it("draws nearly the same from weights in float16", async () => {
    const request = { class: 0, steps: 3, sampler: "ddim" };
    const [own] = await draw(at("diffusers"), request);
    const [half] = await draw(at("half"), request);
    expect(apart(own!.pixels, half!.pixels)).toBeLessThanOrEqual(8);
  });
});

describe("a single file of facebookresearch/DiT", () => {
  it("draws the same as diffusers' folder of the same weights", async () => {
    const request = { class: 1, count: 2, steps: 5, seed: 3, guidance: 2, guidedChannels: 3 };
    const original = await draw(at("dit.safetensors"), request, { vae: at("autoencoder") });
    const diffusers = await draw(at("diffusers"), request);
    for (const [i, picture] of original.entries()) {
      expect(apart(picture.pixels, diffusers[i]!.pixels)).toBeLessThanOrEqual(1);
    }
    const [free] = await draw(at("diffusers"), { ...request, guidance: 1 });
    expect(apart(original[0]!.pixels, free!.pixels)).toBeGreaterThan(1);
  });

  it.each(["module.", "_orig_mod.", "ema.", "module._orig_mod."])(
    "may have %s before every name",
    async (prefix) => {
      const file = await openSafetensorsFile(at("dit.safetensors"));
      const tensors = await Promise.all(
        [...file.entries.keys()].map(
          async (name) => [`${prefix}${name}`, await file.read(name)] as const,
        ),
      );
      await file.close();
      await writeSafetensors(at("wrapped.safetensors"), tensors);
      const model = await openModel(at("wrapped.safetensors"), { vae: at("autoencoder") });
      expect(model.network).toMatchObject({ kind: "dit", hidden: 128, depth: 2 });
      await model.close();
    },
  );

  it("has the default settings of its own sample.py", async () => {
    const pipeline = await openPipeline(at("dit.safetensors"), { vae: at("diffusers"), heads: 2 });
    expect(pipeline.name).toBe("dit");
    expect(pipeline.settings({ class: 2 })).toEqual({
      class: "2",
      seed: 0,
      steps: 250,
      guidance: 4,
      guidedChannels: 3,
      width: 8,
      height: 8,
      count: 1,
      sampler: "ddpm",
      warnings: [],
    });
    await pipeline.dispose();
  });
});

it("draws in a separate process, with the same bits", async () => {
  const request = { class: 1, steps: 3, seed: 3 };
  const [here] = await draw(at("diffusers"), request);
  const [there] = await draw(at("diffusers"), request, { worker: true });
  expect(there!.pixels).toEqual(here!.pixels);
});

describe("openPipeline refuses", () => {
  const write = (name: string, content: string) => {
    mkdirSync(path.dirname(at(name)), { recursive: true });
    writeFileSync(at(name), content);
    return at(name);
  };
  const without = async (name: string, part: string) => {
    await writeDiffusersDiT(at(name));
    rmSync(at(name, part), { recursive: true });
    return at(name);
  };

  it.each<
    [string, () => string | Promise<string>, new (m: string) => Error, RegExp, OpenPipelineOptions?]
  >([
    [
      "a path of nothing",
      () => "nowhere",
      UsageError,
      /no model "nowhere": no folder or file has this path/,
    ],
    [
      "an architecture",
      () => "DiT-XL/2",
      UsageError,
      /is the name of an architecture without weights/,
    ],
    [
      "a folder of weights",
      () => at(),
      UsageError,
      /holds files of weights, but nothing that says what belongs together; give the file of a network/,
    ],
    ["a pickle", () => write("a.pt", ""), FormatError, /convert it in Python: safetensors\.torch/],
    ["a picture", () => write("a.png", ""), UsageError, /is not a model file of a known kind/],
    [
      "a card of huge pictures",
      () => lying("huge", { size: [8, 8_000_000] }),
      FormatError,
      /draws 8×8000000: it would consist of 4,000,000 patches/,
    ],
    [
      "a card of another size",
      () => lying("lying", { hidden: 1_000_000_000 }),
      FormatError,
      /says that its model has a hidden of 1000000000/,
    ],
    [
      "a card of another depth",
      () => lying("deep", { depth: 10_000_000 }),
      FormatError,
      /says that its model has a depth of 10000000/,
    ],
    ["no card", () => path.dirname(write("b/model.json", "{")), FormatError, /not valid JSON/],
    [
      "a card of something else",
      () => path.dirname(write("c/model.json", "{}")),
      FormatError,
      /is not the model\.json of a trained model \(format/,
    ],
    [
      "the weights of a trained folder alone",
      async () => path.join(await trained("alone"), "model.safetensors"),
      UsageError,
      /holds weights only; give their folder/,
    ],
    [
      "a trained folder without weights",
      async () => {
        const folder = await trained("weightless");
        rmSync(path.join(folder, "model.safetensors"));
        return folder;
      },
      PatchwiseError,
      /Cannot open .*model\.safetensors: there is no such file/,
    ],
    [
      "a truncated file",
      async () => {
        const folder = await trained("truncated");
        truncateSync(path.join(folder, "model.safetensors"), 5000);
        return folder;
      },
      FormatError,
      /truncated/,
    ],
    [
      "a checkpoint of another model",
      async () => {
        const folder = await trained("exchanged");
        copyFileSync(at("dit.safetensors"), path.join(folder, "model.safetensors"));
        return folder;
      },
      FormatError,
      /does not fit the model: .*it lacks|does not fit the model: .*instead of/,
    ],
    [
      "a file of another model",
      () => at("autoencoder/diffusion_pytorch_model.safetensors"),
      FormatError,
      /is an autoencoder, which draws nothing by itself; give the file of a network as the model, and this one as --vae/,
    ],
    ["latents without a VAE", () => at("dit.safetensors"), UsageError, /draws latents.*--vae/],
    [
      "a VAE that is not there",
      () => at("dit.safetensors"),
      UsageError,
      /There is no VAE nowhere/,
      { vae: "nowhere" },
    ],
    [
      "a VAE that is none",
      () => at("dit.safetensors"),
      FormatError,
      /does not fit the model/,
      { vae: at("dit.safetensors") },
    ],
    [
      "a folder without VAE",
      () => at("dit.safetensors"),
      UsageError,
      /has no config\.json/,
      { vae: at("diffusers/scheduler") },
    ],
    [
      "a pipeline of another class",
      () =>
        path.dirname(write("sd/model_index.json", '{ "_class_name": "StableDiffusionPipeline" }')),
      FormatError,
      /describes a StableDiffusionPipeline, but only these .* DiTPipeline, StableDiffusion3Pipeline, /,
    ],
    ["no transformer", () => without("d", "transformer"), FormatError, /lacks its transformer/],
    ["no scheduler", () => without("e", "scheduler"), FormatError, /lacks its scheduler/],
    ["no vae", () => without("f", "vae"), FormatError, /lacks its vae/],
    [
      "no weights",
      () => without("g", "transformer/diffusion_pytorch_model.safetensors"),
      FormatError,
      /holds no weights/,
    ],
    [
      "pickled weights",
      async () => {
        const folder = await without("h", "vae/diffusion_pytorch_model.safetensors");
        writeFileSync(path.join(folder, "vae/diffusion_pytorch_model.bin"), "");
        return folder;
      },
      FormatError,
      /PyTorch pickle.*safe_serialization=True/,
    ],
    [
      "an unknown scheduler",
      async () => {
        await writeDiffusersDiT(at("i"), { scheduler: { _class_name: "DDIMSchedular" } });
        return at("i");
      },
      FormatError,
      /"DDIMSchedular", which is not known; nearest are DDIMScheduler/,
    ],
  ])("%s", async (_, source, kind, sentence, options = {}) => {
    const opening = openPipeline(await source(), options);
    await expect(opening).rejects.toThrow(sentence);
    await expect(opening).rejects.toBeInstanceOf(kind);
  });
});
