/**
 * Goes through the whole studio of dist/ in a browser: npm run test:studio -- [--pictures DIR]
 *
 * Goes through Draw with keys alone, a mouse and a finger, and by links; draws, looks inside, compares, trains in the page, pauses, reloads, goes on, opens the model in Node, looks for problems of
 * accessibility in every view in both looks and languages, and states the longest task of the page while it draws; then trains and
 * draws on a server, and draws with WebGPU. With --pictures it also writes a picture of every view, at 1440 and 390 pixels.
 */
import { strict as assert } from "node:assert";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { unzipSync } from "fflate";
import type { Page } from "playwright-core";
import sharp from "sharp";
import { nodeBackend } from "../src/engine/runtime/ort-node.ts";
import { finished, openPipelineBytes } from "../src/pipelines/index.ts";
import { byHand } from "./studio/by-hand.ts";
import { longestTaskWhileDrawing } from "./studio/longest-task.ts";
import { throughServer } from "./studio/server.ts";
import { drawWithWebGpu } from "./studio/webgpu.ts";
import { drawIn, openStudio, seriousIssues } from "../test/support/studio.ts";

const { values } = parseArgs({ options: { pictures: { type: "string" } } });
const views = ["draw", "inside", "compare", "train"] as const;
/** A busy machine takes minutes where an idle one takes seconds. */
const PATIENCE = 600_000;

const studio = await openStudio();
const page = await studio.open("draw?prompt=ghost+with+a+crown&seed=7&steps=12&guidance=2");
page.setDefaultTimeout(PATIENCE);

await byHand(studio, PATIENCE);
await drawAndWatch(page);
await lookInside(page);
await compare(page);
await cancelComparison(page);
await train(page);
await page.locator("#tab-draw").click();
await drawIn(page);
for (const look of ["light", "dark"] as const) {
  for (const language of ["en", "zh"] as const) {
    await choose(page, look, language);
    for (const view of views) {
      await page.locator(`#tab-${view}`).click();
      if (view === "inside") await page.locator(".attention-picture").waitFor();
      const issues = await seriousIssues(page);
      assert.deepEqual(issues, [], `${view}, ${look}, ${language}`);
    }
    console.log(`accessibility, ${look}, ${language}: no serious issue in ${views.length} views`);
  }
}
if (values.pictures !== undefined) await takePictures(page, values.pictures);
assert.deepEqual(studio.complaints, []);
await studio.close();
await throughServer(PATIENCE);
await drawWithWebGpu(PATIENCE);
console.log("The studio works.");

async function choose(on: Page, look: "light" | "dark", language: "en" | "zh"): Promise<void> {
  await on.locator(".top-tools select").nth(1).selectOption(language);
  for (let i = 0; i < 3; i++) {
    if ((await on.locator("html").getAttribute("data-look")) === look) return;
    await on.locator(".pill.round").click();
  }
}

async function drawAndWatch(on: Page): Promise<void> {
  await drawIn(on);
  const longest = await longestTaskWhileDrawing(on);
  const cost = await on.locator(".progress-line").textContent();
  console.log(`draw: ${cost}; the longest task took ${longest.toFixed(1)} ms of processor time`);
}

async function lookInside(on: Page): Promise<void> {
  await on.locator("#tab-inside").click();
  const sum = Number(await on.locator(".row-sum").getAttribute("value"));
  assert.ok(Math.abs(sum - 1) < 1e-4, `a row of attention sums to ${sum}`);
  // All steps are looked into, one after another.
  await on.locator(".frames .pending").first().waitFor({ state: "detached" });
  console.log(`inside: a row sums to ${sum}`);
}

async function compare(on: Page): Promise<void> {
  await on.locator("#tab-compare").click();
  const axisValues = on.getByRole("textbox", { name: "Values" });
  await axisValues.nth(0).fill("1, 2, 8");
  await axisValues.nth(1).fill("red apple; purple cat");
  await on.getByRole("button", { name: "Draw 6 pictures" }).click();
  await on.getByRole("button", { name: "Download the grid" }).waitFor();
  assert.equal(await on.locator(".xy canvas").count(), 6);
  await on.locator("#tab-draw").click();
  await on.locator("#tab-compare").click();
  assert.equal(await on.locator(".xy canvas").count(), 6, "pictures after another view");
  console.log("compare: 6 pictures, also after another view");
}

