import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { tinySD3, writeSD3File, writeSD3Folder } from "../support/sd3/parts.ts";
import { FormatError, UsageError } from "../../src/engine/errors.ts";
import { castArray, type NdArray, ndarray, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { imagePipeline } from "../../src/pipelines/pipeline.ts";
import {
  openModel,
  openPipeline,
  type OpenPipelineOptions,
} from "../../src/pipelines/open/open-node.ts";
import { openPipelineUrl, type OpenUrlOptions } from "../../src/pipelines/open/open-web.ts";
import { type GenerateRequest } from "../../src/pipelines/settings.ts";
import { finished } from "../../src/pipelines/pipeline.ts";
import { openSafetensorsFile, writeSafetensors } from "../../src/weights/index-node.ts";
import { serveFiles } from "../support/file-server.ts";
import { oneSentence, patchwise } from "../support/cli.ts";
import { watchedBackend } from "../support/watched-backend.ts";

const scratch = mkdtempSync(path.join(tmpdir(), "patchwise-sd3-"));
const at = (...parts: string[]) => path.join(scratch, ...parts);
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const prompt = "A red cat on the moon, in a small house";
const request: GenerateRequest = {
  prompt,
  width: 64,
  height: 64,
  steps: 3,
  guidance: 4,
  seed: 5,
  sampler: "euler",
};
/** As many in both layouts. */
const options = { promptTokens: 24 };

let folderPixels: Uint8Array;

beforeAll(async () => {
  await writeSD3Folder(at("folder"), tinySD3);
  await writeSD3File(at("file/sd3.safetensors"), tinySD3);
  await writeSD3File(at("bare/sd3.safetensors"), tinySD3, { encoders: false });
  for (const name of ["tokenizer", "tokenizer_2", "tokenizer_3"]) {
    renameSync(at("bare", name), at(`bare-${name}`));
  }
  folderPixels = await drawn(at("folder"));
}, 120_000);

async function drawn(
  source: string,
  more: GenerateRequest = {},
  opening: OpenPipelineOptions = options,
): Promise<Uint8Array> {
  const pipeline = await openPipeline(source, opening);
  try {
    const [picture] = await finished(pipeline.generate({ ...request, ...more }));
    return picture!.pixels;
  } finally {
    await pipeline.dispose();
  }
}

function apart(a: Uint8Array, b: Uint8Array): number {
  expect(a.length).toBe(b.length);
  return a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i]!)), 0);
}

