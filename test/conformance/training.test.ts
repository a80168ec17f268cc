import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { evaluate } from "../../src/engine/reference/evaluate.ts";
import type { Backend } from "../../src/engine/runtime/backend.ts";
import { nodeBackend } from "../../src/engine/runtime/ort-node.ts";
import { type BrowserPage, openPage } from "../support/browser.ts";
import type * as pageModule from "./page.ts";
import { trainSmallTransformer } from "./training.ts";

/** The reference interpreter as a backend; state is rounded to its dtype after each step. */
const reference: Backend = {
  device: "reference",
  async compile(graph, { state = {}, initialState = {} } = {}) {
    let held = initialState;
    return {
      async run(inputs) {
        const outputs = evaluate(graph, { ...held, ...inputs });
        held = Object.fromEntries(
          Object.entries(state).map(([leaf, output]) => [leaf, outputs[output]!]),
        );
        return outputs;
      },
      readState: async () => ({ ...held }),
      async writeState(values) {
        held = { ...held, ...values };
      },
      dispose: async () => {},
    };
  },
};

describe("a 2-block transformer trained for 20 steps with AdamW and a moving average", () => {
  let page: BrowserPage<typeof pageModule>;
  let expected: number[];
  beforeAll(async () => {
    page = await openPage(path.join(import.meta.dirname, "page.ts"));
    expected = await trainSmallTransformer(reference);
  });
  afterAll(() => page?.close());

  /** Largest relative error of any step's loss. */
  function errorOf(losses: readonly number[]): number {
    return Math.max(...expected.map((loss, i) => Math.abs((losses[i] ?? NaN) / loss - 1)));
  }

  it("learns in the reference interpreter", () => {
    expect(expected[0]).toBeGreaterThan(2.2);
    expect(expected.at(-1)).toBeLessThan(1.5);
  });

  it("has the same losses on the CPU in Node", async () => {
    expect(errorOf(await trainSmallTransformer(nodeBackend("cpu")))).toBeLessThan(1e-4);
  });

  it("has the same losses on wasm in Chromium", async () => {
    expect(errorOf(await page.call("train", "wasm"))).toBeLessThan(1e-4);
  });

  it("has the same losses on webgpu in Chromium", async () => {
    expect(errorOf(await page.call("train", "webgpu"))).toBeLessThan(1e-4);
  });
});
