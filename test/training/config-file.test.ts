import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { UsageError } from "../../src/engine/errors.ts";
import { ditPresets } from "../../src/models/dit/config.ts";
import { attentionAndMlp } from "../../src/nn/lora.ts";
import { loraTargets } from "../../src/training/tasks/lora-layers.ts";
import type { LoraTrainingConfig, TrainingConfig } from "../../src/training/config/config.ts";
import { readTrainingConfig } from "../../src/training/config/config-file.ts";

const examples = path.resolve(import.meta.dirname, "../../examples");

const good = `data:
  kind: images
  path: photos
picture:
  size: 32
training:
  steps: 100
`;

const read = (text: string, settings: readonly string[] = []) =>
  readTrainingConfig("a.yaml", text, settings) as TrainingConfig;

describe("a training config", () => {
  it("has defaults for all missing fields", () => {
    const config = read(good);
    expect(config.training.optimizer).toMatchObject({ kind: "adamw", rate: 1e-3 });
    expect(config.diffusion).toMatchObject({ process: "flow", predicts: "x0" });
    expect(config.picture.channels).toBe(3);
  });

  it("is overridden by settings with YAML values", () => {
    const config = read(good, [
      "training.steps=7",
      "training.optimizer={ kind: muon, rate: 0.5 }",
      "model.hidden=64",
    ]);
    expect(config.training.steps).toBe(7);
    expect(config.training.optimizer).toMatchObject({ kind: "muon", rate: 0.5 });
    expect(config.model).toMatchObject({ hidden: 64 });
  });

  it.each([
    ["another length", good],
    ["no length", good.replace("steps: 100", "batch: 8")],
    ["no training", good.replace(/training:.*$/s, "")],
  ])("takes a common budget in place of %s", (_, text) => {
    const { steps, compute } = readTrainingConfig("a.yaml", text, [], { compute: 2 }).training;
    expect([steps, compute]).toEqual([undefined, 2]);
  });

  const files = ["", "compare", "attention"].flatMap((folder) =>
    readdirSync(path.join(examples, folder)).map((name) => path.join(folder, name)),
  );
  it.each(files.filter((name) => name.endsWith(".yaml")))("is valid in the example %s", (name) => {
    const text = readFileSync(path.join(examples, name), "utf8");
    expect(readTrainingConfig(name, text).training.batch).toBeGreaterThan(0);
  });

  it.each([
    [
      "a misspelt key",
      good.replace("steps: 100", "stepz: 100"),
      [],
      /^a\.yaml, line 7: there is no key "stepz" in "training"; did you mean steps\?$/,
    ],
    [
      "a misspelt part",
      good.replace("picture:", "pictrue:"),
      [],
      /^a\.yaml, line 4: there is no key "pictrue" in a training config; did you mean picture\?$/,
    ],
    [
      "a key that other kinds have",
      good.replace("path: photos", "path: photos\n  styles: [noto]"),
      [],
      /^a\.yaml, line 4: there is no key "styles" in "data"; /,
    ],
    [
      "a missing part",
      good.replace(/picture:\n.*\n/, ""),
      [],
      /^a\.yaml: "picture" is missing; give a map of its fields\.$/,
    ],
    [
      "a wrong type",
      good.replace("size: 32", "size: big"),
      [],
      /^a\.yaml, line 5: "picture\.size" is "big", but must be a number or a list of two/,
    ],
    [
      "a number out of range",
      good.replace("steps: 100", "steps: 0"),
      [],
      /^a\.yaml, line 7: "training\.steps" is 0, but must be at least 1\.$/,
    ],
    [
      "an unknown kind",
      good.replace("kind: images", "kind: image"),
      [],
      /^a\.yaml, line 2: "data\.kind" is "image", but must be one of images, /,
    ],
    [
      "an unknown choice",
      good.replace("  steps: 100", "  steps: 100\nsampling:\n  sampler: eular"),
      [],
      /^a\.yaml, line 9: "sampling\.sampler" is "eular", but must be one of ddpm.*did you mean euler/,
    ],
    [
      "no length",
      good.replace("steps: 100", "batch: 3"),
      [],
      /^a\.yaml, line 6: "training": give one of steps, minutes and compute/,
    ],
    ["a broken file", "data: [1\n", [], /^a\.yaml, line \d, is not YAML: /],
    ["something else than a map", "- 1\n", [], /^a\.yaml is not a training config/],
    ["a broken setting", good, ["training.steps"], /^--set "training\.steps" is not of the form/],
    [
      "a setting out of range",
      good,
      ["training.steps=-3"],
      /^--set training\.steps: "training\.steps" is -3, but must be at least 1\.$/,
    ],
    [
      "a setting inside a number",
      good,
      ["training.steps.x=3"],
      /^--set training\.steps\.x: a part of this path is a single value in a\.yaml, and has no keys/,
    ],
    [
      "an average that never moves",
      good,
      ["training.optimizer.kind=adamw", "training.optimizer.beta2=1"],
      /^--set training\.optimizer\.beta2: "training\.optimizer\.beta2" is 1, but must be less than 1\.$/,
    ],
    [
      "the noise at pure noise",
      good,
      ["diffusion={ process: discrete, zeroTerminalSNR: true }"],
      /"diffusion\.predicts": a network that predicts epsilon learns nothing at pure noise, where zeroTerminalSNR begins to draw; predict v or x0\.$/,
    ],
    [
      "the noise of a flow",
      good,
      ["diffusion={ process: flow, predicts: epsilon }"],
      /"diffusion\.predicts": .* at pure noise, where a flow begins to draw/,
    ],
    [
      "an unknown setting",
      good,
      ["training.step=3"],
      /^--set training\.step: there is no key "step" in "training"; did you mean steps/,
    ],
  ] as const)("says where and what is wrong: %s", (_, text, settings, message) => {
    let error: unknown;
    try {
      readTrainingConfig("a.yaml", text, settings);
    } catch (caught) {
      error = caught;
    }
    expect(error).toBeInstanceOf(UsageError);
    expect((error as Error).message).toMatch(message);
  });
});