describe("Stable Diffusion 3", () => {
  it("draws the same pixels from a folder and a file, from the library and the command line", async () => {
    expect(new Set(folderPixels).size).toBeGreaterThan(20);
    expect(await drawn(at("file/sd3.safetensors"))).toEqual(folderPixels);
    const { code, err } = patchwise([
      "generate",
      prompt,
      "--model",
      at("folder"),
      "--prompt-tokens",
      "24",
      "--size",
      "64",
      "--steps",
      "3",
      "--guidance",
      "4",
      "--seed",
      "5",
      "--sampler",
      "euler",
      "--out",
      at("cli.png"),
      "--json",
    ]);
    expect({ code, err: err.includes("patchwise:") }).toEqual({ code: 0, err: false });
    const pixels = await sharp(at("cli.png")).raw().toBuffer();
    expect(new Uint8Array(pixels)).toEqual(folderPixels);
  });

  it("has the default settings of diffusers for folders and of Stability's code for files", async () => {
    const settings = async (source: string) => {
      const pipeline = await openPipeline(source);
      const { steps, guidance, sampler, width, height } = pipeline.settings({ prompt });
      await pipeline.dispose();
      return { steps, guidance, sampler, width, height };
    };
    const own = { steps: 28, guidance: 7, sampler: "euler", width: 64, height: 64 };
    expect(await settings(at("folder"))).toEqual(own);
    expect(await settings(at("file/sd3.safetensors"))).toEqual({
      steps: 40,
      guidance: 4.5,
      sampler: "dpmpp-2m-sigma",
      // As large as the table of places.
      width: 192,
      height: 192,
    });
  });

  it("draws other sizes and aspect ratios up to its position table", async () => {
    const pixels = await drawn(at("folder"), { width: 96, height: 32, steps: 1 });
    expect(pixels.length).toBe(3 * 32 * 96);
    await expect(drawn(at("folder"), { width: 208, height: 64 })).rejects.toThrow(
      "folder cannot draw 208×64 pixels: its position table ends at 192×192; give a smaller size.",
    );
  });

  it("follows the prompt and leads away from the negative prompt", async () => {
    const [other, away] = [{ prompt: "a blue dog" }, { negativePrompt: "a blue dog" }];
    expect(apart(await drawn(at("folder"), other), folderPixels)).toBeGreaterThan(1);
    expect(apart(await drawn(at("folder"), away), folderPixels)).toBeGreaterThan(1);
  });

  it("draws nearly the same from float16 under a variant's names, and from shards", async () => {
    await writeSD3Folder(at("half"), tinySD3, { dtype: "float16" });
    for (const [folder, stem] of [
      ["transformer", "diffusion_pytorch_model"],
      ["vae", "diffusion_pytorch_model"],
      ["text_encoder", "model"],
      ["text_encoder_2", "model"],
    ] as const) {
      const name = (variant: string) => at("half", folder, `${stem}${variant}.safetensors`);
      renameSync(name(""), name(".fp16"));
    }
    await shard(at("half/text_encoder_3"), "model", ".fp16");
    expect(apart(await drawn(at("half")), folderPixels)).toBeLessThanOrEqual(3);

    cpSync(at("folder"), at("sharded"), { recursive: true });
    await shard(at("sharded/transformer"), "diffusion_pytorch_model");
    await shard(at("sharded/text_encoder_3"), "model");
    expect(await drawn(at("sharded"))).toEqual(folderPixels);
  });

  it.each(["", "module.", "model.diffusion_model._orig_mod."])(
    "draws the same if the names of the network in its file begin with %j",
    async (prefix) => {
      const file = await openSafetensorsFile(at("file/sd3.safetensors"));
      const usual = "model.diffusion_model.";
      const tensors = [...file.entries.keys()].map(async (name) => {
        const renamed = name.startsWith(usual) ? prefix + name.slice(usual.length) : name;
        return [renamed, await file.read(name)] as const;
      });
      await writeSafetensors(at("file/renamed.safetensors"), await Promise.all(tensors));
      await file.close();
      expect(await drawn(at("file/renamed.safetensors"))).toEqual(folderPixels);
    },
  );

  it("draws from 8-bit floats, plain or scaled, what it draws from the same numbers in float32", async () => {
    const whole = await openSafetensorsFile(at("file/sd3.safetensors"));
    const eighths: [string, NdArray][] = [];
    const widened: [string, NdArray][] = [];
    for (const name of whole.entries.keys()) {
      const array = await whole.read(name);
      // T5 as Stability publishes it, and the network as ComfyUI does.
      const plain = name.startsWith("text_encoders.t5xxl.");
      const scaled = /^model\.diffusion_model\..*\.(qkv|proj|fc1|fc2)\.weight$/.test(name);
      const scale = scaled ? 2 ** -9 * 1.5 : 1;
      const times = (values: NdArray, by: number) =>
        ndarray(
          "float32",
          array.shape,
          toNumbers(values).map((value) => value * by),
        );
      const stored =
        plain || scaled
          ? castArray(times(array, 1 / scale), scaled ? "float8_e4m3fn" : "float8_e5m2")
          : array;
      eighths.push([name, stored]);
      if (scaled)
        eighths.push([name.replace(/weight$/, "scale_weight"), ndarray("float32", [], [scale])]);
      widened.push([name, stored === array ? array : times(stored, scale)]);
    }
    eighths.push(["model.diffusion_model.scaled_fp8", ndarray("float8_e4m3fn", [2], [0, 0])]);
    await writeSafetensors(at("file/eighths.safetensors"), eighths);
    await writeSafetensors(at("file/widened.safetensors"), widened);
    await whole.close();
    const pixels = await drawn(at("file/eighths.safetensors"));
    expect(pixels).toEqual(await drawn(at("file/widened.safetensors")));
    expect(pixels).not.toEqual(folderPixels);
  });

  it("takes parts that its file lacks from other files and folders", async () => {
    const { t5, clips } = await encoderFiles();
    const elsewhere = { ...options, tokenizers: at("folder") };
    const files = { ...elsewhere, textEncoders: [clips, t5] };
    expect(await drawn(at("bare/sd3.safetensors"), {}, files)).toEqual(folderPixels);
    const folders = { ...elsewhere, textEncoders: [at("folder")] };
    expect(await drawn(at("bare/sd3.safetensors"), {}, folders)).toEqual(folderPixels);

    await networkAlone(at("alone.safetensors"));
    const vae = at("folder/vae");
    expect(await drawn(at("alone.safetensors"), {}, { ...folders, vae })).toEqual(folderPixels);
    const other = at("file/sd3.safetensors");
    const inside = { ...elsewhere, textEncoders: [other], vae: other };
    expect(await drawn(at("alone.safetensors"), {}, inside)).toEqual(folderPixels);
  });
});

