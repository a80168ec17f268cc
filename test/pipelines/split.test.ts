import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { openModel } from "../../src/pipelines/open/open-node.ts";
import type { OpenModelOptions } from "../../src/pipelines/open/options.ts";
import { finished, imagePipeline } from "../../src/pipelines/pipeline.ts";
import { openSafetensorsFile, writeSafetensors } from "../../src/weights/safetensors/file-node.ts";
import {
  smallModels,
  writeSmallCheckpoint,
  writeSmallFolder,
  writeSmallSplit,
} from "../support/flux-folders.ts";

const scratch = mkdtempSync(path.join(tmpdir(), "patchwise-split-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));
const at = (name: string) => path.join(scratch, name);
const backend = nodeBackend("cpu");

async function drawn(model: string, options: OpenModelOptions = {}): Promise<Uint8Array> {
  const pipeline = imagePipeline(await openModel(model, options), backend);
  const asked = { prompt: "a red cat", seed: 3, width: 32, height: 32, steps: 1 };
  const [picture] = await finished(pipeline.generate(asked));
  await pipeline.dispose();
  return Uint8Array.from(picture!.pixels);
}

const prefix = "model.diffusion_model.";

describe("ComfyUI's folders and checkpoints draw what the folder in diffusers' layout draws", () => {
  it.each([
    ["schnell", { promptTokens: 24 }],
    ["klein", { promptTokens: 24 }],
    ["zImage", { promptTokens: 24 }],
    // Its texts are as long as in training.
    ["miniT2I", {}],
  ] as const)("of %s", async (name, options) => {
    await writeSmallFolder(at(name), smallModels[name]);
    await writeSmallSplit(at(`${name}-plain`), smallModels[name], { prefix });
    await writeSmallSplit(at(`${name}-gguf`), smallModels[name], { gguf: true });
    const own = await drawn(at(name), options);
    expect(new Set(own).size).toBeGreaterThan(20);
    expect(await drawn(at(`${name}-plain`), options)).toEqual(own);
    expect(await drawn(at(`${name}-gguf`), options)).toEqual(own);
    await writeSmallCheckpoint(at(`${name}-whole`), "model", smallModels[name]);
    expect(await drawn(at(`${name}-whole/model.safetensors`), options)).toEqual(own);
  });
});

describe("the parts of a model", () => {
  const whole = at("whole");
  beforeAll(() => writeSmallSplit(whole, smallModels.zImage));
  const network = path.join(whole, "diffusion_models/z-image.safetensors");
  const copied = (name: string) => {
    const file = at(`${name}/network.safetensors`);
    mkdirSync(path.dirname(file));
    copyFileSync(network, file);
    return file;
  };

  it("are found beside the network, or given", async () => {
    const options = {
      textEncoders: [path.join(whole, "text_encoders/qwen_3_4b.safetensors")],
      vae: path.join(whole, "vae/ae.safetensors"),
      tokenizers: path.join(whole, "tokenizer"),
    };
    const tokens = { promptTokens: 24 };
    expect(await drawn(copied("given"), { ...options, ...tokens })).toEqual(
      await drawn(network, tokens),
    );
  });

  it("have the names of a language model, or of an encoder alone", async () => {
    const file = copied("encoder");
    const qwen3 = await openSafetensorsFile(
      path.join(whole, "text_encoders/qwen_3_4b.safetensors"),
    );
    const tensors = await Promise.all(
      [...qwen3.entries.keys()].map(
        async (name) => [name.replace(/^model\./, ""), await qwen3.read(name)] as const,
      ),
    );
    await qwen3.close();
    const own = path.join(path.dirname(file), "encoder.safetensors");
    await writeSafetensors(own, tensors);
    const model = await openModel(file, {
      textEncoders: [own],
      vae: path.join(whole, "vae/ae.safetensors"),
      tokenizers: whole,
    });
    expect(model.missingParts).toBeUndefined();
    await model.close();
  });

  it("are named where they lack, by the files that people use", async () => {
    const file = copied("alone");
    const { missingParts } = await openModel(file);
    expect(missingParts).toBe(
      `${file} is a Z-Image that lacks the text encoder Qwen3 (qwen_3_4b.safetensors) and the autoencoder (ae.safetensors); give them as --text-encoders (textEncoders) and --vae (vae).`,
    );
  });

  it("are chosen by the width that fits the network", async () => {
    const folder = at("several");
    await writeSmallSplit(folder, smallModels.schnell);
    const encoders = path.join(folder, "text_encoders");
    renameSync(path.join(encoders, "t5xxl_fp16.safetensors"), path.join(encoders, "a.safetensors"));
    const model = await openModel(folder);
    expect(model.missingParts).toBeUndefined();
    await model.close();
    copyFileSync(path.join(encoders, "a.safetensors"), path.join(encoders, "b.safetensors"));
    await expect(openModel(folder)).rejects.toThrow("a.safetensors and b.safetensors in");
    for (const file of readdirSync(encoders)) rmSync(path.join(encoders, file));
    await writeSmallSplit(folder, {
      ...smallModels.schnell,
      encoders: {
        ...smallModels.schnell.encoders,
        text_encoder_2: { ...smallModels.schnell.encoders.text_encoder_2, d_model: 40 },
      },
    });
    await expect(openModel(folder)).rejects.toThrow(
      "The network takes tokens of width 32, but its text encoder gives 40",
    );
  });

  it("need a vocabulary, which no safetensors file has", async () => {
    rmSync(path.join(whole, "tokenizer"), { recursive: true });
    const { missingParts } = await openModel(whole);
    expect(missingParts).toBe(
      `${network} has no vocabularies, as no such file does: put the folder tokenizer of Tongyi-MAI/Z-Image-Turbo on the Hub into ${whole}, or give a folder that has it as --tokenizers (tokenizers).`,
    );
  });
});
