/** What the documentation of drawing shows: the bundled model makes a blue heart out of a red one. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { colourShare } from "../../src/evaluation/colour.ts";
import type { Picture } from "../../src/pictures/picture.ts";
import { finished, type Pipeline } from "../../src/pipelines/pipeline.ts";
import { openPipeline } from "../../src/pipelines/open/open-node.ts";
import type { GenerateRequest } from "../../src/pipelines/settings.ts";

const isRight = ({ width }: Picture, i: number) => Math.floor(i / 3) % width >= width / 2;

describe("a red heart", () => {
  let pipeline: Pipeline;
  let heart: Picture;
  const drawn = async (request: GenerateRequest) =>
    (await finished(pipeline.generate({ seed: 1, ...request })))[0]!;
  beforeAll(async () => {
    pipeline = await openPipeline("emoji");
    heart = await drawn({ prompt: "red heart", seed: 7 });
  });
  afterAll(() => pipeline.dispose());

  it("becomes blue when a blue one is asked for", async () => {
    expect(colourShare(heart, "red")).toBeGreaterThan(0.9);
    const blue = await drawn({ prompt: "a blue heart", image: heart });
    expect(colourShare(blue, "blue")).toBeGreaterThan(0.9);
    expect(colourShare(blue, "red")).toBeLessThan(0.05);
  });

  it("becomes blue only where a mask is white", async () => {
    const pixels = heart.pixels.map((_, i) => (isRight(heart, i) ? 255 : 0));
    const mask = { ...heart, pixels };
    const { pixels: made } = await drawn({ prompt: "a blue heart", image: heart, mask });
    expect(made.filter((_, i) => !isRight(heart, i))).toEqual(
      heart.pixels.filter((_, i) => !isRight(heart, i)),
    );
    const right = { ...heart, pixels: made.map((value, i) => (isRight(heart, i) ? value : 255)) };
    expect(colourShare(right, "blue")).toBeGreaterThan(0.8);
  });
});
