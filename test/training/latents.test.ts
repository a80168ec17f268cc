import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { drawSamples } from "../../src/pipelines/training-samples.ts";
import { castArray, type NdArray } from "../../src/engine/arrays/ndarray.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { readCard } from "../../src/models/card.ts";
import { openPipeline } from "../../src/pipelines/open/open-node.ts";
import { finished } from "../../src/pipelines/pipeline.ts";
import { createPipeline } from "../../src/pipelines/open/trained-model.ts";
import { readTrainingConfig } from "../../src/training/config/config-file.ts";
import { type TrainingEvent } from "../../src/training/loop.ts";
import { train, type TrainOptions } from "../../src/training/run/train-node.ts";
import { openSafetensorsFile, writeSafetensors } from "../../src/weights/index-node.ts";
import { messageOf } from "../data/support.ts";
import { writeVAE } from "../support/model-folders.ts";

const backend = nodeBackend("cpu");
let root: string;
const at = (...parts: string[]) => path.join(root, ...parts);
const vaeFile = "vae/diffusion_pytorch_model.safetensors";

beforeAll(async () => {
  root = await mkdtemp(path.join(tmpdir(), "patchwise-latents-"));
  await writeVAE(at("vae"));
  for (const [label, name] of ["dark", "light"].entries()) {
    await mkdir(at("photos", name), { recursive: true });
    for (let i = 0; i < 5; i++)
      await writePicture(at("photos", name, `${i}.png`), 10 * i + 120 * label);
  }
});
afterAll(() => rm(root, { recursive: true, force: true }));

async function writePicture(file: string, from: number): Promise<void> {
  const pixels = Uint8Array.from({ length: 8 * 8 * 3 }, (_, i) => (from + (i % 24) * 4) % 256);
  await sharp(pixels, { raw: { width: 8, height: 8, channels: 3 } })
    .png()
    .toFile(file);
}

const configOf = (...settings: string[]) =>
  readTrainingConfig(
    "config.yaml",
    `seed: 3
data: { kind: images, path: ${JSON.stringify(at("photos"))}, flip: true }
picture: { size: 8 }
latents: { autoencoder: ${JSON.stringify(at("vae"))}, scale: 0.5, shift: 0.1 }
model: { patch: 2, hidden: 16, depth: 1 }
training: { steps: 6, batch: 4, warmUp: 2, decay: { kind: none }, threads: 1 }
sampling: { steps: 2 }
log: { steps: 1 }
`,
    settings,
  );

interface Run {
  readonly events: readonly TrainingEvent[];
  readonly result: Awaited<ReturnType<typeof train>>;
}

async function trained(
  name: string,
  settings: readonly string[] = [],
  more: Partial<TrainOptions> = {},
): Promise<Run> {
  const events: TrainingEvent[] = [];
  const result = await train(configOf(...settings), {
    backend,
    out: at(name),
    resume: false,
    draw: drawSamples(backend),
    report: (event) => events.push(event),
    ...more,
  });
  return { events, result };
}

const kinds = (events: readonly TrainingEvent[]) => [...new Set(events.map(({ kind }) => kind))];
const latentEvents = (events: readonly TrainingEvent[]) =>
  events.filter((event) => event.kind === "latents");
const model = (name: string) => readFileSync(at(name, "model.safetensors"));

