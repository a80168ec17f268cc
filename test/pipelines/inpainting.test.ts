import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { picturesOf, valuesOf, withChannels } from "../../src/pictures/picture.ts";
import type { Picture } from "../../src/pictures/picture.ts";
import { combine } from "../../src/diffusion/arrays.ts";
import { diffusersScheduler } from "../../src/diffusion/diffusers/schedulers.ts";
import { flowLevels } from "../../src/diffusion/levels.ts";
import { keyedNoise } from "../../src/diffusion/noise.ts";
import { samplers } from "../../src/diffusion/samplers/index.ts";
import { finalImages } from "../../src/diffusion/samplers/sampler.ts";
import { UsageError } from "../../src/engine/errors.ts";
import { type NdArray, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { normal, randomKey } from "../../src/engine/random/random.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { type NetworkConfig } from "../../src/models/network.ts";
import { mmditPresets } from "../../src/models/index.ts";
import { openAutoencoder } from "../../src/models/coders/image-codec-node.ts";
import { encoderGraph } from "../../src/pipelines/image-model.ts";
import { type GenerateRequest } from "../../src/pipelines/settings.ts";
import { finished, type Pipeline } from "../../src/pipelines/pipeline.ts";
import { schedulerProcess, schedulerSampler } from "../../src/pipelines/process.ts";
import { createPipeline } from "../../src/pipelines/open/trained-model.ts";
import { fieldReader } from "../../src/weights/config-fields.ts";
import { writeVAE } from "../support/model-folders.ts";
import { randomWeights, tinyCard, tinyNetwork } from "../support/tiny-model.ts";
import { watchedBackend } from "../support/watched-backend.ts";

const { backend, asked } = watchedBackend();
const weights = randomWeights(tinyNetwork);
const flow = createPipeline({ backend, card: tinyCard(), weights });
const discrete = createPipeline({
  backend,
  card: tinyCard(tinyNetwork, {
    diffusion: { process: "discrete", predicts: "epsilon" },
  } as object),
  weights,
});

const folder = mkdtempSync(path.join(tmpdir(), "patchwise-inpainting-"));
const latentNetwork: NetworkConfig = { ...tinyNetwork, channels: 4 };
let latent: Pipeline;
let autoencoder: Awaited<ReturnType<typeof openAutoencoder>>;

beforeAll(async () => {
  await writeVAE(path.join(folder, "vae"));
  autoencoder = await openAutoencoder(path.join(folder, "vae"));
  const card = tinyCard(latentNetwork, { latents: { autoencoder: autoencoder.config } });
  latent = createPipeline({
    backend,
    card,
    weights: randomWeights(latentNetwork),
    autoencoder: autoencoder.file,
  });
});

afterAll(async () => {
  for (const each of [flow, discrete, latent]) await each.dispose();
  rmSync(folder, { recursive: true, force: true });
});

/** A picture of any pixels. */
function randomPicture(seed: number, side = 8, channels: 1 | 3 = 3): Picture {
  const [picture] = picturesOf(normal(randomKey(seed), [1, channels, side, side]));
  return picture!;
}

/** In grey, from how much of each pixel is to be drawn anew. */
function maskOf(side: number, share: (row: number, column: number) => number): Picture {
  const pixels = Uint8Array.from({ length: side * side }, (_, i) =>
    Math.round(255 * share(Math.floor(i / side), i % side)),
  );
  return { width: side, height: side, channels: 1, pixels };
}

const white = maskOf(8, () => 1);
const black = maskOf(8, () => 0);
const rightHalf = maskOf(8, (_, column) => (column >= 4 ? 1 : 0));
const image = randomPicture(1);

const draw = (request: GenerateRequest, from = flow) =>
  finished(from.generate({ class: "cat", ...request }));
const pixelsOf = async (request: GenerateRequest, from = flow) =>
  (await draw(request, from)).map(({ pixels }) => [...pixels]);

describe("a mask", () => {
  it("may have 1 in the place of 255, as programs write true", async () => {
    const truth = { ...rightHalf, pixels: rightHalf.pixels.map((value) => value / 255) };
    const [byNumbers, byTruth] = await Promise.all(
      [rightHalf, truth].map((mask) => pixelsOf({ image, mask, steps: 2 })),
    );
    expect(byTruth).toEqual(byNumbers);
  });

  it("is warned of where it keeps all of the image, or nothing", () => {
    const warnings = (mask: Picture) => flow.settings({ class: "cat", image, mask }).warnings;
    expect(warnings(black)).toEqual([expect.stringMatching(/^The mask is black everywhere/)]);
    expect(warnings(white)).toEqual([expect.stringMatching(/^The mask is white everywhere/)]);
    expect(warnings(rightHalf)).toEqual([]);
    const spot = maskOf(8, (row, column) => (row < 2 && column < 3 ? 0 : 1));
    expect(warnings(spot)).toEqual([
      "The mask is white, and the picture drawn anew, on 91 % of it; if only the black part was to be drawn, invert the mask.",
    ]);
  });
});

describe("image-to-image", () => {
  it("begins at the step of Stable Diffusion 3's code, with the image noised to its level", async () => {
    for (const [steps, strength] of [
      [8, 0.6],
      [10, 0.25],
      [4, 1],
      [3, 0.001],
    ] as const) {
      asked.length = 0;
      await draw({ image, steps, strength, guidance: 1, seed: 3 });
      const begin = Math.min(Math.trunc(steps * (1 - strength)), steps - 1);
      const levels = flowLevels(steps).slice(begin, -1);
      expect(asked.map(({ t }) => toNumbers(t!)[0])).toEqual(
        levels.map(({ time }) => Math.fround(time)),
      );
      const noise = keyedNoise([randomKey(3)])("start", [1, 3, 8, 8]);
      const { alpha, sigma } = levels[0]!;
      const start = combine([alpha, valuesOf(image.pixels, image)], [sigma, noise]);
      expect(toNumbers(asked[0]!["x"]!)).toEqual(toNumbers(start));
    }
  });

  it("at strength 1 ignores the image if its levels begin with pure noise", async () => {
    const [anew] = await pixelsOf({ seed: 4 });
    expect(await pixelsOf({ seed: 4, image, strength: 1 })).toEqual([anew]);
    const [changed] = await pixelsOf({ seed: 4, image, strength: 0.5 });
    expect(changed).not.toEqual(anew);
  });

  it("converts a grey image for a model of colour images", async () => {
    const grey = randomPicture(2, 8, 1);
    const pixels = Uint8Array.from([...grey.pixels].flatMap((value) => [value, value, value]));
    const coloured: Picture = { ...grey, channels: 3, pixels };
    expect(await pixelsOf({ image: grey })).toEqual(await pixelsOf({ image: coloured }));
    expect(withChannels(coloured, 1)).toEqual(grey);
  });

  it("draws each picture of a batch as it is drawn alone", async () => {
    const request = { image, mask: rightHalf, strength: 0.7, steps: 5 };
    const [first, second] = await pixelsOf({ ...request, seed: 5, count: 2 });
    const [alone] = await pixelsOf({ ...request, seed: 6 });
    expect(Math.max(...second!.map((value, i) => Math.abs(value - alone![i]!)))).toBeLessThan(2);
    expect(first).not.toEqual(second);
  });

  it("takes the size from the image, and default strengths", () => {
    const settings = (request: GenerateRequest) => flow.settings({ class: "cat", ...request });
    const wide = { ...image, width: 16, height: 4 };
    expect(settings({ image: wide })).toMatchObject({ width: 16, height: 4, strength: 0.8 });
    expect(settings({ image, mask: rightHalf })).toMatchObject({ strength: 1, masked: true });
    expect(settings({ image, mask: rightHalf, strength: 0.3 })).toMatchObject({ strength: 0.3 });
    expect(settings({})).not.toHaveProperty("strength");
    expect(settings({ image })).not.toHaveProperty("masked");
  });
});

describe.each([
  ["a flow", () => flow],
  ["a discrete process", () => discrete],
])("inpainting with %s", (_, pipeline) => {
  it("keeps every pixel outside the mask with every sampler", async () => {
    const changed: string[] = [];
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...Object.keys(samplers)),
        fc.double({ min: 0.05, max: 1, noNaN: true }),
        fc.constantFrom(1, 3),
        fc.uint8Array({ minLength: 64, maxLength: 64 }),
        fc.nat(1000),
        async (sampler, strength, guidance, shares, seed) => {
          const pixels = shares.map((value) => (value < 128 ? 0 : value));
          const mask: Picture = { width: 8, height: 8, channels: 1, pixels };
          const request = { image, mask, strength, guidance, sampler, seed, steps: 4 };
          const [picture] = await pixelsOf(request, pipeline());
          const kept = (_value: number, i: number) => pixels[Math.floor(i / 3)] === 0;
          const [found, given] = [picture!.filter(kept), [...image.pixels].filter(kept)];
          if (found.join() !== given.join()) changed.push(sampler);
        },
      ),
      { numRuns: 25, seed: 2 },
    );
    expect(changed).toEqual([]);
  });

  it("draws anew where the mask is white and keeps the image where it is black", async () => {
    const request = { image, strength: 0.8, seed: 7 };
    const [plain] = await pixelsOf(request, pipeline());
    expect(await pixelsOf({ ...request, mask: white }, pipeline())).toEqual([plain]);
    expect(await pixelsOf({ ...request, mask: black }, pipeline())).toEqual([[...image.pixels]]);
    const [half] = await pixelsOf({ ...request, mask: rightHalf }, pipeline());
    const inMask = half!.filter((value, i) => (i / 3) % 8 >= 4 && value !== image.pixels[i]);
    expect(inMask.length).toBeGreaterThan(48);
  });

  it("gives the network the known part with as much noise as the rest", async () => {
    asked.length = 0;
    const request = { image, mask: rightHalf, guidance: 1, sampler: "euler", steps: 5, seed: 8 };
    const generation = pipeline().generate({ class: "cat", ...request });
    for (;;) {
      const next = await generation.next();
      if (next.done) break;
      const [preview] = await next.value.preview();
      const left = (_value: number, i: number) => (i / 3) % 8 < 4;
      expect(preview!.pixels.filter(left)).toEqual(image.pixels.filter(left));
    }
    const known = toNumbers(valuesOf(image.pixels, image));
    const noise = toNumbers(keyedNoise([randomKey(8)])("start", [1, 3, 8, 8]));
    expect(asked).toHaveLength(5);
    // Euler's steps keep the noise that was begun with: of two places, x tells alpha and sigma.
    for (const { x } of asked) {
      const seen = toNumbers(x!);
      const [a, b] = [0, 1];
      const determinant = known[a]! * noise[b]! - known[b]! * noise[a]!;
      const alpha = (seen[a]! * noise[b]! - seen[b]! * noise[a]!) / determinant;
      const sigma = (known[a]! * seen[b]! - known[b]! * seen[a]!) / determinant;
      for (const i of [...known.keys()].filter((place) => place % 8 < 4)) {
        expect(seen[i]).toBeCloseTo(alpha * known[i]! + sigma * noise[i]!, 4);
      }
    }
  });
});

