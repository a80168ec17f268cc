import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { UsageError } from "../../src/engine/errors.ts";
import { toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { samplers } from "../../src/diffusion/samplers/index.ts";
import type { NetworkConfig } from "../../src/models/index.ts";
import { type GenerateRequest } from "../../src/pipelines/settings.ts";
import { finished } from "../../src/pipelines/pipeline.ts";
import { createPipeline } from "../../src/pipelines/open/trained-model.ts";
import {
  randomWeights,
  tinyCard,
  tinyNetwork,
  tinyTextNetwork,
  tinyTokenizer,
} from "../support/tiny-model.ts";
import { type Inputs, watchedBackend } from "../support/watched-backend.ts";

const { backend, asked } = watchedBackend();
const weights = randomWeights(tinyNetwork);
const pipeline = createPipeline({ backend, card: tinyCard(), weights });

const textPipeline = createPipeline({
  backend,
  card: tinyCard(tinyTextNetwork),
  weights: randomWeights(tinyTextNetwork),
  tokenizer: tinyTokenizer,
});

const discrete = createPipeline({
  backend,
  card: tinyCard(tinyNetwork, {
    diffusion: { process: "discrete", predicts: "epsilon" },
  } as object),
  weights,
});

const plainNetwork: NetworkConfig = {
  ...tinyNetwork,
  condition: { kind: "none" },
  positions: { kind: "learned" },
};
const plainPipeline = createPipeline({
  backend,
  card: tinyCard(plainNetwork),
  weights: randomWeights(plainNetwork),
});

const noNull: NetworkConfig = {
  ...tinyNetwork,
  condition: { kind: "class", classes: 3, nullClass: false },
};
const unguided = createPipeline({
  backend,
  card: tinyCard(noNull),
  weights: randomWeights(noNull),
});

afterAll(async () => {
  for (const each of [pipeline, textPipeline, discrete, plainPipeline, unguided]) {
    await each.dispose();
  }
});

const draw = (request: GenerateRequest, from = pipeline) => finished(from.generate(request));
const pixelsOf = async (request: GenerateRequest, from = pipeline) =>
  (await draw(request, from)).map(({ pixels }) => [...pixels]);

/** The largest difference of two pictures, in 256ths. */
function apart(a: readonly number[], b: readonly number[]): number {
  expect(a.length).toBe(b.length);
  return Math.max(...a.map((value, i) => Math.abs(value - b[i]!)));
}

describe("a pipeline", () => {
  it("draws the requested number of pictures in the model's size, each with its seed", async () => {
    const pictures = await draw({ class: "dog", count: 3, seed: 5 });
    expect(
      pictures.map(({ seed, width, height, channels }) => [seed, width, height, channels]),
    ).toEqual([5, 6, 7].map((seed) => [seed, 8, 8, 3]));
    const [first, second] = pictures;
    expect(first!.pixels).not.toEqual(second!.pixels);
  });

  it("draws the same picture for the same seed, in any batch, with any sampler", async () => {
    const names = Object.keys(samplers);
    await fc.assert(
      fc.asyncProperty(
        fc.nat(1e6),
        fc.integer({ min: 2, max: 5 }),
        fc.constantFrom(...names),
        fc.constantFrom(1, 3),
        async (seed, count, sampler, guidance) => {
          const settings = { class: 1, sampler, guidance, steps: 3 };
          const together = await pixelsOf({ ...settings, seed, count }, discrete);
          for (const [i, picture] of together.entries()) {
            const [alone] = await pixelsOf({ ...settings, seed: seed + i }, discrete);
            // Matrix products of other sizes may be added up in another order.
            expect(apart(picture, alone!)).toBeLessThanOrEqual(1);
          }
        },
      ),
      { numRuns: 12, seed: 1 },
    );
  });

  it("draws other sizes that are whole patches", async () => {
    const [picture] = await draw({ class: 0, width: 12, height: 4 });
    expect(picture).toMatchObject({ height: 4, width: 12 });
  });

  it("runs the network once a step, on conditional and unconditional rows together", async () => {
    asked.length = 0;
    await draw({ class: "bird", count: 2, steps: 3, guidance: 2 });
    expect(asked).toHaveLength(3);
    for (const { x, y } of asked) {
      expect(x!.shape[0]).toBe(4);
      expect(toNumbers(y!)).toEqual([2, 2, 3, 3]);
    }
  });

  it("runs the conditional network only at guidance 1", async () => {
    asked.length = 0;
    const [picture] = await pixelsOf({ class: "bird", steps: 3, guidance: 1 });
    expect(asked.map(({ y }) => toNumbers(y!))).toEqual([[2], [2], [2]]);
    // What leads away from a class towards the same class leads nowhere.
    for (const guidance of [0.5, 4]) {
      const [same] = await pixelsOf({ class: "bird", steps: 3, guidance, negativePrompt: "bird" });
      expect(apart(picture!, same!)).toBeLessThanOrEqual(1);
    }
    const [guided] = await pixelsOf({ class: "bird", steps: 3, guidance: 4 });
    expect(apart(picture!, guided!)).toBeGreaterThan(10);
  });

  it("warns of sizes that the model was not trained on, and refuses those beyond any network", () => {
    const at = (side: number) => ({ class: 0, width: side, height: side });
    expect(pipeline.settings(at(8)).warnings).toEqual([]);
    for (const side of [4, 16]) {
      expect(pipeline.settings(at(side)).warnings).toEqual([
        `${pipeline.name} was trained on pictures of about 8×8 pixels; at ${side}×${side} expect broken or repeated shapes.`,
      ]);
    }
    expect(() => pipeline.settings(at(16384))).toThrow(
      "cannot draw 16384×16384 pixels: it would consist of 16,777,216 patches, but a network takes at most 262,144",
    );
  });

  it("leads away from a negative class", async () => {
    asked.length = 0;
    await draw({ class: "cat", negativePrompt: "dog", steps: 1, guidance: 2 });
    expect(toNumbers(asked[0]!["y"]!)).toEqual([0, 1]);
  });

  it("guides only the first channels with guidedChannels", async () => {
    const steps = 1;
    const [one] = await pixelsOf({ class: 0, steps, guidance: 5, guidedChannels: 1 });
    const [all] = await pixelsOf({ class: 0, steps, guidance: 5 });
    const [none] = await pixelsOf({ class: 0, steps, guidance: 1 });
    const channel = (pixels: number[], c: number) => pixels.filter((_, i) => i % 3 === c);
    expect(apart(channel(one!, 0), channel(all!, 0))).toBeLessThanOrEqual(1);
    expect(apart(channel(one!, 2), channel(none!, 2))).toBeLessThanOrEqual(1);
    expect(apart(channel(one!, 2), channel(all!, 2))).toBeGreaterThan(1);
  });

  it("decodes previews on demand, the last of which is the picture", async () => {
    const generation = pipeline.generate({ class: 0, steps: 3 });
    const seen: [number, number][] = [];
    let preview: readonly { pixels: Uint8Array }[] = [];
    let next = await generation.next();
    for (; !next.done; next = await generation.next()) {
      seen.push([next.value.step, next.value.steps]);
      preview = await next.value.preview();
    }
    expect(preview.map(({ pixels }) => pixels)).toEqual(next.value.map(({ pixels }) => pixels));
    expect(seen).toEqual([
      [1, 3],
      [2, 3],
      [3, 3],
    ]);
  });

  it("calls onProgress after each step", async () => {
    const seen: number[][] = [];
    const onProgress = (at: { step: number; steps: number }) => seen.push([at.step, at.steps]);
    await draw({ class: 0, steps: 2, onProgress });
    expect(seen).toEqual([
      [1, 2],
      [2, 2],
    ]);
  });

  it("accepts the option names of diffusers, and refuses unknown ones", async () => {
    const request = { class: 0, num_inference_steps: 3, guidance_scale: 2 } as GenerateRequest;
    expect(await pixelsOf(request)).toEqual(await pixelsOf({ class: 0, steps: 3, guidance: 2 }));
    expect(() => pipeline.settings({ class: 0, step: 3 } as GenerateRequest)).toThrow(
      /^There is no option "step"; did you mean steps/,
    );
  });

  it("ends with the signal's reason before the next step", async () => {
    const controller = new AbortController();
    const reason = new Error("enough");
    asked.length = 0;
    const generation = pipeline.generate({ class: 0, steps: 50, signal: controller.signal });
    await generation.next();
    await generation.next();
    controller.abort(reason);
    await expect(generation.next()).rejects.toBe(reason);
    expect(asked).toHaveLength(2);
    await expect(draw({ class: 0, signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  });

  it("resolves all settings, with which another request draws the same pictures", async () => {
    const settings = pipeline.settings({ class: 1 });
    expect(settings).toEqual({
      class: "dog",
      seed: 0,
      steps: 4,
      guidance: 2,
      width: 8,
      height: 8,
      count: 1,
      sampler: "euler",
      warnings: [],
    });
    expect(await pixelsOf(settings)).toEqual(await pixelsOf({ class: 1 }));
  });

  it("finds classes by name in any case, and by number", () => {
    const named = (label: string | number) => pipeline.settings({ class: label }).class;
    expect(["cat", "CAT", 0, "0", " 2 "].map(named)).toEqual(["cat", "cat", "cat", "cat", "bird"]);
  });
});

describe("numbers that are not finite", () => {
  it.each([NaN, Infinity])("such as a weight of %s draw no picture", async (value) => {
    const damaged = Object.fromEntries(
      Object.entries(weights).map(([name, array]) => [
        name,
        { ...array, data: array.data.slice() },
      ]),
    ) as typeof weights;
    damaged["final_layer.linear.bias"]!.data[0] = value;
    const broken = createPipeline({ backend, card: tinyCard(), weights: damaged });
    const drawing = finished(broken.generate({ class: 0, steps: 2 }));
    await expect(drawing).rejects.toThrow(/holds (NaN|-?Infinity), so no picture can be drawn/);
    await broken.dispose();
  });

  it("such as a shift without levels are refused", async () => {
    await expect(draw({ class: 0, shift: 1e9 })).rejects.toThrow(
      "leaves all 4 steps at pure noise",
    );
  });

  it("cannot come from a guidance beyond float32", async () => {
    await expect(draw({ class: 0, guidance: 1e39 })).rejects.toThrow(
      "guidance must be a number from 0 to 1000",
    );
  });
});

describe("a pipeline that takes prompts", () => {
  it("gives the network the token ids, and drops them for guidance", async () => {
    asked.length = 0;
    await draw({ prompt: "a red cat", steps: 1, guidance: 3 }, textPipeline);
    const [{ ids, mask, drop }] = asked as [Inputs];
    expect(toNumbers(ids!).slice(0, 4)).toEqual([2, 3, 5, 0]);
    expect(toNumbers(mask!).slice(0, 4)).toEqual([1, 1, 1, 0]);
    expect(toNumbers(drop!)).toEqual([0, 1]);
  });

  it("draws different pictures for different prompts", async () => {
    const [red] = await pixelsOf({ prompt: "red cat", steps: 2 }, textPipeline);
    const [blue] = await pixelsOf({ prompt: "blue dog", steps: 2 }, textPipeline);
    expect(apart(red!, blue!)).toBeGreaterThan(1);
  });

  it("takes a negative prompt in place of the unconditional input", async () => {
    asked.length = 0;
    await draw({ prompt: "cat", negativePrompt: "dog", steps: 1, guidance: 3 }, textPipeline);
    expect(toNumbers(asked[0]!["drop"]!)).toEqual([0, 0]);
    expect(toNumbers(asked[0]!["ids"]!)).toEqual([5, 0, 0, 0, 6, 0, 0, 0]);
  });

  it("draws unconditionally for an empty prompt, without guidance", async () => {
    asked.length = 0;
    await draw({ prompt: " ", steps: 1 }, textPipeline);
    expect(toNumbers(asked[0]!["drop"]!)).toEqual([1]);
  });

  it("warns where guidance below 1 draws less of the prompt, or nothing of it", () => {
    const warnings = (guidance: number) =>
      textPipeline.settings({ prompt: "cat", guidance }).warnings;
    expect(warnings(0)).toEqual([
      "A guidance of 0 draws without the prompt; give 1 to draw the prompt without guidance, as cards of turbo models mean by 0.",
    ]);
    expect(warnings(0.5)).toEqual([
      expect.stringMatching(/^A guidance of 0\.5 weakens the prompt;/),
    ]);
    expect(warnings(1)).toEqual([]);
    expect(textPipeline.settings({ prompt: "", guidance: 0 }).warnings).toEqual([]);
  });

  it("warns of text past the token limit, and of a negative prompt without effect", () => {
    const long = { prompt: "a red cat on the moon", negativePrompt: "a blue dog" };
    expect(textPipeline.settings(long).warnings).toEqual([
      'The prompt is longer than the 4 tokens that tiny reads; "the moon" is ignored.',
    ]);
    expect(textPipeline.settings({ ...long, prompt: "cat", guidance: 1 }).warnings).toEqual([
      'The negative prompt "a blue dog" has no effect without guidance.',
    ]);
  });
});

describe("a request is refused:", () => {
  it.each<[string, GenerateRequest, RegExp, typeof pipeline]>([
    [
      "an unknown class",
      { class: "bard" },
      /has no class "bard"; the nearest are bird\.$/,
      pipeline,
    ],
    [
      "a class beyond the last",
      { class: 3 },
      /no class "3"; give one of cat, dog, bird\.$/,
      pipeline,
    ],
    ["no class", {}, /draws classes; give one: cat, dog, bird\.$/, pipeline],
    ["a prompt for classes", { prompt: "a cat" }, /takes no prompt such as "a cat"/, pipeline],
    ["an unknown negative", { class: 0, negativePrompt: "x" }, /has no class "x"/, pipeline],
    ["a class for prompts", { class: "cat" }, /has no classes such as "cat"/, textPipeline],
    ["no prompt", {}, /needs a prompt; give one/, textPipeline],
    [
      "a prompt for nothing",
      { prompt: "a" },
      /is unconditional and takes no prompt/,
      plainPipeline,
    ],
    ["a class for nothing", { class: 1 }, /is unconditional and takes no class/, plainPipeline],
    [
      "a negative of nothing",
      { negativePrompt: "a" },
      /takes no negative prompt such as "a"/,
      plainPipeline,
    ],
    ["guidance to nothing", { guidance: 2 }, /nothing to guide towards/, plainPipeline],
    ["another size", { width: 8, height: 4 }, /was trained for 8×8 only/, plainPipeline],
    [
      "guidance untaught",
      { class: 0, guidance: 2 },
      /was not trained without a condition/,
      unguided,
    ],
    [
      "a negative seed",
      { class: 0, seed: -1 },
      /^seed must be a whole number from 0 to \d+, got -1\.$/,
      pipeline,
    ],
    ["a fractional seed", { class: 0, seed: 0.5 }, /^seed must be .*, got 0\.5\.$/, pipeline],
    [
      "a huge seed",
      { class: 0, seed: 2 ** 53 - 1, count: 2 },
      /from 0 to 9007199254740990/,
      pipeline,
    ],
    [
      "no pictures",
      { class: 0, count: 0 },
      /^count must be a whole number from 1 to 100000, got 0\.$/,
      pipeline,
    ],
    ["half a picture", { class: 0, count: 1.5 }, /^count must be .*, got 1\.5\.$/, pipeline],
    [
      "no steps",
      { class: 0, steps: 0 },
      /^steps must be a whole number from 1 to 100000, got 0\.$/,
      pipeline,
    ],
    ["too many steps", { class: 0, steps: 1001 }, /from 1 to 1000/, discrete],
    ["an unknown sampler", { class: 0, sampler: "eular" }, /did you mean euler/, pipeline],
    [
      "no number as guidance",
      { class: 0, guidance: NaN },
      /^guidance must be .*, got NaN\.$/,
      pipeline,
    ],
    ["negative guidance", { class: 0, guidance: -1 }, /^guidance must be .*, got -1\.$/, pipeline],
    ["guidance of 4 channels of 3", { class: 0, guidedChannels: 4 }, /from 1 to 3/, pipeline],
    [
      "parts of patches",
      { class: 0, width: 8, height: 10 },
      /multiples of 4, such as 8×12\.$/,
      pipeline,
    ],
    [
      "a size of none",
      { class: 0, width: NaN, height: 0 },
      /^width must be a whole number of pixels, got NaN\.$/,
      pipeline,
    ],
  ])("%s", async (_, request, sentence, from) => {
    expect(() => from.settings(request)).toThrow(UsageError);
    expect(() => from.settings(request)).toThrow(sentence);
    asked.length = 0;
    await expect(draw(request, from)).rejects.toThrow(sentence);
    expect(asked).toEqual([]);
  });
});

describe("createPipeline", () => {
  it("names missing weights", () => {
    const { "final_layer.linear.bias": _, ...rest } = weights;
    expect(() => createPipeline({ backend, card: tinyCard(), weights: rest })).toThrow(
      /tiny does not fit the model: it lacks "final_layer.linear.bias" \[48\]/,
    );
  });

  it("asks for the tokenizer of a model that takes prompts", () => {
    const model = {
      backend,
      card: tinyCard(tinyTextNetwork),
      weights: randomWeights(tinyTextNetwork),
    };
    expect(() => createPipeline(model)).toThrow(/takes prompts, but there is no tokenizer/);
  });

  it("refuses models whose text encoder is missing", () => {
    const { prompt: _, ...network } = tinyTextNetwork;
    const model = { backend, card: tinyCard(network), weights: {}, tokenizer: tinyTokenizer };
    expect(() => createPipeline(model)).toThrow(
      /embeddings of a text encoder that it does not hold/,
    );
  });
});

describe("a pipeline in an application", () => {
  const opened = () => createPipeline({ backend, card: tinyCard(), weights });

  it("lets timers run between steps, so that a page paints and a signal is heard", async () => {
    let ticks = 0;
    const timer = setInterval(() => ticks++, 0);
    const stopping = new AbortController();
    const generation = pipeline.generate({ class: "cat", steps: 500, signal: stopping.signal });
    setTimeout(() => stopping.abort(new Error("enough")), 5);
    await expect(finished(generation)).rejects.toThrow("enough");
    clearInterval(timer);
    expect(ticks).toBeGreaterThan(0);
  });

  it("ends a generation with an error when it is disposed, and draws no more", async () => {
    const own = opened();
    const generation = own.generate({ class: "cat", steps: 4 });
    await generation.next();
    await own.dispose();
    const message = "The pipeline was disposed, so it draws no more; open it again.";
    await expect(finished(generation)).rejects.toThrow(message);
    await expect(finished(own.generate({ class: "cat", steps: 2 }))).rejects.toThrow(message);
    // A second time does nothing.
    await own.dispose();
  });

  it("is disposed by its symbol", async () => {
    const own = opened();
    await own[Symbol.asyncDispose]();
    await expect(finished(own.generate({ class: "cat" }))).rejects.toThrow("was disposed");
  });
});
