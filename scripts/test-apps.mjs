// @ts-nocheck: most of it runs in pages, whose globals have no types here.
/**
 * Tries the packed package in fresh applications, as a user would: npm run test:apps
 *
 * Each folder of examples/apps is copied, installed with the packed tarball and built without further configuration. The page must
 * draw the same pixels as Node, to within 1 of 255, without blocking for long, and stop when it is told to. It takes some minutes
 * and needs the npm registry, so it is not part of `npm test`.
 */
import { execFileSync } from "node:child_process";
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import path from "node:path";
import { chromium } from "playwright-core";
import sharp from "sharp";
import { ensureChromium } from "./find-chromium.mjs";

const root = path.resolve(import.meta.dirname, "..");
const request = { prompt: "a red heart", seed: 7 };
/** The longest that a task of the page's main thread may take while it draws, in ms. */
const LONGEST_TASK = 100;

/** Versions of the bundler to try each app with. */
const apps = [
  { name: "vite", with: "vite@7" },
  { name: "vite", with: "vite@6" },
];

const scratch = mkdtempSync(path.join(tmpdir(), "patchwise-apps-"));
const run = (command, args, cwd) =>
  execFileSync(command, args, {
    cwd,
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, ONNXRUNTIME_NODE_INSTALL: "skip" },
  });

const packed = run("npm", ["pack", "--silent", "--pack-destination", scratch], root).trim();
const tarball = path.join(scratch, packed.split("\n").at(-1));
const expected = await drawnInNode();
let failed = 0;
for (const app of apps) {
  try {
    console.log(`passed: ${app.name} with ${app.with}: ${await tried(app)}`);
  } catch (error) {
    failed++;
    console.log(`failed: ${app.name} with ${app.with}: ${error.stderr ?? error.stack}`);
  }
}
rmSync(scratch, { recursive: true });
console.log(`${apps.length - failed} passed, ${failed} failed`);
process.exitCode = failed > 0 ? 1 : 0;

async function drawnInNode() {
  const file = path.join(scratch, "node.png");
  const args = ["dist/cli/main.js", "generate", request.prompt, "--seed", String(request.seed)];
  run("node", [...args, "--out", file], root);
  return sharp(file).removeAlpha().raw().toBuffer();
}

/** Installs, builds and uses an app; returns what to report of it. */
async function tried(app) {
  const folder = path.join(scratch, app.with.replace("@", "-"));
  cpSync(path.join(root, "examples/apps", app.name), folder, { recursive: true });
  run("npm", ["install", "--no-audit", "--no-fund", tarball, app.with], folder);
  run("npm", ["run", "build"], folder);
  const server = createServer((asked, response) => {
    const { pathname } = new URL(asked.url, "http://127.0.0.1");
    const file = path.join(folder, "dist", pathname === "/" ? "index.html" : pathname);
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
  const browser = await chromium.launch({
    executablePath: ensureChromium(),
    args: ["--no-sandbox", "--disable-background-networking", "--disable-sync", "--no-first-run"],
  });
  try {
    return await used(await browser.newPage(), `http://127.0.0.1:${server.address().port}/`);
  } finally {
    await browser.close();
    server.closeAllConnections();
    server.close();
  }
}

async function used(page, address) {
  const errors = [];
  page.on("pageerror", (error) => errors.push(error.message));
  await page.goto(address);
  await page.evaluate(() => {
    globalThis.longest = 0;
    new PerformanceObserver((list) => {
      for (const { duration } of list.getEntries()) {
        globalThis.longest = Math.max(globalThis.longest, duration);
      }
    }).observe({ type: "longtask" });
  });
  await page.fill("[name=prompt]", request.prompt);
  await page.fill("[name=seed]", String(request.seed));
  await page.click("text=Draw");
  const said = (text) =>
    page.waitForFunction((word) => document.querySelector("#message").textContent === word, text, {
      timeout: 120_000,
    });
  await said("done");
  const pixels = await page.evaluate(() => {
    const canvas = document.querySelector("canvas");
    return [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data];
  });
  const drawn = pixels.filter((_, i) => i % 4 < 3);
  const apart = drawn.reduce((most, value, i) => Math.max(most, Math.abs(value - expected[i])), 0);
  if (drawn.length !== expected.length || apart > 1) throw new Error(`${apart} of 255 apart`);
  // The first drawing also opens and compiles the model; the second one only draws. Long tasks are told of a little later.
  await page.waitForTimeout(300);
  const opening = await page.evaluate(() => globalThis.longest);
  await page.evaluate(() => {
    globalThis.longest = 0;
    document.querySelector("#message").textContent = "";
  });
  await page.click("text=Draw");
  await said("done");
  const longest = await page.evaluate(() => globalThis.longest);
  if (longest > LONGEST_TASK) throw new Error(`a task of ${longest} ms while drawing`);
  // A third drawing, which is cancelled once it has begun.
  await page.evaluate(() => (document.querySelector("progress").value = 0));
  await page.click("text=Draw");
  await page.waitForFunction(() => document.querySelector("progress").value > 0);
  await page.click("text=Cancel");
  await said("cancelled");
  if (errors.length > 0) throw new Error(errors.join("; "));
  return `${apart} of 255 apart from Node, longest task ${Math.round(longest)} ms, and ${Math.round(opening)} ms with opening`;
}
