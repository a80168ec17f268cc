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

/** @throws Problem that names the setting and the limit */
export function checkLimits(settings: GenerateSettings, limits: Limits): void {
  const { width, height, frames = 1, steps, count, prompt, negativePrompt } = settings;
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
  checkPrompt("prompt", prompt, limits);
  checkPrompt("negativePrompt", negativePrompt, limits);
}

/** @throws Problem if a prompt is too long; known before anything is done with it */
export function checkPrompt(param: string, text: unknown, { prompt }: Limits): void {
  if (typeof text !== "string" || text.length <= prompt) return;
  throw new Problem(
    400,
    `${param} has ${text.length} characters, but this server takes at most ${prompt}; shorten it.`,
    { param, code: "limit_exceeded" },
  );
}
