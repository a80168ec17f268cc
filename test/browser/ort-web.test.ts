import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type BrowserPage, openPage } from "../support/browser.ts";
import type * as pageModule from "./ort-web-page.ts";

const root = path.resolve(import.meta.dirname, "../..");
const devices = ["wasm", "webgpu"] as const;
const places = [
  ["in the page", false],
  ["in a worker", true],
] as const;

let page: BrowserPage<typeof pageModule>;

beforeAll(async () => {
  page = await openPage(path.join(import.meta.dirname, "ort-web-page.ts"), {
    "/worker-wasm.js": path.join(root, "src/engine/runtime/ort-worker-wasm.ts"),
    "/worker-webgpu.js": path.join(root, "src/engine/runtime/ort-worker-webgpu.ts"),
  });
});
afterAll(() => page?.close());

describe.each(devices)("%s in Chromium", (device) => {
  describe.each(places)("%s", (_, worker) => {
    it.each(["float32", "float16", "bfloat16", "float64"] as const)(
      "reads %s weights from a range of a Blob",
      async (dtype) => {
        expect(await page.call("mountedWeights", device, dtype, "blob", worker)).toBe(0);
      },
    );

    it("reads weights from a range of bytes in memory", async () => {
      expect(await page.call("mountedWeights", device, "float32", "bytes", worker)).toBe(0);
    });

    it("keeps state between runs, across an empty batch and a read", async () => {
      expect(await page.call("carriesState", device, worker)).toEqual([4, 7, 7, 11, 11, 16, 101]);
    });
  });

  it("looks up rows of a table in float16", async () => {
    expect(await page.call("rowsOfTable", device)).toEqual([4, -0.125, 0.5, -1]);
  });

  it("throws if a disposed program is run", async () => {
    await expect(page.call("afterDispose", device)).rejects.toThrow("has been disposed");
  });
});

describe("webgpu", () => {
  it("keeps state on the GPU", async () => {
    expect(await page.call("bytesReadBack")).toBeLessThan(4_000);
  });

  it("requests the adapter's largest buffers", async () => {
    for (const [device, adapter] of await page.call("deviceLimits")) expect(device).toBe(adapter);
  });

  it("reports a missing adapter", async () => {
    expect(await page.call("withoutAdapter", "absent")).toMatch(/^DeviceError: .*has no WebGPU/);
    expect(await page.call("withoutAdapter", "refusing")).toMatch(/^DeviceError: .*no WebGPU ada/);
  });
});

describe("webBackend", () => {
  it("runs programs on both devices at once", async () => {
    expect(await page.call("interleaved")).toEqual([2, 2, 2, 4, 4]);
  });

  it("names an unknown device", async () => {
    await expect(page.call("unknownDevice")).rejects.toThrow("webgl does not exist in a browser");
  });

  it("names a missing file of weights", async () => {
    await expect(page.call("missingFile")).rejects.toThrow("lost.safetensors");
  });
});

describe("a worker", () => {
  it("keeps the page responsive", async () => {
    const { longestPause, total } = await page.call("pageStaysFree");
    expect(longestPause).toBeLessThan(total / 2);
  });

  it("stops at once when its run is aborted, and the program runs again", async () => {
    const { error, ending, whole } = await page.call("abandon");
    expect(error).toContain("AbortError");
    expect(ending).toBeLessThan(whole / 2);
  });

  it("reports a script that cannot be loaded", async () => {
    await expect(page.call("brokenWorker")).rejects.toThrow("failed to load its script");
  });
});
