/** The built studio in headless Chromium, and what a person does in it. */
import { createRequire } from "node:module";
import { readFile } from "node:fs/promises";
import { type Browser, chromium, type Page } from "playwright-core";
import { ensureChromium } from "../../scripts/find-chromium.mjs";
import { startPage } from "../../src/server/server.ts";
import { chromiumFlags } from "./browser.ts";

const axe = createRequire(import.meta.url).resolve("axe-core");

export interface StudioOptions {
  readonly width?: number;
  readonly look?: "light" | "dark";
  readonly language?: "en" | "zh";
}

export interface Studio {
  /** Opens the page at the part of its address behind "#", in a browser profile of its own. */
  open(hash: string, options?: StudioOptions): Promise<Page>;
  /** Errors and warnings that the pages' consoles showed. */
  readonly complaints: readonly string[];
  close(): Promise<void>;
}

/**
 * Starts a browser for the studio of dist/.
 *
 * @param server one that serves it; by default one of the page alone
 * @param flags further ones of Chromium
 */
export async function openStudio(
  server?: { readonly url: string; close(): Promise<unknown> },
  flags: readonly string[] = [],
): Promise<Studio> {
  const served = server ?? (await startPage(0));
  const browser: Browser = await chromium.launch({
    executablePath: ensureChromium(),
    args: [...chromiumFlags, ...flags],
  });
  const complaints: string[] = [];
  return {
    complaints,
    async open(hash, { width = 1440, look = "light", language = "en" } = {}) {
      const height = width < 500 ? 844 : 960;
      const context = await browser.newContext({
        viewport: { width, height },
        hasTouch: width < 500,
        permissions: ["clipboard-read", "clipboard-write"],
      });
      const page = await context.newPage();
      page.on("pageerror", (error) => complaints.push(String(error)));
      page.on("console", (message) => {
        if (["error", "warning"].includes(message.type())) complaints.push(message.text());
      });
      await page.addInitScript(
        ([chosenLook, chosenLanguage]) => {
          localStorage.setItem("patchwise-look", JSON.stringify(chosenLook));
          localStorage.setItem("patchwise-language", JSON.stringify(chosenLanguage));
        },
        [look, language],
      );
      await page.goto(`${served.url}/#/${hash}`);
      await page.waitForSelector("#app h1");
      return page;
    },
    async close() {
      await browser.close();
      await served.close();
    },
  };
}

/** Draws with the settings of the form, to the end. */
export async function drawIn(page: Page): Promise<void> {
  await page.locator("button[type=submit]").click();
  await page.locator("button[type=submit]:enabled").waitFor();
  await page.locator(".picture-actions").waitFor();
}

/** Red, green and blue of each pixel of a canvas. */
export function pixelsOf(page: Page, selector: string): Promise<number[]> {
  return page.locator(selector).evaluate((element) => {
    const canvas = element as HTMLCanvasElement;
    const { width, height } = canvas;
    // A copy, since Chromium warns of a canvas that is read twice.
    const context = new OffscreenCanvas(width, height).getContext("2d")!;
    context.drawImage(canvas, 0, 0);
    const { data } = context.getImageData(0, 0, width, height);
    return [...data].filter((_, i) => i % 4 !== 3);
  });
}

interface AxeResults {
  readonly violations: readonly {
    readonly id: string;
    readonly impact: string;
    readonly nodes: readonly { readonly html: string }[];
  }[];
}

/** Serious problems of accessibility in what the page shows, by axe-core. */
export async function seriousIssues(page: Page): Promise<readonly string[]> {
  await page.evaluate(await readFile(axe, "utf8"));
  const { violations } = await page.evaluate(() =>
    (globalThis as unknown as { axe: { run(): Promise<AxeResults> } }).axe.run(),
  );
  return violations
    .filter(({ impact }) => impact === "serious" || impact === "critical")
    .map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join("; ")}`);
}
