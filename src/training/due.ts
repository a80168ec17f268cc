/** When a training draws samples and keeps checkpoints. */
import type { RunConfig } from "./config/config.ts";

/** Returns true if a training draws samples at all. */
export function wantsSamples({ steps, grids }: RunConfig["samples"]): boolean {
  return steps !== undefined || grids > 0;
}

/** Returns true if samples are due after a step that took the training from one share of its length to another. */
export function isSampled(
  { steps, grids }: RunConfig["samples"],
  step: number,
  before: number,
  now: number,
): boolean {
  if (steps !== undefined) return step % steps === 0;
  return Math.floor(now * grids) > Math.floor(before * grids);
}

/** Returns true if a checkpoint is due, so many seconds after the last one. */
export function isDue(
  { steps: every, minutes }: RunConfig["checkpoint"],
  step: number,
  seconds: number,
): boolean {
  if (every !== undefined && step % every === 0) return true;
  return seconds >= 60 * (minutes ?? (every === undefined ? 5 : Infinity));
}
