/** The losses of trainings that are over, to compare others with. */
import { keptStore } from "../store.ts";

export type Losses = readonly (readonly [step: number, loss: number])[];

export interface Run {
  readonly name: string;
  /** When it ended, in ms since 1970. */
  readonly ended: number;
  readonly losses: Losses;
  /** True if it is drawn in the chart. */
  readonly shown: boolean;
}

/** Runs that are kept, and points of each. */
const MOST_RUNS = 6;
const MOST_POINTS = 300;

/** The newest first. */
export const runs = keptStore<readonly Run[]>("patchwise-runs", [], Array.isArray);

/** Keeps the losses of a training that has ended. */
export function rememberRun(name: string, losses: Losses): void {
  if (losses.length === 0) return;
  const size = Math.ceil(losses.length / MOST_POINTS);
  const thinned: (readonly [number, number])[] = [];
  for (let i = 0; i < losses.length; i += size) {
    const part = losses.slice(i, i + size);
    const mean = part.reduce((sum, [, loss]) => sum + loss, 0) / part.length;
    thinned.push([part.at(-1)![0], Number(mean.toPrecision(5))]);
  }
  const run: Run = { name, ended: Date.now(), losses: thinned, shown: true };
  runs.set([run, ...runs.get()].slice(0, MOST_RUNS));
}

/** Shows a run in the chart, or no longer. */
export function toggleRun(ended: number): void {
  runs.set(
    runs.get().map((each) => (each.ended === ended ? { ...each, shown: !each.shown } : each)),
  );
}
