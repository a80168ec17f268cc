/** When a training draws samples. */
import type { RunConfig } from "./config/config.ts";

/** Whether a training draws samples at all. */
export function wantsSamples({ steps, grids }: RunConfig["samples"]): boolean {
  return steps !== undefined || grids > 0;
}

/** Whether samples are due after a step that took the training from one share of its length to another. */
export function isSampled(
  { steps, grids }: RunConfig["samples"],
  step: number,
  before: number,
  now: number,
): boolean {
  if (steps !== undefined) return step % steps === 0;
  return Math.floor(now * grids) > Math.floor(before * grids);
}