it("draws from ComfyUI's folders, and from files behind a URL, what it draws from its folder", async () => {
  const folder = at("comfy");
  for (const name of ["diffusion_models", "text_encoders", "vae"])
    mkdirSync(path.join(folder, name), { recursive: true });
  await networkAlone(path.join(folder, "diffusion_models/sd3.safetensors"));
  const encoders = { text_encoder: "clip_l", text_encoder_2: "clip_g", text_encoder_3: "t5xxl" };
  for (const [own, name] of Object.entries(encoders)) {
    const target = path.join(folder, "text_encoders", `${name}.safetensors`);
    copyFileSync(at("folder", own, "model.safetensors"), target);
  }
  const vae = path.join(folder, "vae/sd3_vae.safetensors");
  copyFileSync(at("folder/vae/diffusion_pytorch_model.safetensors"), vae);
  for (const name of ["tokenizer", "tokenizer_2", "tokenizer_3"]) {
    cpSync(at("folder", name), path.join(folder, name), { recursive: true });
  }
  expect(await drawn(folder)).toEqual(folderPixels);
  const without = await drawn(at("folder"), {}, { ...options, without: ["t5"] });
  rmSync(path.join(folder, "text_encoders/t5xxl.safetensors"));
  await expect(openPipeline(folder)).rejects.toThrow(
    /lacks the text encoder T5 \(t5xxl_fp16\.safetensors\); put the file into text_encoders of .*, or give it as --text-encoders \(textEncoders\), or draw with --without t5 \(without\)\.$/,
  );
  expect(await drawn(folder, {}, { ...options, without: ["t5"] })).toEqual(without);

  const server = await serveFiles(scratch);
  const drawnAt = async (file: string, opening: Omit<OpenUrlOptions, "backend"> = {}) => {
    const backend = nodeBackend("cpu");
    const url = `${server.address}${file}`;
    const pipeline = await openPipelineUrl(url, { ...options, ...opening, backend });
    const [picture] = await finished(pipeline.generate(request));
    await pipeline.dispose();
    return picture!.pixels;
  };
  const tokenizers = `${server.address}folder/`;
  try {
    expect(await drawnAt("file/sd3.safetensors", { tokenizers })).toEqual(folderPixels);
    const parts = {
      tokenizers,
      textEncoders: ["clip_l", "clip_g"].map(
        (name) => `${server.address}comfy/text_encoders/${name}.safetensors`,
      ),
      vae: `${server.address}comfy/vae/sd3_vae.safetensors`,
      without: ["t5"],
    };
    expect(await drawnAt("comfy/diffusion_models/sd3.safetensors", parts)).toEqual(without);
  } finally {
    await server.close();
  }
});

