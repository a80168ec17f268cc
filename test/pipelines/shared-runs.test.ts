import { afterAll, describe, expect, it } from "vitest";
import { createPipeline } from "../../src/pipelines/open/trained-model.ts";
import { type DrawnPicture, finished } from "../../src/pipelines/pipeline.ts";
import type { GenerateRequest } from "../../src/pipelines/settings.ts";
import { randomWeights, tinyCard, tinyNetwork } from "../support/tiny-model.ts";
import { watchedBackend } from "../support/watched-backend.ts";

const { backend, asked } = watchedBackend();
const pipeline = createPipeline({
  backend,
  card: tinyCard(tinyNetwork),
  weights: randomWeights(tinyNetwork),
});
afterAll(() => pipeline.dispose());

const draw = (request: GenerateRequest) => finished(pipeline.generate(request));
const rowsAsked = () => asked.map(({ x }) => x!.shape[0]!);

/** Different steps, samplers, guidance, counts, sizes and starting images. */
const image = { width: 8, height: 8, channels: 3 as const, pixels: new Uint8Array(192).fill(90) };
const requests: GenerateRequest[] = [
  { class: "dog", steps: 6, seed: 1 },
  { class: "bird", steps: 4, seed: 2, guidance: 3 },
  { class: 0, steps: 5, seed: 3, sampler: "heun", count: 2 },
  { class: 1, steps: 7, seed: 4, sampler: "dpmpp-2m-sde", guidance: 2 },
  { class: 2, steps: 5, seed: 5, image, strength: 0.5 },
  { class: 2, steps: 3, seed: 6, width: 12, height: 4 },
];

describe("generations at the same time", () => {
  it("share runs, and draw what they draw alone", async () => {
    const alone: (readonly DrawnPicture[])[] = [];
    for (const request of requests) alone.push(await draw(request));
    const runsAlone = rowsAsked().length;
    asked.length = 0;
    const together = await Promise.all(requests.map(draw));
    for (const [i, pictures] of together.entries()) {
      for (const [k, { pixels }] of pictures.entries()) {
        const difference = pixels.map((value, at) => Math.abs(value - alone[i]![k]!.pixels[at]!));
        // Matrix products of other sizes may be added up in another order.
        expect(Math.max(...difference)).toBeLessThanOrEqual(1);
      }
    }
    expect(rowsAsked().length).toBeLessThan(runsAlone / 2);
    expect(Math.max(...rowsAsked())).toBeGreaterThan(4);
  });

  it("do not wait for one that nobody asks for the next step, or that was given up", async () => {
    const paused = pipeline.generate({ class: 0, steps: 9 });
    await paused.next();
    const [picture] = await draw({ class: 1, steps: 3 });
    expect(picture).toBeDefined();
    await paused.return([]);
    asked.length = 0;
    await Promise.all([draw({ class: 1, steps: 3 }), draw({ class: 2, steps: 3 })]);
    // Two of each, with and without the class.
    expect(rowsAsked()).toEqual([4, 4, 4]);
  });

  it("fail alone", async () => {
    const controller = new AbortController();
    const failing = draw({ class: 0, steps: 8, signal: controller.signal });
    const going = draw({ class: 1, steps: 8 });
    setImmediate(() => controller.abort(new Error("given up")));
    await expect(failing).rejects.toThrow("given up");
    expect(await going).toHaveLength(1);
  });
});