describe("a model of latents", () => {
  const large = randomPicture(9, 16);
  const corner = maskOf(16, (row, column) => (row > 8 && column > 8 ? 1 : 0));

  it("begins with the encoder's scaled mean, computed once", async () => {
    asked.length = 0;
    await draw({ image: large, strength: 0.5, guidance: 1, count: 2, seed: 3 }, latent);
    const [encoded, ...rest] = asked;
    expect(toNumbers(encoded!["images"]!)).toEqual(toNumbers(valuesOf(large.pixels, large)));
    expect(rest.filter(({ images }) => images)).toEqual([]);
    const program = await nodeBackend("cpu").compile(encoderGraph(autoencoder, [16, 16]), {
      weights: autoencoder.weights,
    });
    const { latents } = await program.run({ images: encoded!["images"]! });
    await program.dispose();
    const { alpha, sigma } = flowLevels(4)[2]!;
    const noise = keyedNoise([randomKey(3), randomKey(4)])("start", [2, 4, 8, 8]);
    const seen = toNumbers(rest[0]!["x"]!);
    const both = [...toNumbers(latents!), ...toNumbers(latents!)];
    for (const [i, value] of toNumbers(noise).entries()) {
      expect(seen[i]).toBeCloseTo(alpha * both[i]! + sigma * value, 4);
    }
  });

  it("keeps every pixel outside the mask", async () => {
    const request = { image: large, mask: corner, seed: 2 };
    const [picture] = await draw(request, latent);
    const drawn = (_value: number, i: number) => corner.pixels[Math.floor(i / 3)] === 255;
    const kept = (value: number, i: number) => !drawn(value, i);
    expect(picture!.pixels.filter(kept)).toEqual(large.pixels.filter(kept));
    const changed = picture!.pixels.filter(
      (value, i) => drawn(value, i) && value !== large.pixels[i],
    );
    expect(changed.length).toBeGreaterThan(100);
  });

  it("draws a latent anew if one of its pixels is in the mask", async () => {
    asked.length = 0;
    const one = maskOf(16, (row, column) => (row === 5 && column === 5 ? 1 : 0));
    const request = { image: large, guidance: 1, sampler: "euler", steps: 2, seed: 2 };
    await draw({ ...request, mask: one }, latent);
    const last = toNumbers(asked.filter(({ x }) => x).at(-1)!["x"]!);
    asked.length = 0;
    await draw({ ...request, mask: maskOf(16, () => 0) }, latent);
    const kept = toNumbers(asked.filter(({ x }) => x).at(-1)!["x"]!);
    const moved = last.flatMap((value, i) => (Math.abs(value - kept[i]!) > 1e-4 ? [i % 64] : []));
    expect(new Set(moved)).toEqual(new Set([2 * 8 + 2]));
  });
});

