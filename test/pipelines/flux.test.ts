import { copyFileSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type NdArray, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { openModel } from "../../src/pipelines/open/open-node.ts";
import type { GenerateRequest } from "../../src/pipelines/settings.ts";
import { finished, imagePipeline } from "../../src/pipelines/pipeline.ts";
import { writeSafetensors } from "../../src/weights/safetensors/file-node.ts";
import { originalWeights, smallModels, writeSmallFolder } from "../support/flux-folders.ts";
import { readStored } from "../../src/weights/stored-node.ts";
import { watchedBackend } from "../support/watched-backend.ts";

const scratch = mkdtempSync(path.join(tmpdir(), "patchwise-flux-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));
type Name = keyof typeof smallModels;
const names = ["schnell", "dev", "klein", "zImage"] as const;
const at = (name: Name) => path.join(scratch, name);
beforeAll(async () => {
  for (const [name, model] of Object.entries(smallModels)) {
    await writeSmallFolder(at(name as Name), model);
  }
});

const request = { prompt: "a red cat", seed: 3, width: 32, height: 48, promptTokens: 40 };

const done = new Map<string, ReturnType<typeof draw>>();

/** Draws once, and returns the picture with what the network was asked. */
function drawn(name: Name, more: Partial<GenerateRequest> = {}): ReturnType<typeof draw> {
  const key = JSON.stringify([name, more]);
  const drawing = done.get(key) ?? draw(name, more);
  done.set(key, drawing);
  return drawing;
}

async function draw(name: Name, more: Partial<GenerateRequest>) {
  const { backend, asked } = watchedBackend();
  const { promptTokens, ...own } = request;
  const pipeline = imagePipeline(await openModel(at(name), { promptTokens }), backend);
  const [picture] = await finished(pipeline.generate({ ...own, ...more }));
  const settings = pipeline.settings({ ...own, ...more });
  await pipeline.dispose();
  return { picture: picture!, settings, asked: asked.filter((inputs) => inputs["x"]) };
}

const times = (asked: readonly Record<string, NdArray>[]) =>
  asked.map(({ t }) => toNumbers(t!)[0]! / 1000);

describe("a small folder in diffusers' layout", () => {
  it.each<[Name, number, number, readonly number[]]>([
    ["schnell", 4, 1, [1, 0.75, 0.5, 0.25]],
    ["dev", 28, 3.5, []],
    ["klein", 4, 1, []],
    ["zImage", 8, 1, [1, 0.9545, 0.9, 0.8333, 0.75, 0.6429, 0.5, 0.3]],
  ])("of %s draws with the settings of its pipeline", async (name, steps, guidance, sigmas) => {
    const { picture, settings, asked } = await drawn(name);
    expect(picture).toMatchObject({ width: 32, height: 48, channels: 3 });
    expect(new Set(picture.pixels).size).toBeGreaterThan(20);
    expect(settings).toMatchObject({ steps, guidance });
    expect(asked).toHaveLength(steps);
    // No row without the condition.
    expect(asked.every(({ x }) => x!.shape[0] === 1)).toBe(true);
    for (const [i, sigma] of sigmas.entries()) expect(times(asked)[i]).toBeCloseTo(sigma, 3);
  });

  it("shifts the times of FLUX.1 dev and FLUX.2 by the tokens of the picture", async () => {
    const { asked } = await drawn("dev", { steps: 4, guidance: 9 });
    const shifted = (mu: number, sigma: number) => 1 / (1 + Math.exp(-mu) * (1 / sigma - 1));
    const mu = 0.5 + ((96 - 256) * 0.65) / (4096 - 256);
    for (const [i, sigma] of [1, 0.75, 0.5, 0.25].entries()) {
      expect(times(asked)[i]).toBeCloseTo(shifted(mu, sigma), 5);
    }
    const klein = await drawn("klein");
    const [at10, at200] = [8.73809524e-5 * 96 + 1.89833333, 0.00016927 * 96 + 0.45666666];
    const fitted = at10 + ((4 - 10) * (at200 - at10)) / 190;
    for (const [i, sigma] of [1, 0.75, 0.5, 0.25].entries()) {
      expect(times(klein.asked)[i]).toBeCloseTo(shifted(fitted, sigma), 5);
    }
  });

  it("tells FLUX.1 dev its guidance, which changes the picture", async () => {
    const [own, strong] = [
      await drawn("dev", { steps: 4 }),
      await drawn("dev", { steps: 4, guidance: 9 }),
    ];
    expect(toNumbers(own.asked[0]!["guidance"]!)).toEqual([3.5]);
    expect(toNumbers(strong.asked[0]!["guidance"]!)).toEqual([9]);
    expect(strong.picture.pixels).not.toEqual(own.picture.pixels);
    await expect(drawn("dev", { negativePrompt: "a dog" })).rejects.toThrow(
      "was distilled with its guidance and takes no negative prompt",
    );
  });

  it("gives the whole text to FLUX.2, and to Z-Image the mask of its padding", async () => {
    const [klein, zImage] = [
      await drawn("klein", { steps: 1 }),
      await drawn("zImage", { steps: 1 }),
    ];
    const [asked] = klein.asked;
    expect(asked!["y"]!.shape).toEqual([1, 40, 24]);
    expect(Object.keys(asked!)).not.toContain("mask");
    const { y, mask } = zImage.asked[0]!;
    expect(y!.shape).toEqual([1, 40, 8]);
    expect(new Set(toNumbers(mask!))).toEqual(new Set([0, 1]));
  });

  it("guides a FLUX.2 where that is asked for", async () => {
    const { asked } = await drawn("klein", { steps: 1, guidance: 4 });
    expect(asked.map(({ x }) => x!.shape[0])).toEqual([2]);
  });
});

it("a file of the autoencoder without a config has the scale of the model's own", async () => {
  const file = path.join(scratch, "ae.safetensors");
  copyFileSync(path.join(at("zImage"), "vae/diffusion_pytorch_model.safetensors"), file);
  const model = await openModel(at("zImage"), { vae: file });
  expect(model.decoder?.config).toMatchObject({ scale: 0.3611, shift: 0.1159 });
  await model.close();
});

describe("the network alone, under the original names", () => {
  it.each<Name>([...names, "miniT2I"])("of %s has the same weights as the folder", async (name) => {
    const arrays = originalWeights(smallModels[name]);
    const file = path.join(scratch, `${name}.safetensors`);
    const prefixed = Object.entries(arrays).map(
      ([key, array]) => [`model.diffusion_model.${key}`, array] as const,
    );
    await writeSafetensors(file, prefixed);
    const [single, folder] = [await openModel(file), await openModel(at(name))];
    const { length: _, ...condition } = folder.network.condition as Record<string, unknown>;
    expect(single.network).toMatchObject({ ...folder.network, condition });
    expect(single.missingParts).toContain("lacks the text encoder");
    for (const key of Object.keys(arrays)) {
      const [own, other] = [single, folder].map(({ weights }) => readStored(weights(key)!));
      const [a, b] = [(await own!).data, (await other!).data];
      // Vitest's own comparison takes seconds for each weight.
      expect([key, a.every((value, i) => value === b[i])]).toEqual([key, true]);
    }
    await Promise.all([single.close(), folder.close()]);
  });

  it.each<[string, readonly string[]]>([
    [
      "Stable Diffusion XL",
      ["input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight", "label_emb.0.0.weight"],
    ],
    [
      "Stable Diffusion 1 or 2",
      ["input_blocks.0.0.weight", "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"],
    ],
    ["Qwen-Image", ["transformer_blocks.0.img_mod.1.weight", "txt_norm.weight"]],
  ])("says that a file is a %s", async (title, keys) => {
    const file = path.join(scratch, "other.safetensors");
    const some = originalWeights(smallModels.klein)["img_in.weight"]!;
    await writeSafetensors(
      file,
      [
        ...keys.map((key) => `model.diffusion_model.${key}`),
        "first_stage_model.decoder.conv_in.weight",
      ].map((key) => [key, some] as const),
    );
    await expect(openModel(file)).rejects.toThrow(`is a ${title}, which is not supported`);
  });
});
