/** The devices of the page: how long its main thread is held while it draws, and WebGPU on Chromium's software adapter. */
import { strict as assert } from "node:assert";
import type { Page } from "playwright-core";
import { finished } from "../../src/pipelines/index.ts";
import { openPipeline } from "../../src/pipelines/index-node.ts";
import { drawIn, openStudio, pixelsOf } from "../../test/support/studio.ts";

/** Milliseconds of processor time that one task of the page may take while it draws. */
const LONGEST_TASK = 100;

/** Draws once more; returns the most processor time in ms of a task of the page's main thread, whatever else the machine does. */
export async function longestTaskWhileDrawing(page: Page): Promise<number> {
  const browser = page.context().browser()!;
  await browser.startTracing(page, { categories: ["toplevel", "__metadata"] });
  await drawIn(page);
  const { traceEvents } = JSON.parse((await browser.stopTracing()).toString()) as {
    readonly traceEvents: readonly {
      readonly name: string;
      readonly pid: number;
      readonly tid: number;
      /** Processor time in microseconds. */
      readonly tdur?: number;
      readonly args: { readonly name?: string };
    }[];
  };
  const main = traceEvents.filter(
    ({ name, args }) => name === "thread_name" && args.name === "CrRendererMain",
  );
  const tasks = traceEvents.filter(
    ({ tdur, pid, tid }) =>
      tdur !== undefined && main.some((each) => each.pid === pid && each.tid === tid),
  );
  assert.ok(tasks.length > 0, "the trace holds no tasks of the page");
  const longest = Math.max(...tasks.map(({ tdur }) => tdur! / 1000));
  assert.ok(longest < LONGEST_TASK, `a task of ${longest} ms while drawing`);
  return longest;
}

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
