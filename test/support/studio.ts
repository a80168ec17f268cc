/** The built studio in headless Chromium, and what a person does in it. */
import { createRequire } from "node:module";
import type { AddressInfo } from "node:net";
import { readFile } from "node:fs/promises";
import { type Browser, chromium, type Page } from "playwright-core";
import { ensureChromium } from "../../scripts/find-chromium.mjs";
import { studioServer } from "../../src/cli/studio.ts";
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

/** Serves the studio of dist/ and starts a browser. */
export async function openStudio(): Promise<Studio> {
  const server = studioServer();
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  const { port } = server.address() as AddressInfo;
  const browser: Browser = await chromium.launch({
    executablePath: ensureChromium(),
    args: chromiumFlags,
  });
  const complaints: string[] = [];
  return {
    complaints,
    async open(hash, { width = 1440, look = "light", language = "en" } = {}) {
      const height = width < 500 ? 844 : 960;
      const context = await browser.newContext({ viewport: { width, height } });
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
      await page.goto(`http://127.0.0.1:${port}/#/${hash}`);
      await page.waitForSelector("#app h1");
      return page;
    },
    async close() {
      await browser.close();
      server.closeAllConnections();
      await new Promise((closed) => server.close(closed));
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
    const { data } = canvas.getContext("2d")!.getImageData(0, 0, width, height);
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
