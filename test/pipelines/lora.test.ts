import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { UsageError } from "../../src/engine/errors.ts";
import { castArray, type NdArray, ndarray, sizeOf } from "../../src/engine/arrays/ndarray.ts";
import { layerNames, publishedNames } from "../../src/training/tasks/lora-layers.ts";
import { readTrainedFolder } from "../../src/models/card-folder.ts";
import { shippedModel } from "../../src/models/card-node.ts";
import { diskFolder } from "../../src/weights/sources/folder-node.ts";
import { attentionAndMlp, isLora, withLora } from "../../src/nn/lora.ts";
import { createParams } from "../../src/nn/params.ts";
import { traceNetwork } from "../../src/models/network.ts";
import type { ChosenLora } from "../../src/pipelines/open/lora-node.ts";
import { openModel, openPipeline } from "../../src/pipelines/open/open-node.ts";
import { finished } from "../../src/pipelines/pipeline.ts";
import { safetensorsBytes } from "../../src/weights/index.ts";
import { writeSafetensors } from "../../src/weights/index-node.ts";
import { loraFile } from "../../src/weights/lora.ts";
import { randomArray } from "../support/arrays.ts";
import { writeDiffusersDiT, writeOriginalDiT, writeVAE } from "../support/model-folders.ts";
import { writeTrained } from "../support/trained-folder.ts";

const scratch = mkdtempSync(path.join(tmpdir(), "patchwise-lora-"));
const at = (...parts: string[]) => path.join(scratch, ...parts);
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const layer = "blocks.0.attn.qkv";
const matrix = (seed: number, ...shape: number[]) => randomArray(seed, "float32", shape, -0.3, 0.3);

/** Of the projections of the first block, of a network of any width. */
async function writeLora(file: string, width: number, seed: number, name = layer): Promise<void> {
  await writeSafetensors(file, [
    [`${name}.lora_A.weight`, matrix(seed, 2, width)],
    [`${name}.lora_B.weight`, matrix(seed + 1, 3 * width, 2)],
  ]);
}

beforeAll(async () => {
  await writeTrained(at("model"));
  await writeDiffusersDiT(at("diffusers"));
  await writeOriginalDiT(at("dit.safetensors"));
  await writeVAE(at("vae"));
  await writeLora(at("a.safetensors"), 32, 1);
  await writeLora(at("b.safetensors"), 32, 3, `diffusion_model.${layer}`);
  await writeLora(at("wide.safetensors"), 128, 5);
});

async function drawn(loras: readonly ChosenLora[], source = at("model"), options = {}) {
  const pipeline = await openPipeline(source, { ...options, loras });
  try {
    const [picture] = await finished(pipeline.generate({ class: 1, steps: 2, seed: 4 }));
    return Buffer.from(picture!.pixels);
  } finally {
    await pipeline.dispose();
  }
}

async function weightsOf(loras: readonly ChosenLora[]) {
  const model = await openModel(at("model"), { loras });
  await model.close();
  return model.weights;
}

function valuesIn(stored: ReturnType<Awaited<ReturnType<typeof weightsOf>>>): Float32Array {
  expect(stored?.kind).toBe("array");
  return (stored as { array: NdArray<"float32"> }).array.data;
}

