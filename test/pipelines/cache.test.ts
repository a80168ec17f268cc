import { afterAll, describe, expect, it } from "vitest";
import type { CacheCount } from "../../src/diffusion/step-cache.ts";
import { psnr } from "../../src/evaluation/psnr.ts";
import { openPipeline } from "../../src/pipelines/open/open-node.ts";
import { finished } from "../../src/pipelines/pipeline.ts";
import type { GenerateRequest } from "../../src/pipelines/settings.ts";

const pipeline = await openPipeline("emoji");
afterAll(() => pipeline.dispose());

async function draw(request: GenerateRequest) {
  let cached: CacheCount | undefined;
  const pictures = await finished(
    pipeline.generate({
      prompt: "cat with a hat",
      seed: 7,
      ...request,
      onProgress: (progress) => {
        cached = progress.cached;
      },
    }),
  );
  return { pictures, cached };
}

describe("the setting cache", () => {
  it("draws nearly the same picture in fewer runs of the network, and the same bits if off", async () => {
    const plain = await draw({});
    const off = await draw({ cache: "off" });
    expect(off.pictures).toEqual(plain.pictures);
    expect(off.cached).toBeUndefined();
    const careful = await draw({ cache: "careful" });
    expect(careful.cached!.asked).toBe(20);
    expect(careful.cached!.reused).toBeGreaterThanOrEqual(5);
    expect(psnr(careful.pictures[0]!, plain.pictures[0]!)).toBeGreaterThan(40);
  });

  it("works with guidance, and draws each picture of a batch as it is drawn alone", async () => {
    const request = { cache: "fast", guidance: 2, steps: 10 } as const;
    const both = await draw({ ...request, count: 2 });
    // Two pictures, each with and without its condition.
    expect(both.cached!.asked).toBe(40);
    expect(both.cached!.reused).toBeGreaterThan(0);
    const second = await draw({ ...request, seed: 8 });
    expect(psnr(both.pictures[1]!, second.pictures[0]!)).toBeGreaterThan(60);
  });

  it("is refused by name where it is misspelt", () => {
    expect(() => pipeline.settings({ prompt: "dog", cache: "slow" as "fast" })).toThrow(
      'cache must be one of off, careful, fast, got "slow"',
    );
  });
});