it.each([
  "a: &a [x, *a]",
  [
    "a0: &a0 [x,x,x,x,x,x,x,x,x,x]",
    ...Array.from(
      { length: 9 },
      (_, i) => `a${i + 1}: &a${i + 1} [${new Array(10).fill(`*a${i}`).join()}]`,
    ),
  ].join("\n"),
])("refuses aliases without end: %s", (text) => {
  expect(() => readTrainingConfig("c.yaml", text)).toThrow(
    "c.yaml has YAML aliases that contain themselves or are too many",
  );
});

it("refuses a setting whose alias contains itself", () => {
  expect(() =>
    readTrainingConfig("c.yaml", "training: { steps: 1 }", ["training.steps=&a [*a]"]),
  ).toThrow("has YAML aliases that contain themselves");
});

it("refuses batches and pictures that no memory holds", () => {
  const text = (size: number, batch: number) =>
    `data: { kind: images, path: x }\npicture: { size: ${size} }\ntraining: { steps: 1, batch: ${batch} }\n`;
  expect(() => readTrainingConfig("c.yaml", text(100_000, 1))).toThrow("c.yaml, line 2: ");
  expect(() => readTrainingConfig("c.yaml", text(8, 100_000_000))).toThrow("c.yaml, line 3: ");
});

describe("a config of a LoRA", () => {
  const lora = `base: emoji
lora: { rank: 4 }
data:
  kind: images
  path: photos
training:
  steps: 100
`;

  it("has its rank as alpha and the targets of the base's family by default", () => {
    const config = readTrainingConfig("a.yaml", lora) as LoraTrainingConfig;
    expect(config).toMatchObject({ base: "emoji", checkpoint: { weights: "float16" } });
    expect(config.lora).toEqual({ rank: 4, alpha: 4, base: "float32" });
    const network = { kind: "dit", ...ditPresets["DiT-S/8"] };
    expect(loraTargets(network)).toEqual([...attentionAndMlp]);
    const other = readTrainingConfig("a.yaml", lora, ["lora.alpha=8"]) as LoraTrainingConfig;
    expect(other.lora.alpha).toBe(8);
  });

  it.each([
    ["base: emoji\n", "", /^a\.yaml: "base" is missing; give a text\.$/],
    ["lora: { rank: 4 }\n", "", /^a\.yaml: "lora" is missing; give a map of its fields\.$/],
    ["rank: 4", "rank: 0", /^a\.yaml, line 2: "lora\.rank" is 0, but must be at least 1\.$/],
    [
      "rank: 4",
      "rang: 4",
      /^a\.yaml, line 2: there is no key "rang" in "lora"; did you mean rank\?$/,
    ],
    ["rank: 4", "targets: []", /"lora\.targets" is \[\], but must be a list of at least 1\.$/],
    [
      "data:",
      "picture: { size: 32 }\ndata:",
      /^a\.yaml, line 3: "picture" comes from the base of a LoRA; leave it out\.$/,
    ],
    [
      "steps: 100",
      "steps: 9\n  from: x",
      /^a\.yaml, line 8: "training\.from" comes from the base of a LoRA; leave it out\.$/,
    ],
    ["steps: 100", "batch: 4", /give one of steps, minutes and compute/],
  ])("with %j replaced by %j is refused with a one-line error", (before, after, sentence) => {
    const reading = () => readTrainingConfig("a.yaml", lora.replace(before, after));
    expect(reading).toThrow(UsageError);
    expect(reading).toThrow(sentence);
  });
});
