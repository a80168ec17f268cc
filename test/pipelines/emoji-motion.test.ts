/** The bundled model of clips, as it ships. */
import { afterAll, beforeAll, expect, it } from "vitest";
import { openPipeline } from "../../src/pipelines/open/open-node.ts";
import { finished, type Pipeline } from "../../src/pipelines/pipeline.ts";
import { picturesOfClip } from "../../src/pictures/clip.ts";
import type { Picture } from "../../src/pictures/picture.ts";

let pipeline: Pipeline;
beforeAll(async () => {
  pipeline = await openPipeline("emoji-motion");
});
afterAll(() => pipeline.dispose());

/** Where what is not white lies, in pixels from the upper left corner. */
function middleOf({ width, channels, pixels }: Picture): {
  readonly x: number;
  readonly y: number;
} {
  let [sum, x, y] = [0, 0, 0];
  for (let i = 0; i < pixels.length; i++) {
    const ink = Math.max(0, 200 - pixels[i]!);
    const at = Math.floor(i / channels);
    sum += ink;
    x += ink * (at % width);
    y += ink * Math.floor(at / width);
  }
  return { x: x / sum, y: y / sum };
}

async function middlesOf(prompt: string) {
  const [drawn] = await finished(pipeline.generate({ prompt, steps: 1, seed: 1, window: 16 }));
  return picturesOfClip(drawn!.clip!).map(middleOf);
}

it("lets a heart jump where a bouncing one is asked for, and slide where a sliding one is", async () => {
  const jumping = await middlesOf("a bouncing heart");
  expect(jumping.length).toBe(16);
  // It is highest in the middle of its period, and stays in its column.
  expect(jumping[0]!.y - jumping[8]!.y).toBeGreaterThan(12);
  expect(Math.abs(jumping[0]!.x - jumping[8]!.x)).toBeLessThan(3);
  const sliding = await middlesOf("滑动的爱心");
  expect(sliding[4]!.x - sliding[12]!.x).toBeGreaterThan(12);
  expect(Math.abs(sliding[4]!.y - sliding[12]!.y)).toBeLessThan(3);
});

it("draws sixteen frames at twelve a second unless told otherwise, eight at a time", () => {
  const { frames, fps, window } = pipeline.settings({ prompt: "a spinning cat" });
  expect([frames, fps, window]).toEqual([16, 12, 8]);
});

it("draws wide clips with the emoji in the middle", async () => {
  const request = { prompt: "a red heart", width: 96, height: 64, frames: 2, steps: 1, seed: 1 };
  const [drawn] = await finished(pipeline.generate(request));
  const { x, y } = middleOf(drawn!);
  expect(Math.abs(x - 47.5)).toBeLessThan(4);
  // More of a heart lies above its middle than below.
  expect(Math.abs(y - 31.5)).toBeLessThan(6);
});