/** Files as Stability publishes them: a folder of CLIPs, and T5. */
async function encoderFiles() {
  mkdirSync(at("clips"));
  copyFileSync(at("folder/text_encoder/model.safetensors"), at("clips/clip_l.safetensors"));
  copyFileSync(at("folder/text_encoder_2/model.safetensors"), at("clips/clip_g.safetensors"));
  copyFileSync(at("folder/text_encoder_3/model.safetensors"), at("t5xxl.safetensors"));
  return { clips: at("clips"), t5: at("t5xxl.safetensors") };
}

/** The transformer's weights under bare names. */
async function networkAlone(file: string): Promise<void> {
  const whole = await openSafetensorsFile(at("file/sd3.safetensors"));
  const own: [string, NdArray][] = [];
  for (const name of whole.entries.keys()) {
    const [, bare] = /^model\.diffusion_model\.(.*)$/.exec(name) ?? [];
    if (bare !== undefined) own.push([bare, await whole.read(name)]);
  }
  await whole.close();
  await writeSafetensors(file, own);
}

/** Cuts weights into two files with an index, as transformers and diffusers do. */
async function shard(folder: string, stem: string, variant = ""): Promise<void> {
  const file = path.join(folder, `${stem}.safetensors`);
  const whole = await openSafetensorsFile(file);
  const names = [...whole.entries.keys()];
  const map: Record<string, string> = {};
  for (const part of [0, 1]) {
    const own = names.filter((_, i) => i % 2 === part);
    const shardName = `${stem}${variant}-0000${part + 1}-of-00002.safetensors`;
    const arrays = await Promise.all(
      own.map(async (name) => [name, await whole.read(name)] as const),
    );
    await writeSafetensors(path.join(folder, shardName), arrays);
    for (const name of own) map[name] = shardName;
  }
  await whole.close();
  rmSync(file);
  writeFileSync(
    path.join(folder, `${stem}.safetensors.index${variant}.json`),
    JSON.stringify({ metadata: {}, weight_map: map }),
  );
}

describe("text encoders that are left out", () => {
  it("give zeros, and are not loaded", async () => {
    const { backend, asked } = watchedBackend();
    const model = await openModel(at("folder"), { ...options, without: ["clip-l"] });
    const pipeline = imagePipeline(model, backend);
    await finished(pipeline.generate({ ...request, steps: 1 }));
    await pipeline.dispose();
    const encoders = asked.filter((inputs) => inputs["ids"]);
    expect(encoders.map(({ ids }) => ids!.shape)).toEqual([
      [2, 77],
      [2, 24],
    ]);
    const { context, pooled } = asked.find((inputs) => inputs["x"])!;
    expect(context!.shape).toEqual([2, 77 + 24, 256]);
    const zeros = (array: NdArray, from: number, to: number) =>
      array.data.subarray(from, to).every((value) => Number(value) === 0);
    // CLIP-L's 64 channels, then CLIP-G's 128, then padding up to T5's 256.
    expect([zeros(context!, 0, 64), zeros(context!, 64, 192)]).toEqual([true, false]);
    expect(zeros(context!, 192, 256)).toBe(true);
    expect([zeros(pooled!, 0, 64), zeros(pooled!, 64, 192)]).toEqual([true, false]);
  });

  it("can be any of them, and each changes the picture", async () => {
    const file = at("file/sd3.safetensors");
    const pictures = [folderPixels];
    for (const without of [["t5"], ["clip-l"], ["clip-g"], ["t5", "clip-l", "clip-g"]]) {
      pictures.push(await drawn(file, {}, { ...options, without }));
    }
    for (const [i, one] of pictures.entries()) {
      for (const other of pictures.slice(i + 1)) expect(apart(one, other)).toBeGreaterThan(0);
    }
    const none = pictures.at(-1)!;
    expect(
      await drawn(file, { prompt: "a dog" }, { ...options, without: ["t5", "clip-l", "clip-g"] }),
    ).toEqual(none);
  });

  it("can be those that a folder lacks", async () => {
    await writeSD3Folder(at("mute"), tinySD3, { encoders: false });
    const without = ["t5", "clip-l", "clip-g"];
    const mute = await drawn(at("mute"));
    expect(mute).toEqual(await drawn(at("folder"), {}, { ...options, without }));
    // The file's places begin where the folder's do.
    expect(await drawn(at("bare/sd3.safetensors"), {}, { ...options, without })).toEqual(mute);
    // Zeros stand in T5's place: 256 of them, as diffusers has it, or 77 for the original file.
    const tokens = (promptTokens: number) => drawn(at("mute"), {}, { promptTokens });
    expect(await drawn(at("mute"), {}, {})).toEqual(await tokens(256));
    expect(await drawn(at("bare/sd3.safetensors"), {}, { without })).toEqual(await tokens(77));
  });
});

