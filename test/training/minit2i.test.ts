import { expect, it } from "vitest";
import { toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { families } from "../../src/models/families.ts";
import type { MiniT2IConfig } from "../../src/models/minit2i/config.ts";
import { traceNetwork } from "../../src/models/network.ts";
import { checkTargets, withLora } from "../../src/nn/lora.ts";
import { createParams } from "../../src/nn/params.ts";
import { createPipeline, finished } from "../../src/pipelines/index.ts";
import {
  trainModel,
  type TrainModelOptions,
  type TrainingEvent,
} from "../../src/training/index.ts";
import { openWords } from "../../src/training/run/words-node.ts";
import { watchedBackend } from "../support/watched-backend.ts";

const backend = nodeBackend("cpu");

/** Black pictures of a cat, and white ones of a dog. */
const pictures = Array.from({ length: 6 }, (_, i) => ({
  width: 8,
  height: 8,
  channels: 1 as const,
  pixels: new Uint8Array(64).fill(i % 2 === 0 ? 0 : 255),
  caption: i % 2 === 0 ? "a cat" : "a dog",
}));
const network = { kind: "minit2i", hidden: 32, depth: 1, preamble: 1, patch: 4, heads: 2 } as const;

async function trained(options: Partial<TrainModelOptions>) {
  const losses: number[] = [];
  const model = await trainModel({
    backend,
    network,
    pictures,
    words: await openWords(),
    steps: 40,
    batch: 6,
    threads: 1,
    seed: 1,
    optimizer: { kind: "adamw", rate: 0.01 },
    onEvent: (event: TrainingEvent) => {
      if (event.kind === "step") losses.push(event.loss);
    },
    ...options,
  });
  return { model, losses };
}

const mean = (numbers: ArrayLike<number>) =>
  Array.from(numbers).reduce((sum, x) => sum + x, 0) / numbers.length;

it("a MiniT2I learns to draw what captions say, with noise of its own scale", async () => {
  const recipe = { process: "flow", noiseScale: 2 } as const;
  const { losses, model } = await trained({ recipe });
  const pipeline = createPipeline({ backend, ...model });
  expect(mean(losses.slice(-10))).toBeLessThan(0.5 * mean(losses.slice(0, 10)));
  expect(model.card.diffusion).toMatchObject({ noiseScale: 2 });
  const shades = [];
  for (const prompt of ["a cat", "a dog"]) {
    const [picture] = await finished(pipeline.generate({ prompt, steps: 4, guidance: 1, seed: 5 }));
    shades.push(mean(picture!.pixels));
  }
  await pipeline.dispose();
  expect(shades[1]! - shades[0]!).toBeGreaterThan(100);
});

it("a mean flow is learned by config and drawn in few steps, with guidance in the network", async () => {
  const { losses, model } = await trained({
    network: { ...network, meanFlow: { context: 1, guidance: 1, interval: 1, time: 1 } },
    recipe: { process: "flow", meanFlow: {} },
  });
  expect(losses.every(Number.isFinite)).toBe(true);
  expect(mean(losses.slice(-10))).toBeLessThan(mean(losses.slice(0, 10)));
  expect(model.card.sampling).toMatchObject({ sampler: "euler", steps: 4 });
  const request = { prompt: "a dog", seed: 2 };
  const { backend: watched, asked } = watchedBackend();
  const pipeline = createPipeline({ backend: watched, ...model });
  const [dog] = await finished(pipeline.generate({ ...request, guidance: 2 }));
  const told = asked.filter((inputs) => inputs["span"]);
  expect(told.map((inputs) => toNumbers(inputs["span"]!))).toEqual([
    [0.25],
    [0.25],
    [0.25],
    [0.25],
  ]);
  expect(toNumbers(told[0]!["guidance"]!)).toEqual([2]);
  const [cat] = await finished(pipeline.generate({ ...request, prompt: "a cat" }));
  expect(mean(dog!.pixels) - mean(cat!.pixels)).toBeGreaterThan(100);
  const draw = (more: object) => finished(pipeline.generate({ ...request, ...more }));
  await expect(draw({ negativePrompt: "a cat" })).rejects.toThrow("guides itself");
  await expect(draw({ sampler: "heun" })).rejects.toThrow('no sampler "heun" for a mean flow');
  await pipeline.dispose();
});

it("network and training must agree on a mean flow", async () => {
  const message = (options: Partial<TrainModelOptions>) =>
    trained({ ...options, steps: 1 }).then(() => "trained", String);
  expect(await message({ recipe: { process: "flow", meanFlow: {} } })).toContain(
    "model.meanFlow: {}",
  );
  expect(
    await message({
      network: { ...network, meanFlow: {} },
      recipe: { process: "flow" },
    }),
  ).toContain("diffusion.meanFlow: {}");
  expect(await message({ network: { ...network, condition: "class" } })).toContain("condition");
});

it("a LoRA adapts the projections and feed-forward layers of both kinds of blocks", () => {
  const { training, presets } = families.get("minit2i")!;
  const { unreadWidth: _, ...published } = presets["MiniT2I-B/16"] as MiniT2IConfig;
  const config = { ...published, hidden: 48, heads: 4, depth: 1, preamble: 1 };
  const params = createParams();
  const targets = training!.loraTargets!;
  traceNetwork(
    { kind: "minit2i", ...config },
    {},
    withLora(params, { rank: 2, alpha: 2, targets }),
  );
  expect(() => checkTargets(params.declared, targets)).not.toThrow();
  const adapted = [...params.declared.keys()].filter((name) => name.endsWith("lora_A.weight"));
  const layers = (scope: string, names: readonly string[]) =>
    names.map((name) => `${scope}.0.${name}.lora_A.weight`);
  const mlp = (name: string) => ["w1", "w2", "w3"].map((part) => `${name}.${part}`);
  expect(adapted.toSorted()).toEqual(
    [
      ...layers("txt_preamble_blocks", ["qkv", "attn_proj", ...mlp("mlp")]),
      ...layers("double_blocks", ["img_qkv", "txt_qkv", "img_attn_proj", ...mlp("img_mlp")]),
    ].toSorted(),
  );
});
