import { describe, expect, it } from "vitest";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { randomKey } from "../../src/engine/random/random.ts";
import { keyedNoise, sharedByFrames } from "../../src/diffusion/noise.ts";
import { readCard } from "../../src/models/card.ts";
import { traceNetwork } from "../../src/models/network.ts";
import { createPipeline } from "../../src/pipelines/open/trained-model.ts";
import { finished } from "../../src/pipelines/pipeline.ts";
import { windowsOf } from "../../src/pipelines/roll-out.ts";
import { type Clip, picturesOfClip, sliceClip } from "../../src/pictures/clip.ts";
import { randomValues } from "../support/network-values.ts";

describe("windows", () => {
  it("share their first frames with the one before, and end with the clip", () => {
    expect(windowsOf(16, 0, 8, 4)).toEqual([
      { start: 0, frames: 8, known: 0 },
      { start: 4, frames: 8, known: 4 },
      { start: 8, frames: 8, known: 4 },
    ]);
    expect(windowsOf(13, 1, 9, 5)).toEqual([
      { start: 0, frames: 9, known: 1 },
      { start: 4, frames: 9, known: 5 },
    ]);
  });

  it("begin with the last frames of a longer clip that is given", () => {
    expect(windowsOf(24, 16, 8, 4)).toEqual([
      { start: 12, frames: 8, known: 4 },
      { start: 16, frames: 8, known: 4 },
    ]);
  });

  it("are one for a clip that is not longer", () => {
    expect(windowsOf(8, 3, 8, 4)).toEqual([{ start: 0, frames: 8, known: 3 }]);
  });
});

const card = readCard("model.json", {
  format: "patchwise",
  version: 1,
  name: "moving",
  network: {
    kind: "video-dit",
    size: [8, 8],
    frames: 4,
    channels: 3,
    patch: 4,
    framePatch: 1,
    hidden: 24,
    depth: 1,
    heads: 2,
    mlpRatio: 2,
    learnedVariance: false,
    condition: { kind: "none" },
    patches: { kind: "linear" },
    positions: { kind: "none" },
    rotary: { theta: 100 },
    norm: { kind: "rms", affine: false, epsilon: 1e-6 },
    feedForward: { kind: "swiglu" },
    qkNorm: null,
  },
  diffusion: {
    process: "flow",
    predicts: "x0",
    times: { kind: "logit-normal", mean: 0, std: 1 },
    shift: 1,
  },
  picture: { height: 8, width: 8, channels: 3 },
  sampling: { sampler: "euler", steps: 2, guidance: 1, frames: 6 },
  trained: { steps: 1, images: 1 },
});
const weights = randomValues(traceNetwork(card.network).params);

describe("a clip of several windows", () => {
  const pipeline = createPipeline({ card, weights, backend: nodeBackend("cpu") });
  const clipOf = async (request: object): Promise<Clip> =>
    (await finished(pipeline.generate({ seed: 3, ...request })))[0]!.clip!;

  it("goes on from the last frames of each window as --extend does, and keeps what was drawn", async () => {
    const first = await clipOf({ frames: 4 });
    const whole = await clipOf({ frames: 6 });
    expect(whole.frames).toBe(6);
    expect(whole.pixels.subarray(0, first.pixels.length)).toEqual(first.pixels);
    const second = await clipOf({
      frames: 4,
      extend: sliceClip(first, 2, 4),
      seed: 3 + 1_000_000_007,
    });
    expect(picturesOfClip(whole)[5]!.pixels).toEqual(picturesOfClip(second)[3]!.pixels);
  });

  it("is drawn at once where the window is as long", async () => {
    const rolled = await clipOf({ frames: 6 });
    const whole = await clipOf({ frames: 6, window: 6 });
    expect(whole.pixels).not.toEqual(rolled.pixels);
    expect(pipeline.settings({}).frames).toBe(6);
    expect(pipeline.settings({}).window).toBe(4);
  });

  it("counts the steps of all windows", async () => {
    const steps: string[] = [];
    for await (const { step, steps: of } of pipeline.generate({ frames: 8, seed: 1 })) {
      steps.push(`${step}/${of}`);
    }
    expect(steps).toEqual(["1/6", "2/6", "3/6", "4/6", "5/6", "6/6"]);
  });

  it("begins all frames of all windows with the same noise if it is shared", async () => {
    const change = async (request: object) => {
      const frames = picturesOfClip(await clipOf({ frames: 6, steps: 1, ...request }));
      const [first, last] = [frames[0]!.pixels, frames[5]!.pixels];
      return last.reduce((sum, value, i) => sum + Math.abs(value - first[i]!), 0);
    };
    expect(await change({ sharedNoise: 1 })).toBeLessThan(await change({}));
    expect(() => pipeline.settings({ sharedNoise: 2 })).toThrow("from 0 to 1, got 2");
  });

  it("refuses a window with nothing new", () => {
    expect(() => pipeline.settings({ frames: 8, window: 1 })).toThrow(
      "A window of 1 frame leaves moving nothing to draw",
    );
  });
});

it("noise that frames share in part is standard normal, and correlated as asked", () => {
  const [own, common] = [1, 2].map((seed) => keyedNoise([randomKey(seed)]));
  const shape = [1, 3, 2, 40, 40];
  const area = 1600;
  for (const share of [0.3, 1]) {
    const { data } = sharedByFrames(own!, common!, share)("start", shape);
    let [square, product] = [0, 0];
    for (let plane = 0; plane < 3; plane++) {
      for (let i = 0; i < area; i++) {
        const [a, b] = [0, 1].map((frame) => Number(data[(2 * plane + frame) * area + i]));
        square += (a! ** 2 + b! ** 2) / 2;
        product += a! * b!;
      }
    }
    expect(square / (3 * area)).toBeCloseTo(1, 1);
    expect(product / (3 * area)).toBeCloseTo(share, 1);
  }
  expect(sharedByFrames(own!, common!, 1)("start", [1, 3, 4, 4])).toEqual(
    own!("start", [1, 3, 4, 4]),
  );
});