it("a scheduler with its own target levels samples the last levels as in a whole run", async () => {
  const fields = { beta_schedule: "linear", timestep_spacing: "linspace", clip_sample: false };
  const scheduler = diffusersScheduler("DDIMScheduler", fieldReader("config", fields));
  const process = schedulerProcess("DDIMScheduler", scheduler);
  const levels = process.levels(7, { size: [2, 2] });
  const sampler = schedulerSampler(scheduler, 7);
  const x = normal(randomKey(1), [1, 1, 2, 2]);
  const denoise = async (seen: NdArray) => ({ x0: combine([0.6, seen]) });
  const states: NdArray[] = [];
  for await (const step of sampler(denoise, x, levels)) states.push(step.x);
  const again = await finalImages(sampler(denoise, states[2]!, levels.slice(3)));
  expect(toNumbers(again)).toEqual(toNumbers(states[6]!));
});

describe("an image, mask or strength is refused:", () => {
  const small: Picture = { ...image, width: 4, height: 8, pixels: image.pixels.slice(0, 96) };
  it.each<[string, GenerateRequest, RegExp]>([
    [
      "a mask of another size",
      { image, mask: small },
      /mask has 4×8 pixels, but its image has 8×8;/,
    ],
    [
      "an image of another size",
      { image, width: 8, height: 4 },
      /image has 8×8 pixels, but width and height ask for 8×4/,
    ],
    ["parts of patches", { image: randomPicture(1, 10) }, /cannot draw 10×10 pixels/],
    ["no strength", { image, strength: 0 }, /^strength must be a number above 0, .*, got 0\.$/],
    ["too much strength", { image, strength: 1.01 }, /^strength must be .*, got 1\.01\.$/],
    ["no number", { image, strength: NaN }, /^strength must be .*, got NaN\.$/],
    ["a strength of nothing", { strength: 0.5 }, /^A strength of 0\.5 needs an image/],
    ["a mask of nothing", { mask: white }, /^A mask needs an image/],
    [
      "missing pixels",
      { image: { ...image, pixels: image.pixels.slice(1) } },
      /^image must be a picture: .* one byte for each in pixels, got \{ channels: 3, pixels: bytes, height: 8, width: 8 \}\.$/,
    ],
  ])("%s", (_, request, message) => {
    expect(() => flow.settings({ class: "cat", ...request })).toThrow(UsageError);
    expect(() => flow.settings({ class: "cat", ...request })).toThrow(message);
  });
});