/** A grid that is being drawn goes on while another view is open, and can still be cancelled. */
async function cancelComparison(on: Page): Promise<void> {
  await on.locator("#tab-compare").click();
  const axisValues = on.getByRole("textbox", { name: "Values" });
  await axisValues.nth(0).fill(Array.from({ length: 32 }, (_, i) => 40 + i).join(", "));
  await axisValues.nth(1).fill("red apple; purple cat");
  await on.getByRole("button", { name: "Draw 64 pictures" }).click();
  await on.locator(".xy canvas").first().waitFor();
  await on.locator("#tab-draw").click();
  await on.locator("#tab-compare").click();
  await on.getByRole("button", { name: "Cancel" }).click();
  await on.getByRole("button", { name: "Download the grid" }).waitFor();
  const drawn = await on.locator(".xy canvas").count();
  assert.ok(drawn > 0 && drawn < 64, `${drawn} of 64 pictures after cancelling`);
  console.log(`compare: cancelled after ${drawn} of 64 pictures`);
}

async function train(on: Page): Promise<void> {
  await on.locator("#tab-train").click();
  await on.getByRole("button", { name: "coloured shapes" }).click();
  await on.getByRole("slider", { name: "Size" }).fill("0");
  await on.getByRole("slider", { name: "Steps" }).fill("50");
  await on.getByRole("slider", { name: "Pictures a step" }).fill("8");
  await on.getByRole("button", { name: "Start training" }).click();
  const stepOf = async () =>
    Number((await on.locator(".facts dd").first().textContent())!.split(" ")[0]);
  const lossOf = async () => Number(await on.locator("#loss").textContent());
  await on.locator(".badge.running").waitFor();
  while ((await stepOf()) < 3) await on.waitForTimeout(200);
  const first = await lossOf();
  while ((await stepOf()) < 20) await on.waitForTimeout(200);
  await on.getByRole("button", { name: "Pause" }).click();
  await on.locator(".badge.paused").waitFor();
  const paused = await stepOf();
  await on.reload();
  await on.locator(".badge.paused").waitFor();
  assert.equal(await stepOf(), paused, "the step after a reload");
  await on.getByRole("button", { name: "Resume" }).click();
  await on.locator(".badge.done").waitFor();
  const last = await lossOf();
  assert.ok(last < 0.7 * first, `the loss fell from ${first} to ${last} only`);
  const download = on.waitForEvent("download");
  await on.getByRole("button", { name: "Download the model" }).click();
  const zip = unzipSync(await readFile(await (await download).path()));
  const files = Object.fromEntries(
    Object.entries(zip).map(([name, bytes]) => [name.split("/")[1]!, bytes]),
  );
  await using pipeline = await openPipelineBytes(files, { backend: nodeBackend("cpu") });
  const [picture] = await finished(pipeline.generate({ prompt: "red circle", steps: 2 }));
  assert.equal(picture!.width, 16);
  console.log(
    `train: paused at step ${paused}, reloaded, done; the loss fell from ${first} to ${last}; Node opens the model`,
  );
}

async function takePictures(on: Page, folder: string): Promise<void> {
  await mkdir(folder, { recursive: true });
  const sizes = [
    { width: 1440, look: "light", language: "en" },
    { width: 1440, look: "dark", language: "zh" },
    { width: 390, look: "dark", language: "en" },
  ] as const;
  for (const { width, look, language } of sizes) {
    await on.setViewportSize({ width, height: width < 500 ? 844 : 960 });
    await choose(on, look, language);
    for (const view of views) {
      await on.locator(`#tab-${view}`).click();
      if (view === "inside")
        await on.locator(".frames .pending").first().waitFor({ state: "detached" });
      if (view === "compare" && language === "en") await compare(on);
      const png = await on.screenshot({ fullPage: true });
      const name = `studio-${view}-${width}-${look}.png`;
      await sharp(png).png({ palette: true, quality: 90, effort: 8 }).toFile(join(folder, name));
    }
  }
}
