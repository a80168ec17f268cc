/** LoRAs on quantized weights, which stay packed, under the names that other programs write for the families of published files. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { castArray, type NdArray, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { parameter } from "../../src/engine/graph/functional.ts";
import { graphOf } from "../../src/engine/graph/graph.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { arrayWeight, type StoredWeight } from "../../src/engine/runtime/stored-weight.ts";
import type { ImageModel } from "../../src/pipelines/image-model.ts";
import { openModel } from "../../src/pipelines/open/open-node.ts";
import { finished, imagePipeline } from "../../src/pipelines/pipeline.ts";
import { quantizeModel } from "../../src/pipelines/quantize-node.ts";
import { writeSafetensors } from "../../src/weights/safetensors/file-node.ts";
import { readStored } from "../../src/weights/stored-node.ts";
import { randomArray } from "../support/arrays.ts";
import { smallModels, writeSmallFolder } from "../support/flux-folders.ts";

const scratch = mkdtempSync(path.join(tmpdir(), "patchwise-lora-packed-"));
const at = (...parts: string[]) => path.join(scratch, ...parts);
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

type Name = "schnell" | "klein" | "zImage";
const made = new Map<Name, Promise<string>>();

/** The quantized network of a small model, in a file. */
function packed(name: Name): Promise<string> {
  const make = async () => {
    await writeSmallFolder(at(name), smallModels[name]);
    const model = await openModel(at(name));
    await quantizeModel(model, "Q8_0", at(`${name}.gguf`), () => {});
    await model.close();
    return at(`${name}.gguf`);
  };
  const found = made.get(name) ?? make();
  made.set(name, found);
  return found;
}

const matrix = (seed: number, ...shape: number[]) => randomArray(seed, "float32", shape, -0.3, 0.3);
const [hidden, rank] = [128, 2];
/** The same update of an attention's query, key and value, joined and apart. */
const down = matrix(1, rank, hidden);
const up = matrix(2, 3 * hidden, rank);
const third = (part: number): NdArray => ({
  ...up,
  shape: [hidden, rank],
  data: up.data.slice(part * hidden * rank, (part + 1) * hidden * rank),
});

type Tensors = readonly (readonly [string, NdArray])[];
const peft = (prefix: string, name: string, own: NdArray = up): Tensors => [
  [`${prefix}${name}.lora_A.weight`, down],
  [`${prefix}${name}.lora_B.weight`, own],
];
const kohya = (name: string, own: NdArray = up): Tensors => [
  [`lora_unet_${name.replaceAll(".", "_")}.lora_down.weight`, down],
  [`lora_unet_${name.replaceAll(".", "_")}.lora_up.weight`, own],
];
const each = (write: (name: string, own: NdArray) => Tensors, names: readonly string[]) =>
  names.flatMap((name, i) => write(name, third(i)));

const rows = (prefix: string, suffix = "") => ["q", "k", "v"].map((p) => `${prefix}${p}${suffix}`);
const flux = "double_blocks.0.img_attn.qkv";
const zImage = "layers.0.attention";
const theirs = rows("transformer_blocks.0.attn.to_");

