/** Trainings on clips, from the config to a model that draws clips. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { finished } from "../../src/pipelines/pipeline.ts";
import { openPipeline } from "../../src/pipelines/open/open-node.ts";
import { drawSamples } from "../../src/pipelines/training-samples.ts";
import { picturesOfClip } from "../../src/pictures/clip.ts";
import { readClip } from "../../src/pictures/clip-file-node.ts";
import { readTrainingConfig } from "../../src/training/config/config-file.ts";
import type { TrainingEvent } from "../../src/training/loop.ts";
import { train, type TrainOptions } from "../../src/training/run/train-node.ts";
import { png } from "../data/support.ts";

const scratch = mkdtempSync(path.join(tmpdir(), "patchwise-clip-training-"));
const at = (...parts: string[]) => path.join(scratch, ...parts);
afterAll(() => rmSync(scratch, { recursive: true, force: true }));
const backend = nodeBackend("cpu");

const yaml = () => `seed: 1
data: { kind: images, path: ${JSON.stringify(at("photos"))}, motions: [spin, fade] }
picture: { size: 8, frames: 3, fps: 5 }
model: { kind: video-dit, patch: 4, hidden: 12, depth: 1, heads: 1 }
training: { steps: 4, batch: 4, warmUp: 1, threads: 1 }
checkpoint: { steps: 2 }
samples: { steps: 4, each: 2 }
sampling: { steps: 2 }
validation: { data: { kind: images, path: ${JSON.stringify(at("photos"))}, motions: [spin, fade] }, steps: 4, batches: 1 }
`;

async function trained(
  out: string,
  settings: readonly string[] = [],
  options: Partial<TrainOptions> = {},
) {
  const events: TrainingEvent[] = [];
  const result = await train(readTrainingConfig("clips.yaml", yaml(), settings), {
    backend,
    out: at(out),
    draw: drawSamples(backend),
    report: (event) => events.push(event),
    ...options,
  });
  return { result, events };
}

beforeAll(async () => {
  mkdirSync(at("photos"));
  for (let i = 0; i < 3; i++) writeFileSync(at("photos", `${i}.png`), await png(60 * i));
});

describe("a video DiT trained on pictures in motion", () => {
  beforeAll(() => trained("run"));

  it("draws clips of the length and rate of the config, also while it trains", async () => {
    const { clip, fps } = await readClip(at("run", "samples", "step-00000004.webp"));
    // Two classes of two samples each.
    expect([clip.frames, clip.width, clip.height, fps]).toEqual([3, 2 * 8 + 2, 2 * 8 + 2, 5]);
    const { clip: sheet } = await readClip(at("run", "samples", "step-00000004.png"));
    expect([sheet.width, sheet.height]).toEqual([3 * 10 - 2, 4 * 10 - 2]);
    await using pipeline = await openPipeline(at("run"), {});
    const request = { class: "spinning", seed: 1 };
    expect(pipeline.settings(request)).toMatchObject({ frames: 3, fps: 5, class: "spinning" });
    const [drawn] = await finished(pipeline.generate(request));
    const [first, ...others] = picturesOfClip(drawn!.clip!);
    const [led] = await finished(pipeline.generate({ ...request, image: first }));
    expect(picturesOfClip(led!.clip!)[0]!.pixels).toEqual(first!.pixels);
    expect(others.length).toBe(2);
    // Other lengths than the learned one, down to a still.
    const [long] = await finished(pipeline.generate({ ...request, frames: 5 }));
    const [still] = await finished(pipeline.generate({ ...request, frames: 1 }));
    expect([long!.clip!.frames, still!.clip!.frames]).toEqual([5, 1]);
  });

  it("resumes to the same bits", async () => {
    const stopping = new AbortController();
    await trained("again", [], {
      signal: stopping.signal,
      report: (event) => {
        if (event.kind === "checkpoint") stopping.abort();
      },
    });
    const { result } = await trained("again", [], { resume: true });
    expect(result.finished).toBe(true);
    const bytes = (run: string) => readFileSync(at(run, "model.safetensors"));
    expect(bytes("again").equals(bytes("run"))).toBe(true);
  });

  it("is adapted by a LoRA", async () => {
    const lora = `base: ${JSON.stringify(at("run"))}
data: { kind: images, path: ${JSON.stringify(at("photos"))}, motions: [spin, fade] }
lora: { rank: 1 }
training: { steps: 1, batch: 2, threads: 1 }
`;
    const config = readTrainingConfig("lora.yaml", lora, []);
    await train(config, { backend, out: at("lora") });
    await using pipeline = await openPipeline(at("run"), {
      loras: [{ file: at("lora"), weight: 1 }],
    });
    const [drawn] = await finished(pipeline.generate({ class: "fading", seed: 1 }));
    expect(drawn!.clip!.frames).toBe(3);
  });
});

it.each([
  [
    "clips for a network of stills",
    ["model.kind=dit"],
    "A DiT draws still pictures, but picture.frames is 3",
  ],
  ["motions without frames", ["picture={size: 8}"], "set picture.frames to the frames of a clip"],
  [
    "a process without noise levels of frames",
    ["diffusion={process: discrete}"],
    "has no noise levels of frames",
  ],
])("refuses %s", async (_, settings, message) => {
  await expect(trained("refused", settings)).rejects.toThrow(message);
});

it("refuses a network of clips without frames", async () => {
  const data = `{kind: images, path: ${at("photos")}}`;
  const settings = ["picture={size: 8}", `data=${data}`, `validation.data=${data}`];
  await expect(trained("refused", settings)).rejects.toThrow(
    "set picture.frames, or model.kind to dit",
  );
});
