import { existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, expect, it } from "vitest";
import { castArray, ndarray, sizeOf } from "../../src/engine/arrays/ndarray.ts";
import { arrayWeight, weightType } from "../../src/engine/runtime/stored-weight.ts";
import { openModel } from "../../src/pipelines/open/open-node.ts";
import { type QuantizedLayer, quantizeModel } from "../../src/pipelines/quantize-node.ts";
import { openSafetensorsFile } from "../../src/weights/safetensors/file-node.ts";
import { readStored } from "../../src/weights/stored-node.ts";
import { smallModels, writeSmallFolder } from "../support/flux-folders.ts";
import { oneSentence, patchwise } from "../support/cli.ts";

const scratch = mkdtempSync(path.join(tmpdir(), "patchwise-quantize-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

it.each([
  ["klein", "Q8_0"],
  ["zImage", "Q8_0"],
  ["klein", "int8"],
  ["zImage", "int8"],
  ["schnell", "Q4_K"],
  ["miniT2I", "Q8_0"],
  ["miniT2I", "Q4_0"],
  ["miniT2I", "int8"],
] as const)("the network of %s in %s opens again", async (name, wanted) => {
  const folder = path.join(scratch, name);
  await writeSmallFolder(folder, smallModels[name]);
  const model = await openModel(folder);
  const file = path.join(scratch, `${name}.${wanted === "int8" ? "safetensors" : "gguf"}`);
  const layers: QuantizedLayer[] = [];
  await quantizeModel(model, wanted, file, (layer) => layers.push(layer));
  const again = await openModel(file);
  const { length: _, ...condition } = model.network.condition as Record<string, unknown>;
  expect(again.network).toMatchObject({ ...model.network, condition });
  for (const { name: key, type, error } of layers) {
    const [before, after] = await Promise.all(
      [model, again].map(
        async ({ weights }) => castArray(await readStored(weights(key)!), "float32").data,
      ),
    );
    const norm = (x: Float32Array) => Math.sqrt(x.reduce((sum, value) => sum + value ** 2, 0));
    const change = norm(before!.map((value, i) => value - after![i]!)) / norm(before!);
    expect([key, change]).toEqual([key, expect.closeTo(error, 5)]);
    const [least, most] =
      type === "F32" ? [0, 0] : type.startsWith("Q4") ? [0.06, 0.1] : [0.003, 0.009];
    expect(error >= least && error <= most).toBe(true);
  }
  await Promise.all([model.close(), again.close()]);
});

it("the command tells the error of each layer, and how far a picture differs", async () => {
  const folder = path.join(scratch, "told");
  await writeSmallFolder(folder, smallModels.miniT2I);
  const file = path.join(scratch, "told.gguf");
  const drawn = ["--prompt", "a red cat", "--size", "32x32", "--steps", "1"];
  const args = [folder, "--type", "q4_0", "--out", file, ...drawn, "--json"];
  const { code, out, err } = patchwise(["quantize", ...args]);
  expect([code, err]).toEqual([0, ""]);
  const { layers, picture } = JSON.parse(out) as { layers: QuantizedLayer[]; picture: number };
  const error = Object.fromEntries(layers.map((layer) => [layer.name, layer.error]));
  expect(error["double_blocks.0.img_qkv.weight"]).toBeGreaterThan(0.06);
  expect(picture).toBeGreaterThan(0.2);
  expect(picture).toBeLessThan(5);
});

it("a file of the model itself is not overwritten, and others name the architecture", async () => {
  const folder = path.join(scratch, "own");
  await writeSmallFolder(folder, smallModels.zImage);
  const [first, link] = ["first.gguf", "link.gguf"].map((name) => path.join(scratch, name));
  const whole = await openModel(folder);
  await quantizeModel(whole, "Q8_0", first!, () => {});
  await whole.close();
  const file = await openSafetensorsFile(first!);
  expect(file.metadata.get("general.architecture")).toBe("lumina2");
  await file.close();
  symlinkSync(first!, link!);
  const before = readFileSync(first!);
  for (const out of [first!, link!]) {
    const { code, err } = patchwise(["quantize", first!, "--type", "Q4_0", "--out", out]);
    expect([code, err]).toEqual([
      2,
      `patchwise: ${out} is a file of the model itself, whose weights would be lost; write to another name.\n`,
    ]);
  }
  expect(readFileSync(first!).equals(before)).toBe(true);
});

it("numbers beyond the float16 scales of blocks are refused, and int8 has room for them", async () => {
  const folder = path.join(scratch, "large");
  await writeSmallFolder(folder, smallModels.klein);
  const model = await openModel(folder);
  const large = weightType(model.weights("double_blocks.0.img_attn.qkv.weight")!).shape;
  const values = ndarray("float32", large, new Float32Array(sizeOf(large)).fill(3e7));
  const changed = {
    ...model,
    weights: (name: string) =>
      name === "double_blocks.0.img_attn.qkv.weight" ? arrayWeight(values) : model.weights(name),
  };
  const out = (ending: string) => path.join(scratch, `large.${ending}`);
  await expect(quantizeModel(changed, "Q8_0", out("gguf"), () => {})).rejects.toThrow(
    "double_blocks.0.img_attn.qkv.weight holds numbers up to 3.00e+7, beyond the float16 scales of Q8_0; give --type int8",
  );
  expect(existsSync(out("gguf"))).toBe(false);
  await quantizeModel(changed, "int8", out("safetensors"), ({ error }) =>
    expect(error).toBeLessThan(0.01),
  );
  await model.close();
});

it("what cannot be quantized is refused in one sentence", async () => {
  const out = path.join(scratch, "x.gguf");
  const emoji = await openModel("emoji");
  await expect(quantizeModel(emoji, "Q8_0", out, () => {})).rejects.toThrow(
    "whose config no file of weights alone shows",
  );
  await emoji.close();
  const { code, err } = patchwise(["quantize", "emoji", "--type", "q3", "--out", out]);
  expect([code, err]).toEqual([2, expect.stringMatching(oneSentence)]);
  expect(err).toContain('--type is "q3"; give one of q8_0, q4_0, q4_k, int8.');
});