describe("skip-layer guidance", () => {
  const network: NetworkConfig = {
    ...mmditPresets["SD3-medium"],
    kind: "mmdit",
    size: [8, 8],
    channels: 3,
    patch: 4,
    hidden: 32,
    depth: 3,
    heads: 2,
    positions: { kind: "sin-cos", max: 8 },
    condition: { kind: "class", classes: 3, nullClass: true },
  };
  const mmdit = createPipeline({
    backend,
    card: tinyCard(network),
    weights: randomWeights(network),
  });
  afterAll(() => mmdit.dispose());
  const skipLayers = { layers: [1], scale: 2, from: 0.1, to: 0.7 };

  it("adds skipping rows to the same run, in its steps only", async () => {
    asked.length = 0;
    await draw({ steps: 5, count: 2, guidance: 3, skipLayers }, mmdit);
    expect(asked.map(({ skip }) => toNumbers(skip!))).toEqual([
      [0, 0, 0, 0],
      ...[1, 2, 3].map(() => [0, 0, 0, 0, 1, 1]),
      [0, 0, 0, 0],
    ]);
    expect(toNumbers(asked[1]!["y"]!)).toEqual([0, 0, 3, 3, 0, 0]);
    asked.length = 0;
    await draw({ steps: 3, guidance: 1, skipLayers }, mmdit);
    expect(asked.map(({ skip }) => toNumbers(skip!))).toEqual([[0], [0, 1], [0, 1]]);
  });

  it("changes nothing at scale 0, and the picture at other scales", async () => {
    const request = { steps: 5, guidance: 3, seed: 4 };
    const plain = await pixelsOf(request, mmdit);
    const none = { ...request, skipLayers: { ...skipLayers, scale: 0 } };
    expect(await pixelsOf(none, mmdit)).toEqual(plain);
    expect(await pixelsOf({ ...request, skipLayers }, mmdit)).not.toEqual(plain);
    // No step lies between.
    const never = { ...skipLayers, from: 0.1, to: 0.15 };
    const [idle] = await pixelsOf({ ...request, skipLayers: never }, mmdit);
    const apart = idle!.map((value, i) => Math.abs(value - plain[0]![i]!));
    expect(Math.max(...apart)).toBeLessThan(2);
  });

  it("counts the remaining steps of image-to-image, as in Stable Diffusion 3's code", async () => {
    asked.length = 0;
    const late = { ...skipLayers, from: 0, to: 0.3 };
    await draw({ image, strength: 0.5, steps: 10, guidance: 1, skipLayers: late }, mmdit);
    expect(asked.map(({ skip }) => skip!.shape[0])).toEqual([1, 2, 2, 1, 1]);
  });

  it("has the published settings by default", () => {
    const settings = mmdit.settings({ class: "cat", skipLayers: { layers: [2, 0, 2] } });
    expect(settings.skipLayers).toEqual({ layers: [0, 2], scale: 2.8, from: 0.01, to: 0.2 });
  });

  it.each<[string, GenerateRequest["skipLayers"], RegExp]>([
    [
      "a layer beyond the last",
      { layers: [1, 3] },
      /must be layers from 0 to 2 for tiny, got 3\.$/,
    ],
    ["half a layer", { layers: [0.5] }, /^skipLayers must be .*, got \{ layers: \[0\.5\] \}\.$/],
    [
      "no layer",
      { layers: [], scale: 2 },
      /^skipLayers must be .*, got \{ layers: \[\], scale: 2 \}\.$/,
    ],
    [
      "a negative scale",
      { layers: [1], scale: -1 },
      /^skipLayers must be .*, got \{ layers: \[1\], scale: -1 \}\.$/,
    ],
    [
      "steps upside down",
      { layers: [1], from: 0.5, to: 0.2 },
      /^skipLayers must be .*, got \{ layers: \[1\], from: 0\.5, to: 0\.2 \}\.$/,
    ],
  ])("refuses %s", (_, wrong, message) => {
    const request = { class: "cat", skipLayers: wrong };
    expect(() => mmdit.settings(request)).toThrow(UsageError);
    expect(() => mmdit.settings(request)).toThrow(message);
  });
});

