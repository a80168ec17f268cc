/** The pictures that were drawn here, with all their settings, in IndexedDB. */
import { createStore, del, entries, set } from "idb-keyval";
import type { GenerateSettings } from "../../src/pipelines/settings.ts";
import type { DrawnPicture } from "../../src/pipelines/index.ts";
import type { Drawing } from "./drawing.ts";
import type { Settings } from "./settings.ts";
import { store } from "./store.ts";

export interface Remembered {
  /** When it was drawn, in ms since 1970; the key. */
  readonly time: number;
  readonly asked: Settings;
  readonly resolved: GenerateSettings;
  readonly pictures: readonly DrawnPicture[];
}

/** Drawings that are kept; the oldest ones are forgotten. */
const MOST = 120;

const database = createStore("patchwise-history", "drawings");

/** Newest first. */
export const history = store<readonly Remembered[]>([]);

export async function loadHistory(): Promise<void> {
  const all = await entries<number, Remembered>(database);
  history.set(all.map(([, each]) => each).sort((a, b) => b.time - a.time));
}

export async function remember({ asked, resolved, pictures }: Drawing): Promise<void> {
  if (!pictures) return;
  const kept = { time: Date.now(), asked, resolved, pictures };
  const all = [kept, ...history.get()];
  history.set(all.slice(0, MOST));
  await set(kept.time, kept, database);
  await Promise.all(all.slice(MOST).map(({ time }) => del(time, database)));
}

export async function forget({ time }: Remembered): Promise<void> {
  history.set(history.get().filter((each) => each.time !== time));
  await del(time, database);
}
