import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { mkdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { drawSamples } from "../../src/pipelines/training-samples.ts";
import { readPictureFile } from "../../src/pictures/decode-node.ts";
import { writePicture } from "../../src/pictures/file-node.ts";
import { tokenValues } from "../../src/data/latents/latents.ts";
import { input } from "../../src/engine/graph/functional.ts";
import { graphOf } from "../../src/engine/graph/graph.ts";
import { ndarray, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { batch } from "../../src/engine/graph/shape.ts";
import { readCard } from "../../src/models/card.ts";
import { openCodec } from "../../src/models/coders/image-codec-node.ts";
import { decodeWithCodec, encodeWithCodec } from "../../src/models/coders/image-codec.ts";
import { createParams } from "../../src/nn/params.ts";
import { openModel, openPipeline } from "../../src/pipelines/open/open-node.ts";
import { type GenerateRequest } from "../../src/pipelines/settings.ts";
import { finished } from "../../src/pipelines/pipeline.ts";
import { readTrainingConfig } from "../../src/training/config/config-file.ts";
import { type TrainingEvent } from "../../src/training/loop.ts";
import { train, type TrainOptions } from "../../src/training/run/train-node.ts";
import { messageOf } from "../data/support.ts";

const backend = nodeBackend("cpu");
const root = mkdtempSync(path.join(tmpdir(), "patchwise-autoencoders-"));
const at = (...parts: string[]) => path.join(root, ...parts);

/** A square of one colour on white, in the middle or in a corner. */
function square(colour: readonly number[], first: number) {
  const pixels = new Uint8Array(16 * 16 * 3).fill(255);
  for (let y = first; y < first + 8; y++) {
    for (let x = first; x < first + 8; x++) pixels.set(colour, (y * 16 + x) * 3);
  }
  return { width: 16, height: 16, channels: 3, pixels } as const;
}

beforeAll(async () => {
  for (const [name, first] of [
    ["corner", 0],
    ["middle", 4],
  ] as const) {
    await mkdir(at("photos", name), { recursive: true });
    for (let i = 0; i < 6; i++) {
      const picture = square([40 * i, 200 - 30 * i, 90], first);
      await writePicture(at("photos", name, `${i}.png`), picture);
    }
  }
});
afterAll(() => rm(root, { recursive: true, force: true }));

const data = () => `data: { kind: images, path: ${JSON.stringify(at("photos"))} }
picture: { size: 16 }
log: { steps: 1 }
seed: 5`;

const coder = (kind: string, sizes: string) => `${data()}
autoencoder: { kind: ${kind}, ${sizes} }
training: { steps: 40, batch: 6, warmUp: 2, decay: { kind: none }, threads: 1, ema: 0.9, optimizer: { kind: adamw, rate: 5e-3 } }
validation: { data: { kind: images, path: ${JSON.stringify(at("photos"))} }, steps: 20, batches: 2 }
samples: { steps: 40, pictures: 4 }
`;
const vq = () => coder("vq", "hidden: 16, bottleneckBlocks: 1, latentChannels: 3, codebook: 12");
const kl = () => coder("kl", "widths: [8, 16], groups: 4, latentChannels: 2");

const tokens = (more = "") => `${data()}
latents: { autoencoder: ${JSON.stringify(at("vq"))} }
diffusion: { process: tokens }
model: { patch: 2, hidden: 16, depth: 1 }
training: { steps: 8, batch: 4, warmUp: 2, decay: { kind: none }, threads: 1 }
sampling: { steps: 3 }
samples: { steps: 8, each: 1 }
${more}`;

async function trained(
  name: string,
  text: string,
  settings: readonly string[] = [],
  more: Partial<TrainOptions> = {},
) {
  const events: TrainingEvent[] = [];
  const result = await train(readTrainingConfig("a.yaml", text, settings), {
    backend,
    out: at(name),
    resume: false,
    draw: drawSamples(backend),
    report: (event) => events.push(event),
    ...more,
  });
  return { events, result };
}

const coders = { vq, kl };
const begun: Partial<Record<keyof typeof coders, ReturnType<typeof trained>>> = {};
/** Trains the autoencoder of a kind in the folder of this name, once for all tests. */
const trainedCoder = (kind: keyof typeof coders) => (begun[kind] ??= trained(kind, coders[kind]()));

const further: typeof begun = {};
/** Trains its weights for one more step in the folder `${kind}-on`, once for all tests. */
const continued = (kind: keyof typeof coders) =>
  (further[kind] ??= trainedCoder(kind).then(() =>
    trained(`${kind}-on`, coders[kind](), [
      `training.from=${at(kind)}`,
      "training.steps=1",
      "validation.steps=1",
    ]),
  ));

const measured = (events: readonly TrainingEvent[]) =>
  events.flatMap((event) => (event.kind === "validation" ? [event] : []));

/** Encodes and decodes a picture. */
async function reconstructed(folder: string, file: string) {
  const opened = await openCodec(folder);
  const images = input("images", [batch, 3, 16, 16]);
  const params = createParams();
  const seen = encodeWithCodec(params, images, opened);
  const program = await backend.compile(
    graphOf({ seen, pixels: decodeWithCodec(params, seen, opened) }),
    { weights: opened.weights },
  );
  const picture = await readPictureFile(file, "white");
  const values = Float32Array.from({ length: 768 }, (_, i) => {
    const [channel, place] = [Math.floor(i / 256), i % 256];
    return picture.pixels[place * 3 + channel]! / 127.5 - 1;
  });
  const truth = ndarray("float32", [1, 3, 16, 16], values);
  const answer = await program.run({ images: truth });
  await program.dispose();
  await opened.file.close();
  const error = toNumbers(answer["pixels"]!).reduce((sum, x, i) => sum + (x - values[i]!) ** 2, 0);
  return { seen: answer["seen"]!, error: error / 768 };
}

describe.each([
  ["vq", vq, "vqgan"],
  ["kl", kl, "vae"],
] as const)("a small autoencoder of kind %s, trained from scratch", (kind, config, folder) => {
  let whole: Awaited<ReturnType<typeof trained>>;
  beforeAll(async () => {
    whole = await trainedCoder(kind);
  });

  it("reconstructs better with training, and reports the error", () => {
    const [before, after] = measured(whole.events).map(({ measures }) => measures) as [
      Record<string, number>,
      Record<string, number>,
    ];
    expect(after["psnr"]).toBeGreaterThan(before["psnr"]! + 1);
    expect(after["psnr"]).toBeGreaterThan(14);
    const ofCodebook = kind === "vq" ? ["codebookUse", "perplexity", "psnr"] : ["psnr"];
    expect(Object.keys(after).sort()).toEqual(ofCodebook);
    expect(after["codebookUse"] ?? 1).toBeGreaterThan(0.2);
    expect(after["codebookUse"] ?? 1).toBeLessThanOrEqual(1);
  });

  it("opens from its folder in diffusers' layout and reconstructs with the reported error", async () => {
    const { error } = await reconstructed(at(kind), at("photos/middle/3.png"));
    // Of a PSNR of 14 dB, in [−1, 1].
    expect(error).toBeLessThan(4 * 10 ** -1.4);
    const fields = JSON.parse(readFileSync(at(kind, folder, "config.json"), "utf8")) as object;
    expect(fields).toMatchObject({
      _class_name: kind === "vq" ? "PaellaVQModel" : "AutoencoderKL",
      trained: { steps: 40, images: 240 },
    });
  });

  it("writes sample grids of pictures above their reconstructions", async () => {
    const grid = await readPictureFile(at(kind, "samples/step-00000040.png"), "white");
    // At four times their size, with a line of text above each row.
    expect(grid).toMatchObject({ width: 4 * 66 - 2, height: 2 * 76 - 2 });
  });

  it("resumes bit for bit after an interruption", async () => {
    const controller = new AbortController();
    const cut = await trained(`${kind}-cut`, config(), [], {
      signal: controller.signal,
      report: (event) => {
        if (event.kind === "step" && event.step === 17) controller.abort();
      },
    });
    expect(cut.result).toMatchObject({ finished: false, steps: 17 });
    await trained(`${kind}-cut`, config(), [], { resume: true });
    const file = (name: string) =>
      readFileSync(at(name, folder, "diffusion_pytorch_model.safetensors"));
    expect(file(`${kind}-cut`).equals(file(kind))).toBe(true);
  });

  it("continues from the weights of an earlier training", async () => {
    const on = await continued(kind);
    const [before] = measured(whole.events).slice(-1);
    const [after] = measured(on.events);
    expect(after!.measures["psnr"]).toBeGreaterThan(before!.measures["psnr"]! - 3);
  });
});

it("measures reconstructions of training pictures if there is no validation set", async () => {
  const config = vq().replace(/validation: .*\n/, "");
  const { events } = await trained("own", config, ["training.steps=2"]);
  const [told] = measured(events);
  expect(told).toMatchObject({ step: 2, own: true });
  expect(told!.measures["psnr"]).toBeGreaterThan(0);
});

describe("invalid autoencoder configs", () => {
  it.each([
    [vq(), "picture.size=18", "such as 20×20"],
    [kl(), "autoencoder.widths=[8,10]", "give multiples of autoencoder.groups"],
    [vq(), "autoencoder.hidden=17", "give a multiple of 2^(levels − 1)"],
    [vq(), "autoencoder.codebook=1", '"autoencoder.codebook" is 1'],
    [vq(), "autoencoder.kind=gan", "must be one of vq, kl"],
    [vq(), "training.dropCondition=0.1", 'no key "dropCondition" in "training"'],
  ])("are refused with a one-line error: %2$s", async (text, setting, message) => {
    const failure = await messageOf(trained("refused", text, [setting]));
    expect(failure).toContain(message);
  });
});

describe("a transformer on discrete codes", () => {
  let whole: Awaited<ReturnType<typeof trained>>;
  beforeAll(async () => {
    await trainedCoder("vq");
    whole = await trained("tokens", tokens());
  });
  const drawn = async (request: GenerateRequest, folder = "tokens") => {
    const pipeline = await openPipeline(at(folder));
    try {
      return await finished(pipeline.generate(request));
    } finally {
      await pipeline.dispose();
    }
  };

  it("starts with equally likely codes, and saves a copy of its VQGAN", () => {
    const [first] = whole.events.flatMap((event) => (event.kind === "step" ? [event] : []));
    expect(first!.loss).toBeCloseTo(Math.log(12), 5);
    const card = readCard("model.json", JSON.parse(readFileSync(at("tokens/model.json"), "utf8")));
    expect(card).toMatchObject({
      network: { kind: "dit", size: [4, 4], tokens: { codebook: 12 } },
      tokens: { tokenizer: { codebook: 12, levels: 2 } },
      sampling: { sampler: "renoise", steps: 3 },
    });
  });

  it("trains on the codes of the VQGAN", async () => {
    const { seen } = await reconstructed(at("vq"), at("photos/corner/0.png"));
    const pipeline = await openModel(at("tokens"));
    expect(pipeline.process).toMatchObject({ kind: "tokens" });
    expect(pipeline.network).toMatchObject({ tokens: { codebook: 12 } });
    await pipeline.close();
    // Cached tokens survive their way through bytes.
    const stored = new Float32Array(toNumbers(seen));
    const form = {
      channels: 1,
      height: 4,
      width: 4,
      parts: "tokens",
      precision: "float32",
    } as const;
    expect(tokenValues(new Uint8Array(stored.buffer), form)).toEqual(seen);
  });

  it("draws the same picture for a seed, alone or in a batch, in at most 8 steps", async () => {
    const [one] = await drawn({ class: "corner", seed: 4, steps: 8 });
    const [, two] = await drawn({ class: "corner", seed: 3, count: 2, steps: 8 });
    expect(one!.pixels).toEqual(two!.pixels);
    const [other] = await drawn({ class: "corner", seed: 4, steps: 2 });
    expect(other!.pixels).not.toEqual(one!.pixels);
  });

  it("inpaints without changing pixels outside the mask", async () => {
    const image = square([200, 20, 20], 4);
    const pixels = Uint8Array.from({ length: 256 }, (_, i) => (i % 16 >= 8 ? 255 : 0));
    const mask = { width: 16, height: 16, channels: 1, pixels } as const;
    const [picture] = await drawn({ class: "corner", image, mask, seed: 2, steps: 4 });
    const changed = { inside: 0, outside: 0 };
    for (let i = 0; i < 768; i++) {
      const place = pixels[Math.floor(i / 3)] === 255 ? "inside" : "outside";
      if (picture!.pixels[i] !== image.pixels[i]) changed[place]++;
    }
    expect(changed.outside).toBe(0);
    expect(changed.inside).toBeGreaterThan(0);
  });

  it("changes an image more with a higher strength", async () => {
    const image = square([200, 20, 20], 4);
    const far = async (strength: number, steps: number) => {
      const [picture] = await drawn({
        class: "middle",
        image,
        strength,
        steps,
        seed: 1,
      });
      return picture!.pixels;
    };
    expect(await far(1, 6)).not.toEqual(await far(0.2, 6));
  });

  it.each<[GenerateRequest, string]>([
    [{ sampler: "euler" }, 'no sampler "euler" for tokens; give renoise'],
    [
      { temperature: [-1, 0] },
      "temperature must be two numbers of at least 0, for the first and the last step, got [-1, 0]",
    ],
    [{ rescale: 0.5 }, "rescale does not apply to tokens"],
    [{ shift: 2 }, "shift"],
    [
      { width: 16, height: 18 },
      "cannot draw 16×18 pixels: width and height must be multiples of 8",
    ],
    [{ prompt: "a cat" }, "class"],
  ])("refuses %o with a one-line error", async (request, message) => {
    expect(await messageOf(drawn({ class: "corner", ...request }))).toContain(message);
  });

  it("is refused with a VQGAN of another codebook size", async () => {
    const card = JSON.parse(readFileSync(at("tokens/model.json"), "utf8")) as {
      tokens: { tokenizer: { codebook: number } };
    };
    card.tokens.tokenizer.codebook = 16;
    await mkdir(at("other"));
    writeFileSync(at("other/model.json"), JSON.stringify(card));
    expect(await messageOf(openModel(at("other")))).toContain(
      "the network draws tokens of a codebook of 12, but the tokenizer decodes tokens of a codebook of 16",
    );
  });

  it.each([
    ["diffusion.process=flow", "is a VQGAN, but diffusion.process is flow"],
    ["latents=null", "latents"],
    ["sampling.sampler=heun", "which cannot sample a process of tokens"],
    ["model.learnedVariance=true", "codes have no variance"],
    ["diffusion.keptWeight=0", "more than 0"],
    ["latents.scale=2", "whose codes have no scale or shift"],
  ])("cannot be trained with %s", async (setting, message) => {
    expect(await messageOf(trained("refused", tokens(), [setting]))).toContain(message);
  });

  it("trains a LoRA, which uses the VQGAN of the base", async () => {
    const config = `${data().replace(/picture: .*\n/, "")}
base: ${JSON.stringify(at("tokens"))}
lora: { rank: 2 }
training: { steps: 3, batch: 4, threads: 1 }`;
    const { result } = await trained("tokens-lora", config);
    expect(result.finished).toBe(true);
    const loras = [{ file: at("tokens-lora"), weight: 0 }];
    const pipeline = await openPipeline(at("tokens"), { loras });
    const [same] = await finished(pipeline.generate({ class: "corner", seed: 4 }));
    await pipeline.dispose();
    const [own] = await drawn({ class: "corner", seed: 4 });
    expect(same!.pixels).toEqual(own!.pixels);
  });

  it("does not resume with another VQGAN", async () => {
    // The one of the same config that was trained a step further.
    await continued("vq");
    const failure = trained(
      "tokens",
      tokens(),
      [`latents.autoencoder=${at("vq-on")}`, "training.steps=9"],
      {
        resume: true,
      },
    );
    expect(await messageOf(failure)).toMatch(/another (autoencoder|config)/);
  });
});

describe("other networks on codes", () => {
  it.each([
    [
      "paella",
      "{ kind: paella, shareWidth: 8, conditionWidth: 16, textWidth: 16, levels: [{ width: 8, heads: 1, blocks: 1, parts: CT }, { width: 16, heads: 2, blocks: 1, parts: CTA }] }",
    ],
    [
      "paella without a condition",
      "{ kind: paella, condition: none, levels: [{ width: 16, heads: 2, blocks: 1, parts: CTAF }] }",
    ],
    ["u-vit", "{ kind: u-vit, patch: 2, hidden: 16, depth: 2 }"],
    ["mmdit", "{ kind: mmdit, patch: 1, hidden: 16, depth: 1 }"],
    [
      "ddpm-unet",
      "{ kind: ddpm-unet, width: 32, blocks: 1, multipliers: [1, 1], attention: [], heads: { channels: 32 } }",
    ],
  ])("train and draw: %s", async (name, model) => {
    const { result } = await trained(name, tokens(), [
      `model=${model}`,
      "training.steps=3",
      "samples.steps=3",
    ]);
    expect(result.finished).toBe(true);
    expect(result.loss).toBeLessThan(3 * Math.log(12));
    const pipeline = await openPipeline(at(name));
    const [picture] = await finished(
      pipeline.generate(name.endsWith("without a condition") ? {} : { class: "corner", seed: 1 }),
    );
    await pipeline.dispose();
    expect(picture).toMatchObject({ width: 16, height: 16, channels: 3 });
  });

  it("a Paella is refused without codes, or if its levels do not divide them", async () => {
    const without = `${data()}\nmodel: { kind: paella }\ntraining: { steps: 1 }`;
    expect(await messageOf(trained("refused", without))).toContain("Paella needs codes");
    const levels =
      "[{ width: 8, heads: 1, blocks: 1, parts: C }, { width: 8, heads: 1, blocks: 1, parts: C }, { width: 8, heads: 1, blocks: 1, parts: C }, { width: 8, heads: 1, blocks: 1, parts: C }]";
    const deep = trained("refused", tokens(), [`model={ kind: paella, levels: ${levels} }`]);
    expect(await messageOf(deep)).toContain("4×4 codes cannot be divided by 8");
  });
});

describe("latents of an autoencoder trained by this library", () => {
  it("have about unit variance in training", async () => {
    await trainedCoder("kl");
    const config = `${data()}
latents: { autoencoder: ${JSON.stringify(at("kl"))} }
model: { patch: 2, hidden: 16, depth: 1 }
training: { steps: 2, batch: 4, threads: 1 }
sampling: { steps: 2 }`;
    await trained("on-kl", config);
    const { seen } = await reconstructed(at("kl"), at("photos/corner/2.png"));
    const values = toNumbers(seen);
    const square2 = values.reduce((sum, x) => sum + x * x, 0) / values.length;
    expect(square2).toBeGreaterThan(0.2);
    expect(square2).toBeLessThan(5);
    const pipeline = await openPipeline(at("on-kl"));
    const [picture] = await finished(pipeline.generate({ class: "corner" }));
    await pipeline.dispose();
    expect(picture).toMatchObject({ width: 16, height: 16 });
  });
});
