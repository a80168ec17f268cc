/** Chooses the steps of a long training process that a short sampling run goes through. */
import { UsageError } from "../engine/errors.ts";
import { checkSteps, linspace } from "./levels.ts";

/** Table 2 of Lin et al., 2024: only "trailing" and "linspace" begin at the last step, with the most noise. */
export const timestepSpacings = ["leading", "trailing", "linspace"] as const;
export type TimestepSpacing = (typeof timestepSpacings)[number];

export interface SpacingOptions {
  /** Number of steps of the training process. */
  readonly trainSteps: number;
  /** How many of them, from the least noisy on, can be chosen; all unless given. */
  readonly usable?: number;
  /** Added to each time of "leading"; 0 unless given. */
  readonly offset?: number;
  /** "leading" and "linspace" compute one more time and drop the last, 0, because multistep solvers end at the clean image. */
  readonly skipZero?: boolean;
  /** "linspace" does not round. */
  readonly fractional?: boolean;
}

/**
 * Times in [0, trainSteps), descending.
 *
 * @throws UsageError unless steps is a whole number of at least 1 that the spacing supports
 */
export function spacedTimesteps(
  spacing: TimestepSpacing,
  steps: number,
  options: SpacingOptions,
): number[] {
  const { trainSteps, usable = trainSteps, offset = 0, skipZero, fractional } = options;
  checkSteps(steps, spacing === "leading" && skipZero ? usable - 1 : usable);
  const points = skipZero ? steps + 1 : steps;
  switch (spacing) {
    case "leading": {
      const stride = Math.floor(usable / points);
      const last = (points - 1) * stride + offset;
      if (last >= trainSteps) {
        throw new UsageError(
          `${steps} steps of "leading" spacing with the offset ${offset} begin at ${last}, beyond the last of ${trainSteps} steps; take fewer, or another spacing.`,
        );
      }
      return Array.from({ length: steps }, (_, i) => last - i * stride);
    }
    case "trailing": {
      const stride = trainSteps / steps;
      return Array.from({ length: steps }, (_, i) => usable - i * stride)
        .filter((time) => time > 0)
        .map((time) => roundHalfEven(time) - 1);
    }
    case "linspace": {
      const times = linspace(0, usable - 1, points)
        .toReversed()
        .slice(0, steps);
      return fractional ? times : times.map(roundHalfEven);
    }
  }
}

/**
 * The steps that guided-diffusion's `timestep_respacing` keeps, ascending. "250" takes 250 evenly spaced steps, "10,15,20"
 * (or a list) that many of each of three equal sections, and "ddim50" 50 at a whole stride from 0.
 *
 * @throws UsageError if the text has another form, or asks for more steps than there are
 */
export function respacedTimesteps(
  trainSteps: number,
  respacing: string | readonly number[],
): number[] {
  if (typeof respacing === "string" && respacing.startsWith("ddim")) {
    return stridedTimesteps(trainSteps, Number(respacing.slice(4)), respacing);
  }
  const counts = typeof respacing === "string" ? respacing.split(",").map(toCount) : [...respacing];
  if (counts.some((count) => !Number.isInteger(count) || count < 0) || !counts.some(Boolean)) {
    throw new UsageError(
      `The respacing ${JSON.stringify(respacing)} is not known; give "250", "ddim50", or the steps of each section, such as "10,15,20".`,
    );
  }
  const size = Math.floor(trainSteps / counts.length);
  const kept: number[] = [];
  let start = 0;
  for (const [i, count] of counts.entries()) {
    const length = size + (i < trainSteps % counts.length ? 1 : 0);
    if (count > length) {
      throw new UsageError(
        `The respacing ${JSON.stringify(respacing)} asks for ${count} of the ${length} steps of a section; ask for ${length} at most.`,
      );
    }
    const stride = count <= 1 ? 1 : (length - 1) / (count - 1);
    let position = 0;
    for (let j = 0; j < count; j++) {
      kept.push(start + roundHalfEven(position));
      position += stride;
    }
    start += length;
  }
  return kept;
}

/** The smallest whole stride that gives exactly `count` steps, as in DDIM's paper. */
function stridedTimesteps(trainSteps: number, count: number, respacing: string): number[] {
  for (let stride = 1; stride < trainSteps; stride++) {
    if (Math.ceil(trainSteps / stride) !== count) continue;
    return Array.from({ length: count }, (_, i) => i * stride);
  }
  throw new UsageError(
    `The respacing ${JSON.stringify(respacing)} has no whole stride through ${trainSteps} steps; give a number of steps that divides ${trainSteps}.`,
  );
}

function toCount(text: string): number {
  return /^\s*\d+\s*$/.test(text) ? Number(text) : NaN;
}

/** Rounds half to even, as Python and NumPy do. */
function roundHalfEven(x: number): number {
  const floor = Math.floor(x);
  const rest = x - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 !== 0) ? floor + 1 : floor;
}