describe("drawing with a LoRA", () => {
  it("changes no bit at weight 0, and the picture at other weights", async () => {
    const base = await drawn([]);
    const none = await drawn([{ file: at("a.safetensors"), weight: 0 }]);
    expect(none.equals(base)).toBe(true);
    const whole = await drawn([{ file: at("a.safetensors") }]);
    expect(whole.equals(base)).toBe(false);
    const half = await drawn([{ file: at("a.safetensors"), weight: 0.5 }]);
    expect(half.equals(whole)).toBe(false);
    expect((await drawn([{ file: at("a.safetensors"), weight: 1 }])).equals(whole)).toBe(true);
  });

  it("adds several LoRAs in any order, and leaves other weights in place", async () => {
    const [a, b] = [
      { file: at("a.safetensors"), weight: 0.5 },
      { file: at("b.safetensors"), weight: -1 },
    ];
    const [none, one, other, both, turned] = await Promise.all(
      [[{ ...a, weight: 0 }], [a], [b], [a, b], [b, a]].map((loras) => weightsOf(loras)),
    );
    const key = `${layer}.weight`;
    expect(none!(key)).toMatchObject({ kind: "file" });
    for (const weights of [one, both]) {
      expect(weights!("blocks.0.attn.proj.weight")).toEqual(none!("blocks.0.attn.proj.weight"));
    }
    const zeroed = valuesIn((await weightsOf([{ ...a, weight: Number.MIN_VALUE }]))(key));
    const [first, second, sum] = [one!, other!, both!].map((weights) => valuesIn(weights(key)));
    for (const [i, value] of sum!.entries()) {
      const expected = first![i]! + second![i]! - zeroed[i]!;
      expect(Math.abs(value - expected)).toBeLessThan(2 ** -21);
    }
    const errors = valuesIn(turned!(key)).map((value, i) => Math.abs(value - sum![i]!));
    expect(Math.max(...errors)).toBeLessThan(2 ** -22);
  });

  it("finds the file in folders of Patchwise, diffusers and PEFT, with PEFT's settings", async () => {
    const expected = valuesIn(
      (await weightsOf([{ file: at("a.safetensors"), weight: 2 }]))(`${layer}.weight`),
    );
    for (const [folder, file] of [
      ["ours", "lora.safetensors"],
      ["theirs", "pytorch_lora_weights.safetensors"],
      ["peft", "adapter_model.safetensors"],
    ] as const) {
      mkdirSync(at(folder));
      await writeLora(at(folder, file), 32, 1, `base_model.model.${layer}`);
    }
    await writeLora(at("peft", "other.safetensors"), 32, 1);
    writeFileSync(at("peft", "adapter_config.json"), JSON.stringify({ r: 2, lora_alpha: 4 }));
    for (const [folder, weight] of [
      ["ours", 2],
      ["theirs", 2],
      ["peft", 1],
      ["peft/adapter_model.safetensors", 1],
      // A second file beside PEFT's is another LoRA.
      ["peft/other.safetensors", 2],
    ] as const) {
      const weights = await weightsOf([{ file: at(folder), weight }]);
      expect(valuesIn(weights(`${layer}.weight`))).toEqual(expected);
    }
  });

  it("fits models in other layouts and in half precision", async () => {
    const lora = [{ file: at("wide.safetensors") }];
    const folder = await drawn(lora, at("diffusers"));
    expect(folder.equals(await drawn([], at("diffusers")))).toBe(false);
    await writeDiffusersDiT(at("half"), { half: true });
    expect((await drawn(lora, at("half"))).length).toBe(folder.length);
    const single = await openModel(at("dit.safetensors"), { vae: at("vae"), loras: lora });
    expect(single.weights(`${layer}.weight`)).toMatchObject({ kind: "array" });
    await single.close();
  });

  it("records files and weights, and warns of parts without effect", async () => {
    await writeSafetensors(at("text.safetensors"), [
      ["lora_te1_a.lora_down.weight", matrix(1, 2, 3)],
      ["lora_te1_a.lora_up.weight", matrix(2, 3, 2)],
    ]);
    const loras = [{ file: at("a.safetensors") }, { file: at("text.safetensors"), weight: 0.3 }];
    const pipeline = await openPipeline(at("model"), { loras });
    const settings = pipeline.settings({ class: "cat" });
    await pipeline.dispose();
    expect(settings.loras).toEqual([{ ...loras[0], weight: 1 }, loras[1]]);
    expect(settings.warnings).toEqual([
      expect.stringMatching(
        /text\.safetensors also has updates for text encoders, which are ignored: "lora_te1_a"\.$/,
      ),
    ]);
  });

  it.each([
    [
      "a file that is not there",
      at("none.safetensors"),
      1,
      /There is no LoRA .*none\.safetensors; give a \.safetensors file/,
    ],
    ["a folder without one", scratch, 1, /holds no LoRA: none of lora\.safetensors, /],
    [
      "a weight that is no number",
      at("a.safetensors"),
      NaN,
      /The weight of .* is NaN; give a number/,
    ],
  ])("refuses %s", async (_, file, weight, sentence) => {
    const opening = openPipeline(at("model"), { loras: [{ file, weight }] });
    await expect(opening).rejects.toThrow(UsageError);
    await expect(openPipeline(at("model"), { loras: [{ file, weight }] })).rejects.toThrow(
      sentence,
    );
  });

  it("refuses a LoRA of another model, and a LoRA given as the model", async () => {
    const wide = openModel(at("model"), { loras: [{ file: at("wide.safetensors") }] });
    await expect(wide).rejects.toThrow(
      /is \[2, 128\], but must be \[rank, 32\] for blocks\.0\.attn\.qkv/,
    );
    mkdirSync(at("adapter"));
    await writeLora(at("adapter", "lora.safetensors"), 32, 1);
    await expect(openModel(at("adapter"))).rejects.toThrow(/holds a LoRA, .*give it as --lora/);
  });
});

describe("a LoRA of the bundled model", () => {
  it("has less than a megabyte at rank 8", async () => {
    const { network } = (await readTrainedFolder(diskFolder((await shippedModel("emoji"))!))).card;
    const lora = { rank: 8, alpha: 8, targets: attentionAndMlp };
    const { params } = traceNetwork(network, {}, withLora(createParams(), lora));
    const shapes = new Map(
      [...params.declared].map(([name, { tensor }]) => [name, tensor.shape as readonly number[]]),
    );
    const zerosOf = (name: string) =>
      ndarray("float32", shapes.get(name)!, new Float32Array(sizeOf(shapes.get(name)!)));
    const layers = [...shapes.keys()]
      .filter(isLora)
      .map((name) => name.replace(/\.lora_..weight$/, ""));
    const byLayer = new Map(
      layers.map((each) => [
        each,
        { down: zerosOf(`${each}.lora_A.weight`), up: zerosOf(`${each}.lora_B.weight`) },
      ]),
    );
    const { tensors, metadata } = loraFile(byLayer, lora, publishedNames(network));
    const half = [...tensors].map(([name, array]) => [name, castArray(array, "float16")] as const);
    expect(half.length).toBe(2 * byLayer.size);
    expect(safetensorsBytes(half, metadata).length).toBeLessThan(1e6);
    expect(layerNames(network).map((each) => each.layer)).toEqual(expect.arrayContaining(layers));
  });
});