describe("prompts", () => {
  it("are encoded once for several drawings", async () => {
    const { backend, asked } = watchedBackend();
    const pipeline = imagePipeline(await openModel(at("folder"), options), backend);
    const readings = async (more: GenerateRequest) => {
      asked.length = 0;
      await finished(pipeline.generate({ ...request, steps: 1, ...more }));
      return asked.flatMap(({ ids }) => (ids ? [ids.shape[0]] : []));
    };
    // Three encoders read the prompt and the empty one together.
    expect(await readings({})).toEqual([2, 2, 2]);
    expect(await readings({ seed: 6 })).toEqual([]);
    expect(await readings({ count: 2, negativePrompt: "a dog" })).toEqual([1, 1, 1]);
    expect(await readings({ guidance: 1, prompt: "a dog" })).toEqual([]);
    await pipeline.dispose();
  });

  it("are truncated at the token limit, with a warning that names the rest", async () => {
    const pipeline = await openPipeline(at("folder"), { promptTokens: 4 });
    const long = `${"cat ".repeat(75)}dog bird`;
    expect(pipeline.settings({ prompt: long, guidance: 1 }).warnings).toEqual([
      'The prompt is longer than the 77 tokens that CLIP reads; "dog bird" is ignored.',
      expect.stringMatching(/longer than the 4 tokens that T5 reads; "cat cat .*" is ignored\.$/),
    ]);
    expect(pipeline.settings({ prompt: "a cat" }).warnings).toEqual([]);
    await pipeline.dispose();
  });
});

describe("memory", () => {
  const MiB = 2 ** 20;

  it("is checked for each stage before anything is loaded", async () => {
    const pipeline = await openPipeline(at("folder"), { memory: 138 * MiB });
    const sentence =
      "folder needs 140 MiB of memory for T5, but only 138 MiB are available; leave it out with --without t5.";
    expect(() => pipeline.settings({ prompt })).toThrow(new UsageError(sentence));
    await expect(finished(pipeline.generate({ prompt }))).rejects.toThrow(sentence);
    await pipeline.dispose();
  });

  it("depends on the size and number of pictures", async () => {
    const without = ["t5", "clip-l", "clip-g"];
    const pipeline = await openPipeline(at("folder"), { without, memory: 150 * MiB });
    expect(pipeline.settings({ prompt })).toMatchObject({ width: 64, height: 64 });
    const refused = (more: GenerateRequest) => () => pipeline.settings({ prompt, ...more });
    expect(refused({ count: 64 })).toThrow(
      /of memory for the network, .*; draw fewer pictures at once, or smaller ones\.$/,
    );
    await pipeline.dispose();
    const tight = await openPipeline(at("folder"), {
      without,
      promptTokens: 77,
      memory: 136.5 * MiB,
    });
    expect(() => tight.settings({ prompt, width: 192, height: 192 })).toThrow(
      /of memory for the decoder, .*; draw a smaller picture\.$/,
    );
    await tight.dispose();
  });

  it("that is too small for all stages at once changes no pixel", async () => {
    const memory = 145 * MiB;
    expect(await drawn(at("folder"), {}, { ...options, memory })).toEqual(folderPixels);
  });

  it("of each stage is printed by info, and checked by generate", () => {
    const { code, out } = patchwise(["info", at("folder"), "--json"]);
    expect(code).toBe(0);
    const { stages, memory_bytes, least_memory_bytes } = JSON.parse(out);
    expect(stages.map(({ name }: { name: string }) => name)).toEqual([
      "CLIP-L",
      "CLIP-G",
      "T5",
      "the network",
      "the decoder",
    ]);
    expect(least_memory_bytes).toBeLessThan(memory_bytes);
    const refused = patchwise([
      "generate",
      "a cat",
      "--model",
      at("folder"),
      "--memory",
      "0.12",
      "--out",
      at("never.png"),
    ]);
    expect(refused).toMatchObject({ code: 2, out: "" });
    expect(refused.err).toMatch(oneSentence);
    expect(refused.err).toMatch(
      /needs 129 MiB of memory for CLIP-L, but only 123 MiB are available; close/,
    );
    expect(existsSync(at("never.png"))).toBe(false);
  });
});

