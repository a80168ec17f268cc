/**
 * The bundle for pages without a bundler of their own, as files of a static host: below a path, and under the strictest policy for
 * content that docs/apps.md gives.
 */
import { createReadStream, existsSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { createRequire } from "node:module";
import { dirname, extname, join } from "node:path";
import { chromium } from "playwright-core";
import { expect, it } from "vitest";
import { ensureChromium } from "../../scripts/find-chromium.mjs";
import { finished } from "../../src/pipelines/index.ts";
import { openPipeline } from "../../src/pipelines/index-node.ts";
import { chromiumFlags } from "../support/browser.ts";
import { pixelsOf } from "../support/studio.ts";

const root = join(import.meta.dirname, "../..");
const runtime = dirname(createRequire(import.meta.url).resolve("onnxruntime-web/wasm"));
const folders = [join(root, "dist/web"), runtime, root];
const types: Readonly<Record<string, string>> = {
  ".js": "text/javascript",
  ".wasm": "application/wasm",
};
/** The folder of the page on its host. */
const below = "/some/app/";
const script = `import { defineImageElement } from "./patchwise.js";
globalThis.refused = [];
document.addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI }) =>
  refused.push(violatedDirective + " " + blockedURI));
defineImageElement();`;
const html = `<!doctype html><script type="module" src="main.js"></script>
<patchwise-image model="models/emoji/" prompt="red heart" seed="7" steps="2"></patchwise-image>`;
const [, policy] = /Content-Security-Policy: (.*)/.exec(
  readFileSync(join(root, "docs/apps.md"), "utf8"),
)!;

it(
  "draws with <patchwise-image> what Node draws, below a path and under the strictest policy of docs/apps.md",
  { timeout: 240_000 },
  async () => {
    const server = createServer(({ url = "/" }, response) => {
      const name = url.slice(below.length);
      const file = folders.map((folder) => join(folder, name)).find((each) => existsSync(each));
      const type = name === "" ? "text/html" : types[extname(name)];
      response.setHeader("Content-Type", type ?? "application/octet-stream");
      response.setHeader("Content-Security-Policy", policy!);
      if (!url.startsWith(below)) response.writeHead(404).end();
      else if (name === "") response.end(html);
      else if (name === "main.js") response.end(script);
      else if (file) createReadStream(file).pipe(response);
      else response.writeHead(404).end();
    });
    await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
    const browser = await chromium.launch({
      executablePath: ensureChromium(),
      args: chromiumFlags,
    });
    try {
      const page = await browser.newPage();
      await page.goto(`http://127.0.0.1:${(server.address() as AddressInfo).port}${below}`);
      await page.evaluate(() =>
        new Promise((resolve, reject) => {
          const element = document.querySelector("patchwise-image")!;
          element.addEventListener("load", resolve);
          element.addEventListener("error", (event) => {
            reject(new Error((event as unknown as CustomEvent<Error>).detail.message));
          });
        }).then(() => undefined),
      );
      const drawn = await pixelsOf(page, "patchwise-image canvas");
      await using pipeline = await openPipeline("emoji");
      const [alone] = await finished(pipeline.generate({ prompt: "red heart", seed: 7, steps: 2 }));
      const apart = drawn.map((value, i) => Math.abs(value - alone!.pixels[i]!));
      expect(Math.max(...apart)).toBeLessThanOrEqual(1);
      const refused = await page.evaluate(
        () => (globalThis as unknown as { refused: readonly string[] }).refused,
      );
      // zod tries whether it may compile its checks, and does without.
      expect(refused).toEqual(["script-src eval"]);
      // The style of the element holds, too.
      const shown = await page.evaluate(
        () => getComputedStyle(document.querySelector("patchwise-image")!).display,
      );
      expect(shown).toBe("inline-block");
    } finally {
      await browser.close();
      server.close();
    }
  },
);
