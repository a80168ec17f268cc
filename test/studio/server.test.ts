/** The built studio with the server that it asks for drawings. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { startServer } from "../../src/server/server.ts";
import type { Job } from "../../src/server/wire.ts";
import { drawIn, openStudio, pixelsOf, seriousIssues, type Studio } from "../support/studio.ts";

vi.setConfig({ testTimeout: 240_000, hookTimeout: 120_000 });

let output: string;
let studio: Studio;
let page: Page;
let url: string;

beforeAll(async () => {
  output = await mkdtemp(join(tmpdir(), "patchwise-studio-"));
  const server = await startServer({
    models: ["emoji"],
    output,
    host: "127.0.0.1",
    port: 0,
    processes: 1,
    batch: 16,
    version: "test",
    page: true,
    log: () => {},
  });
  ({ url } = server);
  studio = await openStudio({ url, close: () => server.close(0) });
  page = await studio.open("draw?prompt=red+apple&seed=3&steps=4");
  page.setDefaultTimeout(200_000);
});
afterAll(async () => {
  await studio?.close();
  await rm(output, { recursive: true, force: true });
});

const jobs = async () =>
  ((await (await fetch(`${url}/api/jobs`)).json()) as { readonly jobs: readonly Job[] }).jobs;

describe("the studio with a server", () => {
  it("draws there, step by step, what the page draws: 1 of 255 apart at most", async () => {
    await drawIn(page);
    expect(await page.locator(".progress-line").textContent()).toContain("with Server");
    expect(await page.locator(".film canvas").count()).toBe(4);
    const there = await pixelsOf(page, ".pictures canvas");
    expect((await jobs())[0]).toMatchObject({ state: "succeeded", step: 4 });
    expect(await seriousIssues(page)).toEqual([]);
    await page.getByRole("combobox", { name: "Device" }).selectOption("wasm");
    await drawIn(page);
    expect(await page.locator(".progress-line").textContent()).toContain("with WebAssembly");
    const here = await pixelsOf(page, ".pictures canvas");
    expect(await jobs()).toHaveLength(1);
    const apart = there.map((value, i) => Math.abs(value - here[i]!));
    expect(Math.max(...apart)).toBeLessThanOrEqual(1);
    expect(new Set(there).size).toBeGreaterThan(50);
  });

  it("cancels the work of the server", async () => {
    await page.getByRole("combobox", { name: "Device" }).selectOption("server");
    await page.getByRole("slider", { name: "Steps" }).fill("60");
    await page.getByRole("slider", { name: "Pictures" }).fill("8");
    await page.locator("button[type=submit]").click();
    await page.getByText(/Step \d+ of 60/).waitFor();
    await page.getByRole("button", { name: "Cancel" }).click();
    await page.getByText("Cancelled.").waitFor();
    const [last] = await jobs();
    expect(last).toMatchObject({ state: "cancelled", steps: 60 });
    expect(last!.step).toBeLessThan(60);
    expect(studio.complaints).toEqual([]);
  });
});