/** A copy of the folder with one file changed or missing. */
function spoiled(
  name: string,
  file: string,
  change?: (content: Record<string, unknown>) => object,
): string {
  const folder = at(name);
  cpSync(at("folder"), folder, { recursive: true });
  const target = path.join(folder, file);
  if (!change) rmSync(target, { recursive: true });
  else writeFileSync(target, JSON.stringify(change(JSON.parse(readFileSync(target, "utf8")))));
  return folder;
}

describe("openPipeline refuses", () => {
  it.each<[string, () => string, RegExp]>([
    [
      "a folder without its index",
      () => spoiled("unindexed", "model_index.json"),
      /unindexed lacks its model_index\.json, .*; download the whole folder/,
    ],
    [
      "a folder without its network",
      () => spoiled("networkless", "transformer"),
      /networkless lacks its transformer: there is no "transformer\/config\.json"; download/,
    ],
    [
      "a folder without an encoder that its index names",
      () => spoiled("deaf", "text_encoder_3"),
      /deaf lacks its text_encoder_3/,
    ],
    [
      "a folder without a tokenizer",
      () => spoiled("wordless", "tokenizer_2/merges.txt"),
      /tokenizer_2 holds no tokenizer: there is neither/,
    ],
    [
      "another network",
      () =>
        spoiled("flux", "transformer/config.json", (config) => ({
          ...config,
          _class_name: "FluxTransformer2DModel",
        })),
      /describes a FluxTransformer2DModel, but the transformer of .*flux must be a SD3Transformer2DModel/,
    ],
    [
      "another encoder",
      () =>
        spoiled("bert", "text_encoder/config.json", (config) => ({
          ...config,
          model_type: "bert",
        })),
      /describes a bert, but the text_encoder of .*bert must be a clip_text_model/,
    ],
    [
      "another pipeline",
      () =>
        spoiled("sdxl", "model_index.json", (index) => ({
          ...index,
          _class_name: "StableDiffusionXLPipeline",
        })),
      /describes a StableDiffusionXLPipeline, but only these .* DiTPipeline, StableDiffusion3Pipeline, /,
    ],
    [
      "another scheduler",
      () =>
        spoiled("pndm", "scheduler/scheduler_config.json", () => ({
          _class_name: "PNDMScheduler",
        })),
      /names the scheduler "PNDMScheduler", which is not known/,
    ],
    [
      "encoders of other widths",
      () =>
        spoiled("wide", "transformer/config.json", (config) => ({
          ...config,
          pooled_projection_dim: 2048,
        })),
      /does not fit the model|takes pooled texts of 2048 numbers, but CLIP-L gives 64 and CLIP-G 128/,
    ],
  ])("%s", async (_, make, sentence) => {
    const folder = make();
    await expect(openPipeline(folder)).rejects.toThrow(sentence);
    await expect(openPipeline(folder)).rejects.toThrow(/^[^\n]+\.$/);
  });

  it("a file without text encoders, and names them", async () => {
    const bare = at("bare/sd3.safetensors");
    const refused = (opening: OpenPipelineOptions) =>
      expect(openPipeline(bare, opening)).rejects.toThrow(UsageError);
    await refused({});
    await expect(openPipeline(bare)).rejects.toThrow(
      /sd3\.safetensors is a Stable Diffusion 3 that lacks the text encoder CLIP-L \(clip_l\.safetensors\), .* and the text encoder T5 \(t5xxl_fp16\.safetensors\); give them as --text-encoders \(textEncoders\), or draw with --without clip-l clip-g t5 \(without\)\.$/,
    );
    const clips = { textEncoders: [at("clips")], tokenizers: at("folder") };
    await expect(openPipeline(bare, clips)).rejects.toThrow(
      /lacks the text encoder T5 \(t5xxl_fp16\.safetensors\); give it as .* --without t5 /,
    );
    await expect(openPipeline(bare, { textEncoders: [at("folder")] })).rejects.toThrow(
      /has no vocabularies, as no such file does: put the folder tokenizer, the folder tokenizer_2 and the folder tokenizer_3 of stabilityai\/stable-diffusion-3-medium-diffusers on the Hub into .*bare, or give .* --tokenizers/,
    );
    // What it costs can be told all the same.
    expect(patchwise(["info", bare]).code).toBe(0);
  });

  it.each<[string, string, OpenPipelineOptions, RegExp]>([
    [
      "an encoder to do without that there is none of",
      "folder",
      { without: ["t6"] },
      /has no text encoder "t6" to leave out; the nearest are t5\.$/,
    ],
    [
      "too many tokens",
      "folder",
      { promptTokens: 1000 },
      /promptTokens must be a whole number from 1 to 512, got 1000\.$/,
    ],
    [
      "encoders for a folder that has its own",
      "folder",
      { textEncoders: ["x"] },
      /--text-encoders \(textEncoders\) does not apply to .*folder/,
    ],
    [
      "encoders that are not there",
      "bare/sd3.safetensors",
      { textEncoders: ["nowhere"] },
      /There are no text encoders .*nowhere; give/,
    ],
    [
      "encoders that are none",
      "bare/sd3.safetensors",
      { textEncoders: ["folder/vae"] },
      /folder\/vae holds no text encoder of Stable Diffusion 3; give clip_l\.safetensors/,
    ],
    [
      "an encoder twice",
      "bare/sd3.safetensors",
      { textEncoders: ["clips", "clips"] },
      /Both .*clip_g\.safetensors and .*clip_g\.safetensors are a CLIP-G; give one/,
    ],
  ])("%s", async (_, source, opening, sentence) => {
    const textEncoders = opening.textEncoders?.map((file) => at(file));
    const opened = openPipeline(at(source), textEncoders ? { ...opening, textEncoders } : opening);
    await expect(opened).rejects.toThrow(sentence);
    await expect(opened).rejects.toThrow(UsageError);
  });

  it("a file with the weights of another network", async () => {
    const whole = await openSafetensorsFile(at("file/sd3.safetensors"));
    const arrays = await Promise.all(
      [...whole.entries.keys()]
        .slice(0, -1)
        .map(async (name) => [name, await whole.read(name)] as const),
    );
    await whole.close();
    const missing = arrays.filter(
      ([name]) => name !== "model.diffusion_model.x_embedder.proj.bias",
    );
    await writeSafetensors(at("cut.safetensors"), missing);
    await expect(openPipeline(at("cut.safetensors"))).rejects.toThrow(FormatError);
    await expect(openPipeline(at("cut.safetensors"))).rejects.toThrow(
      /does not fit the model: it lacks "x_embedder\.proj\.bias" \[128\]/,
    );
  });
});
