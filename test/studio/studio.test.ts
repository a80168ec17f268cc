/** The built studio in a browser, with no server but one of files; `npm run test:studio` goes through all of it. */
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { finished } from "../../src/pipelines/index.ts";
import { openPipeline } from "../../src/pipelines/index-node.ts";
import { drawIn, openStudio, pixelsOf, seriousIssues, type Studio } from "../support/studio.ts";
import type { Page } from "playwright-core";

// A busy machine takes minutes for the threads of WebAssembly.
vi.setConfig({ testTimeout: 240_000, hookTimeout: 120_000 });

const request = { prompt: "red apple", seed: 3, steps: 2 };
let studio: Studio;
let page: Page;

beforeAll(async () => {
  studio = await openStudio();
  page = await studio.open(`draw?${new URLSearchParams({ ...request, seed: "3", steps: "2" })}`);
  page.setDefaultTimeout(200_000);
});
afterAll(() => studio?.close());

describe("the studio", () => {
  it("says what it will download, and draws with no server what Node draws", async () => {
    const note = page.getByText("The first picture downloads");
    expect(await note.textContent()).toMatch(
      /runtime \(14\.2 MB\) and the model “emoji” \(25\.\d MB\)/,
    );
    await drawIn(page);
    const drawn = await pixelsOf(page, ".pictures canvas");
    await using pipeline = await openPipeline("emoji");
    const [expected] = await finished(pipeline.generate(request));
    const apart = drawn.map((value, i) => Math.abs(value - expected!.pixels[i]!));
    expect(Math.max(...apart)).toBeLessThanOrEqual(1);
    expect(await seriousIssues(page)).toEqual([]);
  });

  it("recovers the settings of a picture that it wrote", async () => {
    const download = page.waitForEvent("download");
    await page.getByRole("button", { name: "Download", exact: true }).click();
    const file = await (await download).path();
    await page.getByRole("spinbutton", { name: "Seed" }).fill("99");
    await page.getByRole("textbox", { name: "Prompt" }).fill("blue house");
    await page.locator("[data-purpose=recover]").setInputFiles(file);
    await page.getByText("These are the settings of").waitFor();
    expect(await page.getByRole("spinbutton", { name: "Seed" }).inputValue()).toBe("3");
    expect(await page.getByRole("textbox", { name: "Prompt" }).inputValue()).toBe("red apple");
  });

  it("shows attention whose rows sum to 1, and another row for another patch", async () => {
    await page.getByRole("button", { name: "Look inside" }).click();
    const sum = page.locator(".row-sum");
    const reading = page.locator(".reading");
    const before = await reading.textContent();
    expect(Number(await sum.getAttribute("value"))).toBeCloseTo(1, 4);
    await page.getByRole("button", { name: /^Row 2, column 7/ }).click();
    expect(await reading.textContent()).not.toBe(before);
    expect(Number(await sum.getAttribute("value"))).toBeCloseTo(1, 4);
    await page.keyboard.press("ArrowLeft");
    expect(await reading.textContent()).toContain("Patch 2, 6");
    expect(await page.locator(".choices").textContent()).toMatch(/red apple.*Noto.*its own.*none/s);
    expect(await seriousIssues(page)).toEqual([]);
  });

  it("cancels a drawing", async () => {
    await page.getByRole("tab", { name: "Draw" }).click();
    await page.getByRole("slider", { name: "Steps" }).fill("60");
    await page.locator("button[type=submit]").click();
    await page.getByText(/Step \d of 60/).waitFor();
    await page.getByRole("button", { name: "Cancel" }).click();
    await page.getByText("Cancelled.").waitFor();
    expect(studio.complaints).toEqual([]);
  });
});
