/** Defines a test for every case, run inside of a page. */
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { DType } from "../../src/engine/arrays/ndarray.ts";
import type { WebDevice } from "../../src/engine/runtime/ort-session-web.ts";
import { type BrowserPage, openPage } from "../support/browser.ts";
import type { Case } from "./case.ts";
import type * as pageModule from "./page.ts";

/** @param lacking dtypes that the device has not */
export function describeInBrowser(
  device: WebDevice,
  cases: readonly Case[],
  lacking: readonly DType[] = [],
): void {
  describe(`conformance: ${device} in Chromium`, () => {
    let page: BrowserPage<typeof pageModule>;
    beforeAll(async () => {
      page = await openPage(path.join(import.meta.dirname, "page.ts"));
    });
    afterAll(() => page?.close());
    it.each(cases.map(({ name }) => name))("%s", async (name) => {
      expect(await page.call("run", device, name, lacking)).toEqual([]);
    });
  });
}