describe("training on latents", () => {
  let whole: Run;
  beforeAll(async () => {
    whole = await trained("whole", ["samples.steps=6", "samples.each=1"]);
  });

  it("encodes the latents first, then trains on their size", () => {
    expect(kinds(whole.events)).toEqual([
      "latents",
      "encoding",
      "start",
      "note",
      "step",
      "samples",
      "checkpoint",
    ]);
    expect(whole.result).toMatchObject({ steps: 6, finished: true, skipped: [] });
    expect(Number.isFinite(whole.result.loss)).toBe(true);
    const card = readCard("model.json", JSON.parse(readFileSync(at("whole/model.json"), "utf8")));
    expect(card).toMatchObject({
      network: { size: [4, 4], channels: 4, patch: 2 },
      picture: { height: 8, width: 8, channels: 3 },
      latents: { autoencoder: { latentChannels: 4, widths: [8, 16], scale: 0.5, shift: 0.1 } },
    });
    expect(readdirSync(at("whole")).sort()).toEqual([
      "checkpoints",
      "config.json",
      "data.json",
      expect.stringContaining("events.out"),
      "latents",
      "metrics.jsonl",
      "model.json",
      "model.safetensors",
      "samples",
      "vae.safetensors",
    ]);
  });

  it("draws pictures of the right size from the folder alone", async () => {
    const pipeline = await openPipeline(at("whole"));
    const [picture] = await finished(pipeline.generate({ class: "dark", seed: 1 }));
    expect(picture).toMatchObject({ width: 8, height: 8, channels: 3 });
    const [wide] = await finished(pipeline.generate({ class: "light", width: 16, height: 8 }));
    expect(wide).toMatchObject({ width: 16, height: 8 });
    await pipeline.dispose();
    const grid = await sharp(at("whole/samples/step-00000006.png")).metadata();
    // One row a class at eight times its size, each with a line of text above it, two pixels apart.
    expect(grid).toMatchObject({ width: 64, height: 2 * (64 + 10 + 2) - 2 });
  });

  it("copies the autoencoder in its stored type, under diffusers' names", async () => {
    const original = await openSafetensorsFile(at(vaeFile));
    const copy = await openSafetensorsFile(at("whole/vae.safetensors"));
    expect([...copy.entries.keys()].sort()).toEqual([...original.entries.keys()].sort());
    for (const name of original.entries.keys()) {
      expect(await copy.read(name)).toEqual(await original.read(name));
    }
    await Promise.all([original.close(), copy.close()]);
  });

  it("resumes bit for bit after an interruption", async () => {
    await trained("parted", ["training.steps=3"]);
    expect(model("parted").equals(model("whole"))).toBe(false);
    const { events } = await trained("parted", [], { resume: true });
    expect(kinds(events)).toEqual(["latents", "start", "step", "samples", "checkpoint"]);
    expect(model("parted").equals(model("whole"))).toBe(true);
  });

  it("shares a given cache, and encodes again for another picture or autoencoder", async () => {
    const cache = `latents.cache=${at("shared")}`;
    const found = async (name: string, ...more: string[]) => {
      const { events } = await trained(name, [cache, "training.steps=1", ...more]);
      return latentEvents(events).map(({ found: count, anew }) => ({ found: count, anew }));
    };
    expect(await found("one")).toEqual([{ found: 0, anew: undefined }]);
    expect(await found("two", "latents.scale=2")).toEqual([{ found: 10, anew: undefined }]);
    expect(existsSync(at("two/latents"))).toBe(false);

    await writePicture(at("photos/dark/4.png"), 77);
    expect(await found("three")).toEqual([{ found: 0, anew: "files of the data have changed" }]);

    await changedVAE(at("vae2"));
    expect(await found("four", `latents.autoencoder=${at("vae2")}`)).toEqual([
      { found: 0, anew: "they are of another autoencoder" },
    ]);
    // A picture was replaced since it began.
    const changed = { resume: true, changedData: true };
    const sentence = await messageOf(
      trained("one", [cache, "training.steps=2"], changed).then(async () => {
        writeFileSync(at(vaeFile), readFileSync(at("vae2/diffusion_pytorch_model.safetensors")));
        return trained("one", [cache, "training.steps=3"], changed);
      }),
    );
    await writeVAE(at("vae"));
    expect(sentence).toMatch(
      /^UsageError: The training in .*one started with another autoencoder than .*vae; /,
    );
  });

  it("validates on latents of other pictures, and encodes only those that it uses", async () => {
    const { events } = await trained("validated", [
      "training.steps=2",
      `validation={ data: { kind: images, path: ${JSON.stringify(at("photos"))} }, steps: 1, batches: 2 }`,
    ]);
    expect(
      latentEvents(events).map(({ pictures, folder }) => [pictures, path.relative(root, folder)]),
    ).toEqual([
      [10, "validated/latents"],
      [8, "validated/latents/validation"],
    ]);
    const losses = events.flatMap((event) => (event.kind === "validation" ? [event.loss] : []));
    expect(losses.map(Number.isFinite)).toEqual([true, true]);
  });

  it("trains on means with posterior: mean, also from a file with Stable Diffusion's own names", async () => {
    await changedVAE(at("compvis"), { half: true });
    const { result } = await trained("means", [
      "latents.posterior=mean",
      `latents.autoencoder=${at("compvis/diffusion_pytorch_model.safetensors")}`,
      "training.steps=2",
    ]);
    expect(result.finished).toBe(true);
    const copy = await openSafetensorsFile(at("means/vae.safetensors"));
    expect(copy.entries.get("decoder.conv_in.weight")?.dtype).toBe("float16");
    await copy.close();
    const pipeline = await openPipeline(at("means"));
    const [picture] = await finished(pipeline.generate({ class: 0 }));
    await pipeline.dispose();
    expect(picture).toMatchObject({ width: 8, height: 8 });
  });

  it("stops without a step if aborted while encoding, and resumes", async () => {
    const stop = new AbortController();
    stop.abort();
    const { result, events } = await trained("stopped", [], { signal: stop.signal });
    expect(kinds(events)).toEqual(["latents"]);
    expect(result).toMatchObject({ steps: 0, finished: false });
    const next = await trained("stopped", ["training.steps=1"], { resume: true });
    expect(next.result).toMatchObject({ steps: 1, finished: true });
  });

  it.each([
    [
      "a size that is not a multiple of the autoencoder's factor",
      "picture.size=9",
      /^UsageError: picture\.size is 9×9, but .*vae makes one latent of 2×2 pixels; give multiples of 2, such as 10×10\.$/,
    ],
    [
      "grey pictures for an autoencoder of colour pictures",
      "picture.channels=1",
      /^UsageError: .*vae encodes pictures of 3 channels and decodes 3, but picture\.channels is 1; /,
    ],
    [
      "a missing autoencoder",
      "latents.autoencoder=/nowhere/vae",
      /^UsageError: There is no VAE \/nowhere\/vae; give a folder in diffusers' layout, or a \.safetensors file\.$/,
    ],
    [
      "a folder without an autoencoder",
      "latents.autoencoder=PHOTOS",
      /^UsageError: .*photos has no config\.json; give the folder of an autoencoder/,
    ],
    [
      "another model's weights",
      "latents.autoencoder=MODEL",
      /^FormatError: .*model\.safetensors does not fit the model: it lacks /,
    ],
    [
      "latents too small for the patch",
      "model.patch=3",
      /^UsageError: The model \(patch\): a picture of 4×4 cannot be cut into patches of 3×3/,
    ],
  ])(
    "refuses %s with a one-line error, and leaves nothing behind",
    async (_, setting, sentence) => {
      const place = setting
        .replace("PHOTOS", at("photos"))
        .replace("MODEL", at("whole/model.safetensors"));
      expect(await messageOf(trained("refused", [place]))).toMatch(sentence);
      expect(existsSync(at("refused"))).toBe(false);
    },
  );

  it("fails to draw without its autoencoder", async () => {
    const file = JSON.parse(readFileSync(at("whole/model.json"), "utf8")) as object;
    const card = readCard("model.json", file);
    const weights = await openSafetensorsFile(at("whole/model.safetensors"));
    expect(() => createPipeline({ backend, card, weights })).toThrow(
      /draws latents, but there is no autoencoder to decode them; give the vae\.safetensors/,
    );
    await weights.close();
    const withAutoencoder = (fields: object) => () =>
      readCard("model.json", {
        ...file,
        latents: { autoencoder: { ...card.latents!.autoencoder, ...fields } },
      });
    expect(withAutoencoder({ latentChannels: 8 })).toThrow(
      /latents: the network draws 4 channels, but the autoencoder decodes 8/,
    );
    expect(withAutoencoder({ widths: [8] })).toThrow(
      /latents\.autoencoder\.encoderAttention: it describes 2 levels, but there are 1 widths/,
    );
  });
});

