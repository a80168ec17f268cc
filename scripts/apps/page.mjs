// @ts-nocheck: most of it runs in pages, whose globals have no types here.
/** Uses pages that draw, in Chromium. */
import { existsSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import path from "node:path";
import { chromium } from "playwright-core";
import { ensureChromium } from "../find-chromium.mjs";
import { apart } from "./pixels.mjs";

/** The most processor time that a task of the page's main thread may take while it opens the model and draws, in ms. */
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
    return await used(browser, address, expected);
  } finally {
    await browser.close();
  }
}

async function used(browser, address, expected) {
  const page = await browser.newPage();
  const errors = [];
  page.on("pageerror", (error) => errors.push(error.message));
  const tracing = () => browser.startTracing(page, { categories: ["toplevel", "__metadata"] });
  const draw = async (expectedMessage, meanwhile = async () => undefined) => {
    await page.click("text=Draw");
    // The page empties its message itself: a page of React would not notice if another script did.
    await page.waitForFunction(() => document.querySelector("#message").textContent === "");
    await meanwhile();
    await page.waitForFunction(() => document.querySelector("#message").textContent !== "", null, {
      timeout: 600_000,
    });
    const message = await page.evaluate(() => document.querySelector("#message").textContent);
    const trace = JSON.parse((await browser.stopTracing()).toString());
    if (message !== expectedMessage) throw new Error([message, ...errors].join("; "));
    return longestTask(trace.traceEvents);
  };
  await tracing();
  await page.goto(address, { waitUntil: "networkidle" });
  await page.fill("[name=prompt]", "a red heart");
  await page.fill("[name=seed]", "7");
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
  await tracing();
  const longest = await draw("done");
  for (const [task, what] of /** @type {const} */ ([
    [opening, "opening"],
    [longest, "drawing"],
  ])) {
    if (task >= LONGEST_TASK) throw new Error(`a task of ${task.toFixed()} ms while ${what}`);
  }
  if ((await page.$("#cancel")) !== null) {
    await page.evaluate(() => (document.querySelector("progress").value = 0));
    await tracing();
    await draw("cancelled", async () => {
      await page.waitForFunction(() => document.querySelector("progress").value > 0);
      await page.click("text=Cancel");
    });
  }
  if (errors.length > 0) throw new Error(errors.join("; "));
  return `${same}, longest task ${Math.round(longest)} ms, and ${Math.round(opening)} ms with opening`;
}

/** The most processor time of a task of a page's main thread in ms, which does not depend on what else the machine does. */
function longestTask(events) {
  const pages = events.filter(
    ({ name, args }) => name === "thread_name" && args.name === "CrRendererMain",
  );
  const onPage = ({ pid, tid }) => pages.some((page) => page.pid === pid && page.tid === tid);
  const tasks = events.filter(({ tdur }) => tdur !== undefined).filter(onPage);
  if (tasks.length === 0) throw new Error("the trace holds no tasks of the page");
  return tasks.reduce((longest, { tdur }) => Math.max(longest, tdur / 1000), 0);
}
