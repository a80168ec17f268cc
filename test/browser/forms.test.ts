import { mkdirSync, mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, expect, it, vi } from "vitest";
import { type BrowserPage, openPage } from "../support/browser.ts";
import { openPipeline } from "../../src/pipelines/open/open-node.ts";
import { finished } from "../../src/pipelines/pipeline.ts";
import { smallModels, withVocabulary, writeSmallFolder } from "../support/flux-folders.ts";
import { drawnInPage, wholeForms } from "../support/page-forms.ts";
import type * as pageModule from "./pipeline-page.ts";

vi.setConfig({ testTimeout: 120_000 });

const scratch = mkdtempSync(path.join(tmpdir(), "patchwise-page-forms-"));
let page: BrowserPage<typeof pageModule>;

beforeAll(async () => {
  const entry = path.join(import.meta.dirname, "pipeline-page.ts");
  page = await openPage(entry, {}, { "/forms/": scratch });
});
afterAll(async () => {
  await page?.close();
  rmSync(scratch, { recursive: true });
});

// `node scripts/run.mjs scripts/compare-forms.ts --page` does so for all models and forms; klein is in pipeline.test.ts, too.
it.each([
  ["schnell", ["diffusers", "ComfyUI", "Q8_0"]],
  ["klein", ["diffusers", "fp8 e5m2"]],
  ["zImage", ["diffusers", "ComfyUI in GGUF", "checkpoint", "int8"]],
  ["miniT2I", ["diffusers", "single file", "fp8 e4m3, scale_weight", "Q8_0"]],
] as const)("a %s draws in a page what Node draws, in each form", async (name, forms) => {
  const served = path.join(scratch, name);
  mkdirSync(served);
  const drawn: string[] = [];
  const whole = new Map<string, readonly number[]>();
  for await (const { form, apart, pixels } of drawnInPage(
    page,
    { url: `/forms/${name}/`, served },
    smallModels[name],
    forms,
  )) {
    // WebAssembly adds in another order, so that a value near a half may be rounded either way.
    expect([form, apart]).toEqual([form, expect.toSatisfy((most: number) => most <= 1)]);
    expect(new Set(pixels).size).toBeGreaterThan(20);
    drawn.push(form);
    if (wholeForms.includes(form)) {
      whole.set(form, pixels);
    }
  }
  expect(drawn).toEqual(forms);
  // The same numbers give the same pixels in each form, in a page too.
  for (const pixels of whole.values()) expect(pixels).toEqual(whole.get("diffusers"));
});

it("a page fetches of the table of tokens only the rows of the prompt", async () => {
  const [vocabulary, width] = [20_000, 32];
  const folder = path.join(scratch, "rows");
  await writeSmallFolder(folder, withVocabulary(smallModels.miniT2I, vocabulary));
  const request = { prompt: "a red cat", seed: 3, width: 32, height: 32, steps: 1 };
  const { pixels, loaded } = await page.call("drawByRanges", "/forms/rows/", request);
  await using pipeline = await openPipeline(folder);
  const [own] = await finished(pipeline.generate(request));
  const apart = pixels.map((value, i) => Math.abs(value - own!.pixels[i]!));
  expect(Math.max(...apart)).toBeLessThanOrEqual(1);
  const file = "text_encoder/model.safetensors";
  const rest = statSync(path.join(folder, file)).size - 4 * vocabulary * width;
  expect(loaded[`/forms/rows/${file}`]! - rest).toBeLessThan(0.05 * 4 * vocabulary * width);
});
