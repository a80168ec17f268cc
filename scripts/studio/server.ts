/** The studio with a server: it trains there, survives a reload, draws with the trained model, and looks inside what it drew. */
import { strict as assert } from "node:assert";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Page } from "playwright-core";
import { startServer } from "../../src/server/server.ts";
import { drawIn, openStudio, seriousIssues } from "../../test/support/studio.ts";

/** @param patience in milliseconds of every step */
export async function throughServer(patience: number): Promise<void> {
  const output = await mkdtemp(join(tmpdir(), "patchwise-studio-"));
  const server = await startServer({
    models: ["emoji"],
    output,
    host: "127.0.0.1",
    port: 0,
    processes: 1,
    batch: 16,
    version: "test",
    page: true,
    log: console.log,
  });
  const studio = await openStudio({ url: server.url, close: () => server.close(0) });
  const page = await studio.open("train");
  page.setDefaultTimeout(patience);
  await trainThere(page);
  await page.locator("#tab-draw").click();
  await page.getByRole("combobox", { name: "Model" }).selectOption("mine");
  await page.getByRole("textbox", { name: "Prompt" }).fill("red circle");
  await drawIn(page);
  assert.match((await page.locator(".progress-line").textContent())!, /with Server/);
  await page.getByRole("combobox", { name: "Model" }).selectOption("emoji");
  await page.getByRole("slider", { name: "Steps" }).fill("3");
  await drawIn(page);
  await page.locator("#tab-inside").click();
  await page.getByRole("button", { name: "Draw and look inside" }).click();
  const sum = Number(await page.locator(".row-sum").getAttribute("value"));
  assert.ok(Math.abs(sum - 1) < 1e-4, `a row of attention sums to ${sum}`);
  assert.deepEqual(studio.complaints, []);
  await studio.close();
  await rm(output, { recursive: true, force: true });
  console.log("server: trained, reloaded, sampled, drawn with two models, looked inside");
}

async function trainThere(page: Page): Promise<void> {
  await page.getByRole("button", { name: "coloured shapes" }).click();
  await page.getByRole("slider", { name: "Size" }).fill("0");
  await page.getByRole("slider", { name: "Steps" }).fill("50");
  await page.getByRole("slider", { name: "Pictures a step" }).fill("8");
  await page.getByRole("button", { name: "Start training" }).click();
  await page.locator(".badge.running").waitFor();
  const stepOf = async () =>
    Number((await page.locator(".facts dd").first().textContent())!.split(" ")[0]);
  while ((await stepOf()) < 3) await page.waitForTimeout(100);
  const first = Number(await page.locator("#loss").textContent());
  await page.getByRole("button", { name: "Pause" }).click();
  await page.locator(".badge.paused").waitFor();
  const paused = await stepOf();
  await page.reload();
  await page.locator(".badge.paused").waitFor();
  assert.ok((await stepOf()) >= paused, "the step after a reload");
  await page.getByRole("button", { name: "Resume" }).click();
  await page.locator(".badge.running").waitFor();
  await page.getByRole("button", { name: "Sample now" }).click();
  await page.locator(".badge.done").waitFor();
  const last = Number(await page.locator("#loss").textContent());
  assert.ok(last < 0.7 * first, `the loss fell from ${first} to ${last} only`);
  await page.getByRole("slider", { name: "Checkpoint" }).fill("0");
  await page.getByRole("button", { name: "Play" }).click();
  await page.getByRole("button", { name: "Pause" }).click();
  assert.deepEqual(await seriousIssues(page), [], "a training of the server");
}
