/** Draws the lines whose pictures are missing, several at a time. */
import { untilAborted } from "../queue/until-aborted-node.ts";
import type { Drawer, DrawnBy } from "./drawer.ts";
import type { PictureStore } from "./folder.ts";
import { bySize, failureOf, type LineFailure, type LineTask } from "./tasks.ts";

/** How far a run has come. */
export interface LinesProgress {
  /** Pictures that were there, that were drawn and that could not be drawn. */
  readonly kept: number;
  readonly drawn: number;
  readonly failed: number;
  /** All of them, with those to come. */
  readonly all: number;
  /** Seconds since the first was begun. */
  readonly seconds: number;
}

export interface LinesOptions {
  readonly by: DrawnBy;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: LinesProgress) => void;
}

/** Those whose pictures are missing, and those that cannot be drawn since something else has their name. */
async function missingTasks(
  tasks: readonly LineTask[],
  store: PictureStore,
  signal?: AbortSignal,
): Promise<{ readonly missing: LineTask[]; readonly failures: LineFailure[] }> {
  const missing: LineTask[] = [];
  const failures: LineFailure[] = [];
  for (const task of tasks) {
    signal?.throwIfAborted();
    try {
      if (!(await store.has(task))) missing.push(task);
    } catch (error) {
      failures.push(failureOf(task.line, error));
    }
  }
  return { missing, failures };
}

/**
 * Draws each task whose picture is not there yet. A line that cannot be drawn does not hold up the others.
 *
 * @throws PatchwiseError if a picture cannot be written; the reason of `signal`
 */
export async function drawLines(
  tasks: readonly LineTask[],
  drawer: Drawer,
  store: PictureStore,
  { by, signal, onProgress }: LinesOptions,
): Promise<LinesProgress & { readonly failures: readonly LineFailure[] }> {
  const { missing, failures } = await missingTasks(tasks, store, signal);
  const kept = tasks.length - missing.length - failures.length;
  const begun = performance.now();
  let drawn = 0;
  const progress = (): LinesProgress => ({
    kept,
    drawn,
    failed: failures.length,
    all: tasks.length,
    seconds: (performance.now() - begun) / 1000,
  });
  onProgress?.(progress());

  const waiting = bySize(missing)[Symbol.iterator]();
  let stopped = false;
  const runner = async () => {
    for (const task of waiting) {
      if (stopped) return;
      signal?.throwIfAborted();
      let file: Uint8Array;
      try {
        file = await drawer.draw(task.line.request, by);
      } catch (error) {
        signal?.throwIfAborted();
        failures.push(failureOf(task.line, error));
        onProgress?.(progress());
        continue;
      }
      await store.put(task, file);
      drawn++;
      onProgress?.(progress());
    }
  };
  const places = Math.min(drawer.places, missing.length);
  try {
    await untilAborted(Promise.all(Array.from({ length: places }, runner)), signal);
  } finally {
    stopped = true;
  }
  await store.finish();
  const inOrder = failures.toSorted((a, b) => a.line.number - b.line.number);
  return { ...progress(), failures: inOrder };
}
