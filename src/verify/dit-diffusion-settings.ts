/** Reads process, variance and loss from the names and arguments of a recorded diffusion. */
import { FormatError, quote } from "../engine/errors.ts";
import type { Parameterization } from "../diffusion/parameterization.ts";
import { type DiffusionProcess, diffusionProcess, respaced } from "../diffusion/process.ts";
import { type BetaSchedule, betasOf } from "../diffusion/schedule.ts";
import { respacedTimesteps } from "../diffusion/timesteps.ts";
import type { HybridOptions, StepVariance } from "../diffusion/variational-bound.ts";
import type { Recording } from "./recording.ts";

export type Respacing = string | readonly number[];

const schedules: Readonly<Record<string, BetaSchedule>> = {
  linear: { kind: "linear" },
  cosine: { kind: "cosine" },
};

/**
 * Returns the process of `create_diffusion`. The original recomputes the betas from ᾱ even if all steps are kept.
 *
 * @throws FormatError if the schedule is unknown
 */
export function processOf(
  schedule: string,
  trainSteps: number,
  respacing: Respacing = [trainSteps],
): DiffusionProcess {
  const known = Object.hasOwn(schedules, schedule) ? schedules[schedule] : undefined;
  if (!known) {
    throw new FormatError(
      `A recorded tensor has the unknown schedule ${quote(schedule)}; known are ${Object.keys(schedules).join(", ")}.`,
    );
  }
  const whole = diffusionProcess(betasOf(known, trainSteps));
  return respaced(whole, respacedTimesteps(trainSteps, respacing));
}

/** The settings with which a model is sampled or trained. */
export interface Variant {
  readonly schedule: string;
  /** Respacing of the process that it is trained on; undefined for all steps. */
  readonly respacing: string | undefined;
  readonly variance: StepVariance;
  readonly parameterization: Parameterization;
  readonly objective: HybridOptions["objective"];
}

/** The settings that each word of a variant's name stands for. */
const words: Readonly<Record<string, Partial<Variant>>> = {
  learned: { variance: "learned" },
  fixed_large: { variance: "large" },
  fixed_small: { variance: "small" },
  cosine: { schedule: "cosine" },
  linear: { schedule: "linear" },
  xstart: { parameterization: "x0" },
  rescaled_mse: { objective: "rescaled-mse" },
  kl: { objective: "rescaled-kl" },
};

/**
 * Reads "learned", "fixed_large", "learned_cosine", "respaced100_learned_rescaled_mse" and the like.
 *
 * @throws FormatError if a word is unknown
 */
export function variantOf(name: string): Variant {
  let variant: Variant = {
    schedule: "linear",
    respacing: undefined,
    variance: "learned",
    parameterization: "epsilon",
    objective: "mse",
  };
  let rest = name;
  while (rest !== "") {
    const [word, spacing] = /^respaced(\d+)/.exec(rest) ?? [];
    const known =
      word ?? Object.keys(words).find((key) => rest === key || rest.startsWith(`${key}_`));
    if (known === undefined) {
      throw new FormatError(
        `The recorded variant ${quote(name)} has the unknown word ${quote(rest)}; known are respacedN, ${Object.keys(words).join(", ")}.`,
      );
    }
    variant = { ...variant, ...(spacing === undefined ? words[known] : { respacing: spacing }) };
    rest = rest.slice(known.length).replace(/^_/, "");
  }
  return variant;
}

/** The number of steps of the whole process: the length of a recorded table, or 1000 without one. */
export function trainStepsOf({ io }: Recording): number {
  const table = [...io.entries.keys()].find((name) => name.startsWith("out.table."));
  return (table === undefined ? undefined : io.entries.get(table)?.shape[0]) ?? 1000;
}
