import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { UsageError } from "../../src/engine/errors.ts";
import { readTrainingConfig } from "../../src/training/config-file.ts";

const examples = path.resolve(import.meta.dirname, "../../examples");

const good = `data:
  kind: images
  path: photos
picture:
  size: 32
training:
  steps: 100
`;

describe("a training config", () => {
  it("has defaults for all that it leaves out", () => {
    const config = readTrainingConfig("a.yaml", good);
    expect(config.training.optimizer).toMatchObject({ kind: "adamw", rate: 1e-3 });
    expect(config.diffusion).toMatchObject({ process: "flow", predicts: "x0" });
    expect(config.picture.channels).toBe(3);
  });

  it("is overridden by settings, whose values are YAML", () => {
    const config = readTrainingConfig("a.yaml", good, [
      "training.steps=7",
      "training.optimizer={ kind: muon, rate: 0.5 }",
      "model.hidden=64",
    ]);
    expect(config.training.steps).toBe(7);
    expect(config.training.optimizer).toMatchObject({ kind: "muon", rate: 0.5 });
    expect(config.model.hidden).toBe(64);
  });

  it.each(readdirSync(examples).filter((name) => name.endsWith(".yaml")))(
    "is what the example %s is",
    (name) => {
      const text = readFileSync(path.join(examples, name), "utf8");
      expect(readTrainingConfig(name, text).training.batch).toBeGreaterThan(0);
    },
  );

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
      /^a\.yaml, line 6: "training": give either steps or minutes/,
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
