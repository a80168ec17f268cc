import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { UsageError } from "../../src/engine/errors.ts";
import {
  checkedRequest,
  generateRequestSchema,
  settingNames,
  settingRow,
} from "../../src/pipelines/settings.ts";
import { pictureMetadataSchema } from "../../src/pictures/metadata.ts";

describe("a request", () => {
  it("accepts the spellings of diffusers and transformers.js", () => {
    expect(
      checkedRequest({
        num_inference_steps: 8,
        guidanceScale: 2,
        guidance_rescale: 0.5,
        negative_prompt: "blue",
        num_images_per_prompt: 2,
        mask_image: undefined,
      }),
    ).toEqual({ steps: 8, guidance: 2, rescale: 0.5, negativePrompt: "blue", count: 2 });
    expect(checkedRequest({ numInferenceSteps: 8, n: 3, negative: "x" })).toEqual({
      steps: 8,
      count: 3,
      negativePrompt: "x",
    });
  });

  it.each<[string, object, string]>([
    ["an unknown name", { promt: "x" }, 'There is no option "promt"; did you mean prompt?'],
    [
      "a misspelled alias",
      { guidance_scal: 2 },
      'There is no option "guidance_scal"; did you mean guidance or rescale?',
    ],
    [
      "a size in one option",
      { size: [64, 64] },
      'size is "[64,64]"; give width and height in pixels, such as 64x48, or one number for both.',
    ],
    [
      "a setting that is given twice",
      { steps: 4, num_inference_steps: 5 },
      "steps was given twice, once as num_inference_steps; give it once.",
    ],
    ["a number as the prompt", { prompt: 5 }, "prompt must be a text, got 5."],
    [
      "a text as a number",
      { steps: "8" },
      'steps must be a whole number from 1 to 100000, got "8".',
    ],
    [
      "steps without end",
      { steps: 1e9 },
      "steps must be a whole number from 1 to 100000, got 1000000000.",
    ],
    [
      "a list of one as an interval",
      { guidanceInterval: [1] },
      "guidanceInterval must be two numbers of at least 0, the smaller one first, got [1].",
    ],
    [
      "a file name as the image",
      { image: "a.png" },
      'image must be a picture: width, height, channels (1 or 3) and one byte for each in pixels, got "a.png".',
    ],
    [
      "a name that every object has",
      { constructor: 1 },
      `There is no option "constructor"; give one of ${[...settingNames, "size", "signal", "onProgress"].join(", ")}.`,
    ],
    [
      "a signal that is none",
      { signal: {} },
      "signal must be an AbortSignal, such as the signal of an AbortController, got {  }.",
    ],
    ["a callback that is none", { onProgress: 5 }, "onProgress must be a function, got 5."],
    [
      "a text as the request",
      "a red heart" as never,
      'a request must be an object, got "a red heart".',
    ],
    ["null", { seed: null }, "seed must be a whole number from 0 to 9007199254740991, got null."],
  ])("refuses %s in one sentence", (_, request, sentence) => {
    expect(() => checkedRequest(request)).toThrow(new UsageError(sentence));
  });

  it("takes width and height in one text", () => {
    expect(checkedRequest({ size: "64x48" })).toEqual({ width: 64, height: 48 });
    expect(() => checkedRequest({ size: "64x48", width: 64 })).toThrow("width was given twice");
  });

  it("is refused with a code that programs can read", () => {
    const refused = (): unknown => {
      try {
        return checkedRequest({ steps: 0 });
      } catch (error) {
        return error;
      }
    };
    expect(refused()).toMatchObject({ name: "UsageError", code: "usage" });
  });

  it("names all options where no name is near", () => {
    expect(() => checkedRequest({ zzzzzzzz: 1 })).toThrow(
      /^There is no option "zzzzzzzz"; give one of prompt, class, .*, size, signal, onProgress\.$/,
    );
  });
});

describe("the settings table", () => {
  it("gives each setting a help text, and each flag and alias to one setting", () => {
    const spelled = settingNames.flatMap((name) => {
      const { help, expected, flags, aliases = [] } = settingRow(name);
      expect(help).not.toBe("");
      expect(expected).not.toBe("");
      return [name, ...aliases, ...flags.map(({ flag }) => flag.split(" ")[0]!)];
    });
    expect(new Set(spelled).size).toBe(spelled.length);
  });

  it("is the JSON schema of requests", () => {
    const schema = generateRequestSchema() as {
      properties: Record<string, { description: string }>;
      additionalProperties: boolean;
      required?: string[];
    };
    expect(Object.keys(schema.properties)).toEqual(settingNames);
    expect(schema.additionalProperties).toBe(false);
    expect(schema.required).toBeUndefined();
    expect(schema.properties["steps"]).toMatchObject({ type: "integer", minimum: 1 });
    expect(schema.properties["rescale"]).toMatchObject({ type: "number", minimum: 0, maximum: 1 });
    expect(schema.properties["image"]).toMatchObject({ type: "string", contentEncoding: "base64" });
    for (const name of settingNames) {
      expect(schema.properties[name]!.description).toBe(settingRow(name).help);
    }
  });

  it.each(["rescale", "temperature", "guidanceInterval"])(
    "states %s in one row, and drawing uses it in one place",
    (name) => {
      const files = ["settings", "setting", "process", "pipeline", "programs", "image-model"];
      const found = files.filter((file) =>
        new RegExp(`\\b${name}\\b`).test(
          readFileSync(new URL(`../../src/pipelines/${file}.ts`, import.meta.url), "utf8"),
        ),
      );
      expect(found).toEqual(["settings", "process"]);
    },
  );
});

it("reads the metadata of pictures that recorded a size and a negative", () => {
  const drawn = {
    seed: 1,
    steps: 4,
    guidance: 2,
    sampler: "euler",
    model: "emoji",
    version: "0.1.0",
  };
  expect(
    pictureMetadataSchema.parse({ ...drawn, size: [8, 12], negative: "red", rescale: 0.5 }),
  ).toEqual({ ...drawn, width: 12, height: 8, negativePrompt: "red", rescale: 0.5 });
});
