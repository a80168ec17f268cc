import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { finished, type GenerateRequest } from "../../src/pipelines/index.ts";
import { openPipeline } from "../../src/pipelines/index-node.ts";
import { type BrowserPage, openPage } from "../support/browser.ts";
import { tinyTextNetwork } from "../support/tiny-model.ts";
import { writeTrained } from "../support/trained-folder.ts";
import type * as pageModule from "./pipeline-page.ts";

const root = path.resolve(import.meta.dirname, "../..");
const folder = mkdtempSync(path.join(tmpdir(), "patchwise-page-"));
const shipped = path.join(root, "models", "emoji");
/** Of as many tokens as the fused attention of GPUs takes in tiles; a GPU made of software takes a minute for the shipped one. */
const small = path.join(folder, "small");

let page: BrowserPage<typeof pageModule>;

beforeAll(async () => {
  await writeTrained(small, { ...tinyTextNetwork, size: [32, 32] });
  page = await openPage(
    path.join(import.meta.dirname, "pipeline-page.ts"),
    { "/worker.js": path.join(root, "src/engine/runtime/worker-entry-web.ts") },
    { "/shipped/": shipped, "/small/": small },
  );
});
afterAll(async () => {
  await page?.close();
  rmSync(folder, { recursive: true });
});

async function drawnInNode(model: string, request: GenerateRequest): Promise<number[][]> {
  const pipeline = await openPipeline(model);
  const pictures = await finished(pipeline.generate(request));
  await pipeline.dispose();
  return pictures.map(({ pixels }) => [...pixels]);
}

describe("a trained folder, in Chromium", () => {
  it.each([
    ["/shipped", "wasm", "in the page", { prompt: "red apple", seed: 3, steps: 4, count: 2 }],
    ["/shipped/", "wasm", "in a worker", { prompt: "red heart", seed: 4, steps: 2 }],
    ["/small", "wasm", "in the page", { prompt: "a red cat", steps: 3 }],
    ["/small", "webgpu", "in the page", { prompt: "a red cat", steps: 3 }],
  ] as const)("%s draws on %s %s what Node draws", async (url, device, place, request) => {
    const drawn = await page.call("draw", url, device, place === "in a worker", request);
    const expected = await drawnInNode(url === "/small" ? small : shipped, request);
    expect(drawn.map((values) => values.length)).toEqual(expected.map((values) => values.length));
    const apart = drawn.flatMap((values, i) =>
      values.map((value, j) => Math.abs(value - expected[i]![j]!)),
    );
    // Devices add in other orders, so that a value near a half may be rounded either way.
    expect(Math.max(...apart)).toBeLessThanOrEqual(1);
  });

  it("says where a model is not", async () => {
    await expect(page.call("draw", "/gone", "wasm", false, {})).rejects.toThrow(
      "gives no model.json (HTTP 404)",
    );
  });
});
