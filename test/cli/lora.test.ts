import { spawn } from "node:child_process";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readPictureMetadata, writePicture } from "../../src/pictures/file-node.ts";
import { openSafetensorsFile, writeSafetensors } from "../../src/weights/index-node.ts";
import { readTensor } from "../../src/weights/safetensors/safetensors.ts";
import { randomArray } from "../support/arrays.ts";
import { oneSentence, patchwise } from "../support/cli.ts";
import { typescript } from "../support/typescript.ts";
import { writeTrained } from "../support/trained-folder.ts";

const root = path.resolve(import.meta.dirname, "../..");
const scratch = mkdtempSync(path.join(tmpdir(), "patchwise-lora-cli-"));
const at = (...parts: string[]) => path.join(scratch, ...parts);
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const config = (more = "") => `seed: 3
base: ${JSON.stringify(at("base"))}
lora: { rank: 2, alpha: 3 }
data: { kind: images, path: ${JSON.stringify(at("photos"))}, flip: true }
training: { steps: 24, batch: 4, warmUp: 2, decay: { kind: none }, threads: 1, ema: 0.5 }
checkpoint: { steps: 4 }
samples: { steps: 20, each: 1 }
log: { steps: 2 }
${more}`;

/** Two of the base's three classes, in an order of their own. */
beforeAll(async () => {
  await writeTrained(at("base"));
  for (const name of ["bird", "cat"]) {
    mkdirSync(at("photos", name), { recursive: true });
    for (let i = 0; i < 3; i++) {
      const pixels = randomArray(i, "uint8", [192], 0, 256).data as Uint8Array;
      await writePicture(at("photos", name, `${i}.png`), {
        width: 8,
        height: 8,
        channels: 3,
        pixels,
      });
    }
  }
  writeFileSync(at("style.yaml"), config());
});

const train = (...args: string[]) => patchwise(["train", at("style.yaml"), ...args]);
const adapter = (out: string) => readFileSync(at(out, "lora.safetensors"));

describe("patchwise train of a LoRA", () => {
  let first: ReturnType<typeof train>;
  beforeAll(() => {
    first = train("--out", at("whole"));
  });

  it("prints what it trains, and how to draw with it", () => {
    expect(first.code).toBe(0);
    expect(first.err).toMatch(
      /Training a LoRA of 2,048 parameters on 6 pictures[^]*draw with: patchwise generate .*--model \S+base --lora \S+whole/,
    );
  });

  it("saves the adapter in float16 under the usual names, without weights of the base", async () => {
    expect(readdirSync(at("whole")).filter((name) => !name.startsWith("events"))).toEqual([
      "checkpoints",
      "config.json",
      "data.json",
      "lora.safetensors",
      "metrics.jsonl",
      "samples",
    ]);
    const file = await openSafetensorsFile(at("whole", "lora.safetensors"));
    await file.close();
    const layers = [0, 1].flatMap((i) =>
      ["attn.proj", "attn.qkv", "mlp.fc1", "mlp.fc2"].map((layer) => `blocks.${i}.${layer}`),
    );
    expect([...file.entries.keys()].toSorted()).toEqual(
      layers.flatMap((layer) =>
        ["A", "B"].map((side) => `transformer.${layer}.lora_${side}.weight`),
      ),
    );
    expect(new Set([...file.entries.values()].map(({ dtype }) => dtype))).toEqual(
      new Set(["float16"]),
    );
  });

  it("trains, averages and saves only its own matrices", async () => {
    const state = await openSafetensorsFile(
      at("whole", "checkpoints/step-00000024/state.safetensors"),
    );
    const names = [...state.entries.keys()];
    expect(names.every((name) => /lora_[AB]\.weight$/.test(name))).toBe(true);
    expect(new Set(names.map((name) => name.replace(/blocks.*/, "")))).toEqual(
      new Set(["", "ema/", "optimizer/m.", "optimizer/v."]),
    );
    for (const [name, entry] of state.entries) {
      expect({ name, moved: (await readTensor(entry)).data.some((value) => value !== 0) }).toEqual({
        name,
        moved: true,
      });
    }
    await state.close();
    expect(readdirSync(at("whole", "samples"))).toEqual(["step-00000020.png", "step-00000024.png"]);
  });

  it("resumes bit for bit after being stopped and killed", async () => {
    const out = at("killed");
    expect(train("--out", out, "--set", "training.steps=10")).toMatchObject({ code: 0 });
    expect(adapter("killed").equals(adapter("whole"))).toBe(false);
    const command = [...typescript, path.join(root, "src/cli/main.ts"), "train", at("style.yaml")];
    const child = spawn(process.execPath, [...command, "--out", out, "--resume"], {
      stdio: "ignore",
    });
    const ended = new Promise((resolve) => child.once("close", resolve));
    // It may be quicker than its killer; what must hold is the same.
    const reached = () => existsSync(at("killed", "checkpoints/step-00000012"));
    while (!reached() && child.exitCode === null) await setTimeout(5);
    child.kill("SIGKILL");
    await ended;
    expect(train("--out", out, "--resume")).toMatchObject({ code: 0 });
    expect(adapter("killed").equals(adapter("whole"))).toBe(true);
  }, 240_000);

  it("does not resume on other weights of the base", async () => {
    const weights = at("base", "model.safetensors");
    const before = readFileSync(weights);
    const file = await openSafetensorsFile(weights);
    const tensors = [];
    for (const [name, entry] of file.entries)
      tensors.push([name, await readTensor(entry)] as const);
    await file.close();
    tensors[0]![1].data[0] = 7;
    await writeSafetensors(weights, tensors);
    const { code, err } = train("--out", at("whole"), "--resume");
    writeFileSync(weights, before);
    expect({ code, err }).toMatchObject({ code: 2, err: expect.stringMatching(/baseSha256 was /) });
  });

  it.each([
    [
      "a target that matches no layer",
      'lora.targets=["blocks.*.attn.q"]',
      /target "blocks\.\*\.attn\.q" matches no linear layer of the model; the nearest are blocks\.\*\.attn\.qkv/,
    ],
    [
      "a missing base",
      "base=emojis",
      /The base emojis is neither a bundled model \(emoji, emoji-motion\) nor a folder/,
    ],
    [
      "a data set without captions",
      "base=emoji",
      /The base emoji takes prompts, but .*photos has no captions/,
    ],
    [
      "classes that the base does not know",
      `data.path=${at("others")}`,
      /has no class "fish", but .*others has one; name the folders by the classes of the base: cat, dog, bird\./,
    ],
    [
      "a size of its own",
      "picture.size=16",
      /"picture" comes from the base of a LoRA; leave it out/,
    ],
  ])("refuses %s with a one-line error, and leaves nothing behind", (_, setting, sentence) => {
    for (const name of ["dog", "fish"]) {
      mkdirSync(at("others", name), { recursive: true });
      copyFileSync(at("photos", "cat", "0.png"), at("others", name, "0.png"));
    }
    const { code, out, err } = train("--out", at("none"), "--set", setting);
    expect({ code, out }).toEqual({ code: 2, out: "" });
    expect(err.trim().split("\n").at(-1)).toMatch(sentence);
    expect(existsSync(at("none"))).toBe(false);
  });
});