describe("further guidance settings", () => {
  it("run no unconditional rows outside the guidance interval", async () => {
    asked.length = 0;
    // Times 1, 0.75, 0.5 and 0.25: ratios of infinity, 3, 1 and 1/3.
    await draw({ steps: 4, guidance: 3, guidanceInterval: [0.5, 3.5] });
    expect(asked.map(({ x }) => x!.shape[0])).toEqual([1, 2, 2, 1]);
  });

  it("with rescale draw another picture, the same each time", async () => {
    const request = { class: "cat", steps: 3, guidance: 5 };
    const settings = flow.settings({ ...request, rescale: 0.7, guidanceInterval: [0, 50] });
    expect(settings).toMatchObject({ rescale: 0.7, guidanceInterval: [0, 50] });
    expect(await pixelsOf(settings)).not.toEqual(await pixelsOf(request));
    expect(await pixelsOf(settings)).toEqual(await pixelsOf(settings));
  });

  it("with shift run the network at shifted times", async () => {
    asked.length = 0;
    await draw({ steps: 3, guidance: 1, shift: 3 });
    expect(asked.map(({ t }) => toNumbers(t!)[0])).toEqual(
      flowLevels(3, { shift: 3 })
        .slice(0, -1)
        .map(({ time }) => Math.fround(time)),
    );
  });

  it.each<[string, GenerateRequest, RegExp, Pipeline]>([
    ["a shift of nothing", { shift: 0 }, /^shift must be a number above 0, .*, got 0\.$/, flow],
    ["a shift of fixed steps", { shift: 3 }, /only the times of a rectified flow/, discrete],
    [
      "an interval upside down",
      { guidanceInterval: [3, 1] },
      /^guidanceInterval must be two numbers .*, got \[3, 1\]\.$/,
      flow,
    ],
    ["too much rescaling", { rescale: 2 }, /^rescale must be a number from 0 .*, got 2\.$/, flow],
    [
      "layers of a DiT",
      { skipLayers: { layers: [1] } },
      /does not apply to tiny: it is a dit/,
      flow,
    ],
  ])("refuses %s", (_, request, message, pipeline) => {
    expect(() => pipeline.settings({ class: "cat", ...request })).toThrow(UsageError);
    expect(() => pipeline.settings({ class: "cat", ...request })).toThrow(message);
  });
});
