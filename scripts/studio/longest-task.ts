/** How long the page's main thread is held while it draws. */
import { strict as assert } from "node:assert";
import type { Page } from "playwright-core";
import { drawIn } from "../../test/support/studio.ts";

/** Milliseconds of processor time that one task of the page may take while it draws. */
const LONGEST_TASK = 100;

/** Draws once more; returns the most processor time in ms of a task of the page's main thread, whatever else the machine does. */
export async function longestTaskWhileDrawing(page: Page): Promise<number> {
  const browser = page.context().browser()!;
  await browser.startTracing(page, { categories: ["toplevel", "__metadata"] });
  await drawIn(page);
  const { traceEvents } = JSON.parse((await browser.stopTracing()).toString()) as {
    readonly traceEvents: readonly {
      readonly name: string;
      readonly pid: number;
      readonly tid: number;
      /** Processor time in microseconds. */
      readonly tdur?: number;
      readonly args: { readonly name?: string };
    }[];
  };
  const main = traceEvents.filter(
    ({ name, args }) => name === "thread_name" && args.name === "CrRendererMain",
  );
  const tasks = traceEvents.filter(
    ({ tdur, pid, tid }) =>
      tdur !== undefined && main.some((each) => each.pid === pid && each.tid === tid),
  );
  assert.ok(tasks.length > 0, "the trace holds no tasks of the page");
  const longest = Math.max(...tasks.map(({ tdur }) => tdur! / 1000));
  assert.ok(longest < LONGEST_TASK, `a task of ${longest} ms while drawing`);
  return longest;
}