describe("patchwise generate with LoRA", () => {
  const drawn = (file: string, ...args: string[]) =>
    patchwise([
      "generate",
      "--model",
      at("base"),
      "--class",
      "cat",
      "--seed",
      "5",
      "--out",
      at(file),
      ...args,
    ]);
  const lora = (name: string) => at(name);

  it("combines LoRAs by weight, and records them in the picture", async () => {
    expect(drawn("base.png")).toMatchObject({ code: 0 });
    const whole = drawn("whole.png", "--lora", lora("whole"), "--json");
    expect(JSON.parse(whole.out)).toMatchObject({ loras: [{ file: lora("whole"), weight: 1 }] });
    expect(
      drawn(
        "mixed.webp",
        "--lora",
        `${lora("whole")}:0.25`,
        "--lora",
        `${lora("whole/lora.safetensors")}:-2`,
      ).code,
    ).toBe(0);
    const loras = [
      { file: lora("whole"), weight: 0.25 },
      { file: lora("whole/lora.safetensors"), weight: -2 },
    ];
    expect((await readPictureMetadata(at("mixed.webp"))).loras).toEqual(loras);
    const again = drawn("again.webp", "--from-image", at("mixed.webp"));
    expect(again.code).toBe(0);
    expect(readFileSync(at("again.webp")).equals(readFileSync(at("mixed.webp")))).toBe(true);
    expect(readFileSync(at("again.webp")).equals(readFileSync(at("whole.png")))).toBe(false);
  });

  it("exports the merged weights", () => {
    const args = ["export", at("base"), "--lora", lora("whole"), "--out", at("merged.onnx")];
    expect(patchwise(args)).toMatchObject({ code: 0 });
    const plain = patchwise(["export", at("base"), "--out", at("plain.onnx")]);
    expect(plain.code).toBe(0);
    const [merged, base] = [readFileSync(at("merged.onnx")), readFileSync(at("plain.onnx"))];
    expect(merged.length).toBe(base.length);
    expect(merged.equals(base)).toBe(false);
  });

  it.each([
    ["a missing file", "nothing.safetensors", /There is no LoRA nothing\.safetensors; give/],
    [
      "a model as a LoRA",
      "base",
      /holds no LoRA: none of lora\.safetensors.*; it is a model, which is given as --model\.$/m,
    ],
    [
      "a weight that is no number",
      "base:half",
      /The weight of the LoRA .*base is "half"; give a number/,
    ],
    [
      "weights that are not a LoRA",
      "base/model.safetensors",
      /holds no LoRA: none of its tensors, such as /,
    ],
  ])("refuses %s with a one-line error", (_, file, sentence) => {
    const name = file.startsWith("nothing") ? file : at(file);
    const { code, err } = drawn("refused.png", "--lora", name);
    expect(code).toBe(2);
    expect(err).toMatch(oneSentence);
    expect(err).toMatch(sentence);
    expect(existsSync(at("refused.png"))).toBe(false);
  });
});
