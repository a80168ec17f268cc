import { mkdtempSync, readFileSync } from "node:fs";
import { mkdir, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { countParameters } from "patchwise/engine";
import { nodeBackend } from "patchwise/engine/node";
import { type NetworkFamily, registerFamily } from "patchwise/models";
import { finished, networkGraph } from "patchwise/pipelines";
import { exportGraph, openModel, openPipeline, writePicture } from "patchwise/pipelines/node";
import { readTrainingConfig, train, type TrainingEvent } from "patchwise/training/node";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import * as z from "zod";

/** The config of an MLP-Mixer (Tolstikhin et al., 2021) that denoises: all that the family needs beside its trace. */
const schema = z.strictObject({
  size: z.tuple([z.int(), z.int()]).readonly(),
  channels: z.int(),
  learnedVariance: z.literal(false),
  condition: z.strictObject({ kind: z.literal("none") }),
  patch: z.int(),
  hidden: z.int(),
  depth: z.int(),
});
type MixerConfig = z.output<typeof schema>;
type Trace = NetworkFamily<MixerConfig>["trace"];
type Params = Parameters<Trace>[0];
type Tensor = ReturnType<Trace>;

const dense = (p: Params, x: Tensor, width: number): Tensor => {
  const init = { kind: "normal", std: 0.05 } as const;
  return x.linear(p.param("weight", [width, x.size(-1)], init), p.param("bias", [width], init));
};
const mlp = (p: Params, x: Tensor): Tensor =>
  dense(p.at("fc2"), dense(p.at("fc1"), x, 2 * x.size(-1)).gelu(), x.size(-1));

/** Patches [B, N, C] are mixed along N and along C in turn. */
const mixer: Trace = (p, { x, t }, { size, channels, patch, hidden, depth }) => {
  const [h, w] = [size[0] / patch, size[1] / patch];
  const tokens = x.rearrange("b c (h p) (w q) -> b (h w) (p q c)", { p: patch, q: patch });
  const time = dense(p.at("time"), t.div(1000).reshape([t.dim(0), 1, 1]), hidden);
  let y = dense(p.at("embed"), tokens, hidden).add(time);
  for (let i = 0; i < depth; i++) {
    const block = p.at(`layers.${i}`);
    const mixed = mlp(block.at("tokens"), y.layerNorm().transpose([0, 2, 1])).transpose([0, 2, 1]);
    y = y.add(mixed);
    y = y.add(mlp(block.at("channels"), y.layerNorm()));
  }
  const values = dense(p.at("head"), y.layerNorm(), patch ** 2 * channels);
  const names = { h, w, p: patch, q: patch };
  return values.rearrange("b (h w) (p q c) -> b c (h p) (w q)", names);
};

registerFamily<MixerConfig>({
  kind: "mixer",
  title: "MLP-Mixer",
  schema,
  presets: {},
  trace: mixer,
  sizes: ({ patch }) => ({ unit: patch, fixed: true }),
  patches: ({ patch }, [height, width]) => (height / patch) * (width / patch),
  training: {
    defaults: () => ({ learnedVariance: false, patch: 4, hidden: 24, depth: 2 }),
    textWidth: ({ hidden }) => hidden,
    loraTargets: ["layers.**"],
  },
});

const backend = nodeBackend("cpu");
const root = mkdtempSync(path.join(tmpdir(), "patchwise-toy-"));
const at = (...parts: string[]) => path.join(root, ...parts);
const photos = JSON.stringify(at("photos"));

const config = (steps: number) => `
data: { kind: images, path: ${photos} }
picture: { size: 8 }
model: { kind: mixer, depth: 1, hidden: 16 }
training: { steps: ${steps}, batch: 4, threads: 1 }
sampling: { steps: 2 }
log: { steps: 1 }
`;

async function trained(name: string, text: string, { stopAt = Infinity, resume = false } = {}) {
  const stopping = new AbortController();
  const report = (event: TrainingEvent) => {
    if (event.kind === "step" && event.step === stopAt) stopping.abort();
  };
  const options = { backend, out: at(name), report, resume, signal: stopping.signal };
  return train(readTrainingConfig("mixer.yaml", text), options);
}

async function drawn(folder: string): Promise<number> {
  const pipeline = await openPipeline(at(folder));
  try {
    const [picture] = await finished(pipeline.generate({ seed: 1 }));
    return picture!.pixels.length;
  } finally {
    await pipeline.dispose();
  }
}

describe("a family registered from outside the package", () => {
  beforeAll(async () => {
    await mkdir(at("photos"), { recursive: true });
    for (let i = 0; i < 4; i++) {
      const pixels = new Uint8Array(8 * 8 * 3).fill(60 * i);
      await writePicture(at("photos", `${i}.png`), { width: 8, height: 8, channels: 3, pixels });
    }
    await trained("mixer", config(4));
  });
  afterAll(() => rm(root, { recursive: true, force: true }));

  it("is trained from a config, opened from its folder and drawn with", async () => {
    expect(await drawn("mixer")).toBe(8 * 8 * 3);
  });

  it("resumes a stopped training, to the same weights as without the stop", async () => {
    expect((await trained("stopped", config(4), { stopAt: 2 })).finished).toBe(false);
    expect((await trained("stopped", config(4), { resume: true })).steps).toBe(4);
    const [whole, resumed] = ["mixer", "stopped"].map((name) =>
      readFileSync(at(name, "model.safetensors")),
    );
    expect(resumed!.equals(whole!)).toBe(true);
    const deeper = config(4).replace("depth: 1", "depth: 2");
    await expect(trained("stopped", deeper, { resume: true })).rejects.toThrow("model.depth");
  });

  it("has config errors that name the line and the nearest key", () => {
    expect(() => readTrainingConfig("a.yaml", config(4).replace("depth", "dept"))).toThrow(
      'a.yaml, line 4: there is no key "dept" in "model"; did you mean depth?',
    );
    expect(() =>
      readTrainingConfig("a.yaml", config(4).replace("kind: mixer", "kind: mixr")),
    ).toThrow(/"model.kind" is "mixr".*mixer/);
  });

  it("can be counted and exported", async () => {
    const model = await openModel(at("mixer"));
    try {
      const graph = networkGraph(model.network);
      // Embedding, time and head, and two layers each for 4 tokens and 16 channels.
      const [embedding, time, head] = [48 * 16 + 16, 2 * 16, 16 * 48 + 48];
      const layers = 4 * 8 + 8 + 8 * 4 + 4 + 16 * 32 + 32 + 32 * 16 + 16;
      expect(countParameters(graph)).toBe(embedding + time + head + layers);
      const { files } = await exportGraph(graph, model.weights, at("mixer.onnx"));
      expect((await stat(files[0]!)).size).toBeGreaterThan(4 * countParameters(graph));
    } finally {
      await model.close();
    }
  });

  it("can be tuned with a LoRA on the layers that the family names", async () => {
    const { finished: whole } = await trained(
      "lora",
      `base: ${JSON.stringify(at("mixer"))}\nlora: { rank: 2 }\ndata: { kind: images, path: ${photos} }\ntraining: { steps: 2, batch: 4, threads: 1 }\nlog: { steps: 1 }\n`,
    );
    expect(whole).toBe(true);
    const loras = [{ file: at("lora") }];
    const pipeline = await openPipeline(at("mixer"), { loras });
    expect((await finished(pipeline.generate({ seed: 1 }))).length).toBe(1);
    await pipeline.dispose();
  });

  it("is refused if another family has the same kind", () => {
    const other = { kind: "mixer", title: "Other", schema, presets: {}, trace: mixer } as const;
    const sizes = { sizes: () => ({ unit: 1, fixed: true }), patches: () => 0 };
    expect(() => registerFamily<MixerConfig>({ ...other, ...sizes })).toThrow(
      'There is already a model family "mixer"; choose another kind.',
    );
  });
});