describe.each<[Name, readonly string[], Readonly<Record<string, Tensors>>]>([
  [
    "schnell",
    [flux],
    {
      "ComfyUI's": peft("diffusion_model.", flux),
      "kohya's": kohya(flux),
      "diffusers'": each((name, own) => peft("transformer.", name, own), theirs),
      "ai-toolkit's": each((name, own) => peft("transformer.", name, own), theirs),
    },
  ],
  [
    "klein",
    [flux],
    {
      "ComfyUI's and ai-toolkit's": peft("diffusion_model.", flux),
      "kohya's": kohya(flux),
      "diffusers'": each((name, own) => peft("transformer.", name, own), theirs),
      "PEFT's": each((name, own) => peft("base_model.model.", name, own), theirs),
    },
  ],
  [
    "zImage",
    rows(`${zImage}.to_`),
    {
      "ComfyUI's, joined": peft("diffusion_model.", `${zImage}.qkv`),
      "kohya's, joined": kohya(`${zImage}.qkv`),
      "ai-toolkit's": each(
        (name, own) => peft("diffusion_model.", name, own),
        rows(`${zImage}.to_`),
      ),
      "diffusers'": each((name, own) => peft("transformer.", name, own), rows(`${zImage}.to_`)),
      "kohya's": each(kohya, rows(`${zImage}.to_`)),
    },
  ],
])("a LoRA on the quantized network of %s", (name, layers, forms) => {
  const values = async (stored: StoredWeight | undefined) =>
    toNumbers(castArray(await readStored(stored!), "float32"));
  const numbersOf = async ({ weights }: ImageModel) =>
    (await Promise.all(layers.map((layer) => values(weights(`${layer}.weight`))))).flat();
  it.each(Object.keys(forms))("under %s names is added to the packed numbers", async (form) => {
    const file = await packed(name);
    const lora = at(`${name}-${Object.keys(forms).indexOf(form)}.safetensors`);
    await writeSafetensors(lora, forms[form]!);
    const base = await openModel(file);
    const model = await openModel(file, { loras: [{ file: lora, weight: 0.5 }] });
    const [own, changed] = [await numbersOf(base), await numbersOf(model)];
    const [left, right] = [toNumbers(up), toNumbers(down)];
    let most = 0;
    for (let row = 0; row < 3 * hidden; row++) {
      for (let column = 0; column < hidden; column++) {
        let sum = 0;
        for (let k = 0; k < rank; k++) {
          sum += 0.5 * left[row * rank + k]! * right[k * hidden + column]!;
        }
        const i = row * hidden + column;
        most = Math.max(most, Math.abs(changed[i]! - own[i]! - sum));
      }
    }
    expect(most).toBeLessThan(1e-6);
    const key = `${layers[0]}.weight`;
    const stored = model.weights(key)!;
    expect(stored.kind).toBe("adapted");
    const shape = toShape(stored);
    const program = await nodeBackend("cpu").compile(graphOf({ y: parameter(key, shape).mul(1) }), {
      weights: model.weights,
    });
    const computed = toNumbers((await program.run({}))["y"]!);
    const read = await values(stored);
    expect(Math.max(...computed.map((value, i) => Math.abs(value - read[i]!)))).toBeLessThan(1e-6);
    await program.dispose();
    await Promise.all([base.close(), model.close()]);
  });

  const toShape = (stored: StoredWeight) =>
    stored.kind === "adapted" ? [stored.up.shape[0]!, stored.down.shape[1]!] : [];
});

it("a LoRA on packed weights draws what the same numbers in float32 draw", async () => {
  const name = "zImage";
  const file = await packed(name);
  const lora = at(`${name}-drawn.safetensors`);
  await writeSafetensors(lora, peft("diffusion_model.", `${zImage}.qkv`));
  const model = await openModel(file, { loras: [{ file: lora }] });
  const whole = await openModel(at(name), { promptTokens: 16 });
  const drawn = async (weights: ImageModel["weights"]) => {
    const own = { ...whole, weights, close: async () => {} };
    const pipeline = imagePipeline(own, nodeBackend("cpu"));
    const asked = { prompt: "a cat", seed: 3, width: 32, height: 32, steps: 1 };
    const [picture] = await finished(pipeline.generate(asked));
    await pipeline.dispose();
    return picture!.pixels;
  };
  const merged = new Map<string, StoredWeight>();
  for (const layer of rows(`${zImage}.to_`)) {
    const key = `${layer}.weight`;
    merged.set(key, arrayWeight(castArray(await readStored(model.weights(key)!), "float32")));
  }
  const own = await drawn(model.weights);
  const other = await drawn((key) => merged.get(key) ?? model.weights(key));
  const none = await drawn((key) => (merged.has(key) ? whole.weights(key) : model.weights(key)));
  expect(Math.max(...own.map((value, i) => Math.abs(value - other[i]!)))).toBeLessThanOrEqual(1);
  expect(own).not.toEqual(none);
  await Promise.all([model.close(), whole.close()]);
});
