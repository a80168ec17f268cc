import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { zeros } from "../../src/engine/arrays/ndarray.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { createPipeline, finished, openPipelineBytes } from "../../src/pipelines/index.ts";
import { openPipeline } from "../../src/pipelines/index-node.ts";
import {
  type LabelledPicture,
  modelBytes,
  pictureSet,
  trainModel,
  type TrainModelOptions,
  type TrainingEvent,
} from "../../src/training/index.ts";
import { saveModel } from "../../src/training/index-node.ts";
import { openWords } from "../../src/training/run/words-node.ts";

const folder = mkdtempSync(path.join(tmpdir(), "patchwise-train-model-"));
afterAll(() => rmSync(folder, { recursive: true }));

const backend = nodeBackend("cpu");
const network = { hidden: 32, depth: 1, patch: 4, heads: 2 };
const pictures: readonly LabelledPicture[] = Array.from({ length: 6 }, (_, i) => ({
  width: 8,
  height: 8,
  channels: 1,
  pixels: Uint8Array.from({ length: 64 }, (__, j) => (i * 40 + j) % 256),
  label: i % 2 === 0 ? "even" : "odd",
}));
const captioned = pictures.map((picture, i) => ({
  ...picture,
  label: undefined,
  caption: i % 2 === 0 ? "a cat" : ["a dog", "a moon"],
}));
const settings = { backend, network, pictures, steps: 6, batch: 2, threads: 1 } as const;

async function messageOf(options: Partial<TrainModelOptions>): Promise<string> {
  return trainModel({ ...settings, ...options }).then(() => "trained", String);
}

describe("trainModel", () => {
  it("resumes bit for bit from the checkpoint of a stopped training", async () => {
    const whole = await trainModel(settings);
    const controller = new AbortController();
    const events: TrainingEvent[] = [];
    const stopped = await trainModel({
      ...settings,
      signal: controller.signal,
      onEvent(event) {
        events.push(event);
        if (event.kind === "step" && event.step === 2) controller.abort();
      },
    });
    expect(stopped).toMatchObject({ steps: 2, finished: false });
    expect(stopped.checkpoint.step).toBe(2);
    expect(events.map(({ kind }) => kind)).toEqual(["start", "step", "step", "checkpoint"]);
    const resumed = await trainModel({ ...settings, resumeFrom: stopped.checkpoint });
    expect(resumed.finished).toBe(true);
    expect(resumed.weights).toEqual(whole.weights);
    expect(resumed.card).toEqual(whole.card);
    const again = await trainModel({ ...settings, resumeFrom: resumed.checkpoint });
    expect(again.weights).toEqual(whole.weights);
  });

  it("gives a model that draws the same from memory, from bytes and from a folder", async () => {
    const model = await trainModel({ ...settings, name: "parity" });
    expect(model.card).toMatchObject({ name: "parity", classes: ["even", "odd"] });
    await saveModel(path.join(folder, "parity"), model);
    const drawn = [];
    for (const pipeline of [
      createPipeline({ backend, ...model }),
      await openPipelineBytes(modelBytes(model), { backend }),
      await openPipeline(path.join(folder, "parity")),
    ]) {
      const [picture] = await finished(pipeline.generate({ class: "odd", steps: 3, seed: 2 }));
      await pipeline.dispose();
      drawn.push(picture!.pixels);
    }
    expect(drawn[1]).toEqual(drawn[0]);
    expect(drawn[2]).toEqual(drawn[0]);
  });

  it("reads captions with a word table, and saves its tokenizer with the model", async () => {
    const words = await openWords();
    const model = await trainModel({ ...settings, pictures: captioned, words, steps: 2 });
    expect(model.card.network.condition.kind).toBe("text");
    await saveModel(path.join(folder, "text"), model);
    expect(readdirSync(path.join(folder, "text")).sort()).toEqual([
      "model.json",
      "model.safetensors",
      "tokenizer.json",
    ]);
    const pipeline = createPipeline({ backend, ...model });
    await finished(pipeline.generate({ prompt: "a cat", steps: 2 }));
    await pipeline.dispose();
  });

  it("validates on other pictures and keeps checkpoints", async () => {
    const saved: number[] = [];
    const events: TrainingEvent[] = [];
    const { validation } = await trainModel({
      ...settings,
      validation: { pictures: pictures.slice(0, 3), steps: 3, batches: 1 },
      checkpoint: { steps: 2, save: async ({ step }) => void saved.push(step) },
      onEvent: (event) => events.push(event),
    });
    expect(saved).toEqual([2, 4, 6]);
    const measured = events.filter(({ kind }) => kind === "validation");
    expect(measured).toHaveLength(2);
    expect(measured[1]).toMatchObject({ step: 6, loss: validation, own: false });
  });

  it("trains on a data set with a gradient reduction", async () => {
    let reduced = 0;
    const data = pictureSet(pictures);
    const model = await trainModel({
      backend,
      network,
      steps: 6,
      batch: 2,
      data,
      shape: data.shape,
      reduce: async (gradients) => {
        reduced++;
        return gradients;
      },
    });
    expect(reduced).toBe(6);
    expect(model.loss).toBeLessThan(10);
  });

  it.each<[option: string, options: Partial<TrainModelOptions>, message: string]>([
    ["no pictures", { pictures: [] }, "There are no pictures to train on"],
    [
      "pictures of different sizes",
      { pictures: [pictures[0]!, { ...pictures[1]!, width: 4 }] },
      "Picture 1 is 4×8 pixels of 1 channel, but picture 0 is 8×8",
    ],
    [
      "too few bytes",
      { pictures: [{ ...pictures[0]!, pixels: new Uint8Array(3) }] },
      "Picture 0 has 3 bytes",
    ],
    [
      "a label that is not a class",
      { pictures, classes: ["even"] },
      'The label of picture 1 is "odd", which is not a class',
    ],
    [
      "an option that does not exist",
      { emaDecay: 0.9 } as object,
      'there is no option "emaDecay"; did you mean decay?',
    ],
    ["a batch of 0", { batch: 0 }, '"batch" is 0, but must be at least 1'],
    ["no length", { steps: undefined }, "steps, minutes and compute"],
    ["captions without words", { pictures: captioned }, "there is no word table to read them with"],
    [
      "weights of another network",
      { weights: { "x_embedder.proj.weight": zeros("float32", [1]) } },
      "weights has ",
    ],
  ])("refuses %s with a one-line error", async (_, options, message) => {
    expect(await messageOf(options)).toContain(message);
  });
});
