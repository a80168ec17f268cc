/** What one request may ask for, so that none keeps the others waiting for hours or takes all memory. */
import type { GenerateSettings } from "../pipelines/settings.ts";
import { Problem } from "./problem.ts";
import type { Limits } from "./wire.ts";

export const defaultLimits: Limits = {
  pixels: 2048 * 2048,
  steps: 1000,
  count: 16,
  body: 20 * 2 ** 20,
  queue: 64,
  prompt: 4000,
};

/** A job that ended this many processes is at fault itself. After the first time, it is drawn alone. */
export const MOST_CRASHES = 2;
/** A job may have been drawn when the server ended for any reason, so this is more. */
export const MOST_RESTARTS = 10;
/** Drawings that are over and kept. */
export const KEPT = 1000;

/** The most that one training may ask for. */
export const trainingLimits = {
  /** Pixels of one picture. */
  pixels: 512 * 512,
  steps: 100_000,
  batch: 1024,
  accumulate: 64,
  /** Samples at one time, and times at which they are drawn. */
  samples: 16,
  grids: 1000,
} as const;

type Limited = {
  readonly [
    N in keyof Pick<
      GenerateSettings,
      "width" | "height" | "frames" | "steps" | "count" | "prompt" | "negativePrompt"
    >
  ]?: GenerateSettings[N] | undefined;
};

/**
 * Checks the settings that a request gives, before anything is computed from them, or all that it is drawn with.
 *
 * @throws Problem that names the setting and the limit
 */
export function checkLimits(settings: Limited, limits: Limits): void {
  const { width = 1, height = 1, frames = 1, steps = 1, count = 1 } = settings;
  const most = (param: string, value: number, limit: number, unit = "") => {
    if (value <= limit) return;
    throw new Problem(
      400,
      `${param} is ${value}${unit}, but this server draws at most ${limit}${unit} in one request; give less.`,
      { param, code: "limit_exceeded" },
    );
  };
  most("size", width * height * frames, limits.pixels, " pixels");
  most("steps", steps, limits.steps);
  most("count", count, limits.count);
  for (const param of ["prompt", "negativePrompt"] as const) {
    const { length } = settings[param] ?? "";
    if (length <= limits.prompt) continue;
    throw new Problem(
      400,
      `${param} has ${length} characters, but this server takes at most ${limits.prompt}; shorten it.`,
      { param, code: "limit_exceeded" },
    );
  }
}
