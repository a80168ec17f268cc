// @ts-nocheck: most of it runs in pages, whose globals have no types here.
/** Uses pages that draw, in Chromium. */
import { existsSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import path from "node:path";
import { chromium } from "playwright-core";
import { ensureChromium } from "../find-chromium.mjs";
import { apart } from "./pixels.mjs";

/** The longest that a task of the page's main thread may take while it draws, in ms. */
const LONGEST_TASK = 100;

/** Serves a folder of static files, whose page is used. */
export async function servedPage(folder, expected) {
  const server = createServer((asked, response) => {
    const { pathname } = new URL(asked.url, "http://127.0.0.1");
    const file = path.join(folder, pathname === "/" ? "index.html" : pathname);
    if (!existsSync(file)) {
      response.writeHead(404).end();
      return;
    }
    const types = { ".html": "text/html", ".js": "text/javascript", ".wasm": "application/wasm" };
    response.writeHead(200, {
      "content-type": types[path.extname(file)] ?? "application/octet-stream",
      "cross-origin-opener-policy": "same-origin",
      "cross-origin-embedder-policy": "require-corp",
    });
    response.end(asked.method === "HEAD" ? undefined : readFileSync(file));
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  try {
    return await usedPage(`http://127.0.0.1:${server.address().port}/`, expected);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

/** Opens an address, draws, and where the page can cancel, cancels; returns what to report. */
export async function usedPage(address, expected) {
  const browser = await chromium.launch({
    executablePath: ensureChromium(),
    args: ["--no-sandbox", "--disable-background-networking", "--disable-sync", "--no-first-run"],
  });
  try {
    return await used(await browser.newPage(), address, expected);
  } finally {
    await browser.close();
  }
}

async function used(page, address, expected) {
  const errors = [];
  page.on("pageerror", (error) => errors.push(error.message));
  await page.goto(address, { waitUntil: "networkidle" });
  await page.evaluate(() => {
    globalThis.longest = 0;
    new PerformanceObserver((list) => {
      for (const { duration } of list.getEntries()) {
        globalThis.longest = Math.max(globalThis.longest, duration);
      }
    }).observe({ type: "longtask" });
  });
  await page.fill("[name=prompt]", "a red heart");
  await page.fill("[name=seed]", "7");
  const draw = async (expectedMessage, meanwhile = async () => undefined) => {
    await page.evaluate(() => {
      globalThis.longest = 0;
      document.querySelector("#message").textContent = "";
    });
    await page.click("text=Draw");
    await meanwhile();
    await page.waitForFunction(() => document.querySelector("#message").textContent !== "", null, {
      timeout: 600_000,
    });
    const message = await page.evaluate(() => document.querySelector("#message").textContent);
    if (message !== expectedMessage) throw new Error([message, ...errors].join("; "));
    // Long tasks are told of a little later.
    await page.waitForTimeout(300);
    return page.evaluate(() => globalThis.longest);
  };
  // The first drawing also opens and compiles the model; the second one only draws.
  const opening = await draw("done");
  const pixels = await page.evaluate(() => {
    const canvas = document.querySelector("canvas");
    return [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data];
  });
  const same = apart(
    expected,
    pixels.filter((_, i) => i % 4 < 3),
  );
  const longest = await draw("done");
  if (longest > LONGEST_TASK) throw new Error(`a task of ${longest} ms while drawing`);
  if ((await page.$("#cancel")) !== null) {
    await page.evaluate(() => (document.querySelector("progress").value = 0));
    await draw("cancelled", async () => {
      await page.waitForFunction(() => document.querySelector("progress").value > 0);
      await page.click("text=Cancel");
    });
  }
  if (errors.length > 0) throw new Error(errors.join("; "));
  return `${same}, longest task ${Math.round(longest)} ms, and ${Math.round(opening)} ms with opening`;
}