/** The same autoencoder with one weight changed, or in float16 under CompVis' names. */
async function changedVAE(folder: string, { half = false } = {}): Promise<void> {
  await writeVAE(folder);
  const file = path.join(folder, "diffusion_pytorch_model.safetensors");
  const weights = await openSafetensorsFile(file);
  const arrays: [string, NdArray][] = [];
  for (const name of weights.entries.keys()) {
    const array = await weights.read(name);
    if (name === "encoder.conv_in.bias") array.data[0] = 0.5;
    arrays.push(half ? [compvis(name), castArray(array, "float16")] : [name, array]);
  }
  await weights.close();
  await writeSafetensors(file, arrays);
  if (half) await writeFile(path.join(folder, "note.txt"), "beside config.json");
}

function compvis(name: string): string {
  return name
    .replace(/up_blocks\.(\d)/, (_, level) => `up_blocks.${1 - Number(level)}`)
    .replace(".resnets.", ".block.")
    .replace(".mid_block.block.0.", ".mid.block_1.")
    .replace(".mid_block.block.1.", ".mid.block_2.")
    .replace(".mid_block.attentions.0.", ".mid.attn_1.")
    .replace(".down_blocks.", ".down.")
    .replace(".up_blocks.", ".up.")
    .replace(".downsamplers.0.", ".downsample.")
    .replace(".upsamplers.0.", ".upsample.")
    .replace(".conv_shortcut.", ".nin_shortcut.")
    .replace(".conv_norm_out.", ".norm_out.")
    .replace(".group_norm.", ".norm.")
    .replace(/\.to_([qkv])\./, ".$1.")
    .replace(".to_out.0.", ".proj_out.");
}
