/** The studio with WebGPU, on the software adapter of Chromium, which has no 16-bit floats. */
import { strict as assert } from "node:assert";
import { finished } from "../../src/pipelines/index.ts";
import { openPipeline } from "../../src/pipelines/index-node.ts";
import { drawIn, openStudio, pixelsOf } from "../../test/support/studio.ts";

/** Draws with WebGPU what Node draws: 2 of 255 apart at most. @param patience in milliseconds of every step */
export async function drawWithWebGpu(patience: number): Promise<void> {
  const request = { prompt: "red apple", seed: 3, steps: 2 };
  const studio = await openStudio(undefined, ["--use-webgpu-adapter=swiftshader"]);
  const page = await studio.open("draw?prompt=red+apple&seed=3&steps=2");
  page.setDefaultTimeout(patience);
  await page.getByRole("combobox", { name: "Device" }).selectOption("webgpu");
  await drawIn(page);
  assert.match((await page.locator(".progress-line").textContent())!, /with WebGPU/);
  const drawn = await pixelsOf(page, ".pictures canvas");
  await using pipeline = await openPipeline("emoji");
  const [expected] = await finished(pipeline.generate(request));
  const apart = Math.max(...drawn.map((value, i) => Math.abs(value - expected!.pixels[i]!)));
  assert.ok(apart <= 2, `WebGPU is ${apart} of 255 apart from Node`);
  assert.deepEqual(studio.complaints, []);
  await studio.close();
  console.log(`webgpu, software adapter: ${apart} of 255 apart from Node`);
}
