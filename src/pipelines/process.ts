/** Processes to sample by: of a trained folder's recipe, and of a scheduler of diffusers. */
import type { DiffusersScheduler } from "../diffusion/diffusers/schedulers.ts";
import { type NoiseLevel, refuseShift } from "../diffusion/levels.ts";
import { type Recipe, recipeLevels } from "../diffusion/recipe.ts";
import { type SamplerName, samplerNamed } from "../diffusion/samplers/index.ts";
import type { Sampler } from "../diffusion/samplers/sampler.ts";
import { tokenLevels, type TokenRecipe } from "../diffusion/discrete/token-recipe.ts";
import { sampleTokens } from "../diffusion/discrete/token-sampling.ts";
import { UsageError } from "../engine/errors.ts";
import { tokenSampler } from "../models/card.ts";
import { quote } from "../engine/messages.ts";
import type { SamplingProcess, TokenProcess } from "./image-model.ts";

export function recipeProcess(recipe: Recipe, sampler: SamplerName): SamplingProcess {
  return {
    kind: "continuous",
    parameterization: recipe.predicts,
    sampler,
    samplerNamed,
    levels: (steps, options) => recipeLevels(recipe, steps, options),
    start: () => 1,
  };
}

export function tokenProcess(recipe: TokenRecipe, codebook: number): TokenProcess {
  return {
    kind: "tokens",
    codebook,
    sampler: tokenSampler,
    samplerNamed(name) {
      if (name === tokenSampler) return sampleTokens;
      throw new UsageError(
        `There is no sampler ${quote(name)} of tokens; give ${tokenSampler}, or leave it out.`,
      );
    },
    levels(steps, { shift }) {
      refuseShift(shift);
      return tokenLevels(recipe, steps);
    },
  };
}

/** Which of our samplers each scheduler is, for who asks by name. */
const samplerOfScheduler: Readonly<Record<string, SamplerName>> = {
  DDPMScheduler: "ddpm",
  DDIMScheduler: "ddim",
  EulerDiscreteScheduler: "euler",
  EulerAncestralDiscreteScheduler: "euler-ancestral",
  HeunDiscreteScheduler: "heun",
  DPMSolverMultistepScheduler: "dpmpp-2m",
  UniPCMultistepScheduler: "unipc",
  FlowMatchEulerDiscreteScheduler: "euler",
};

/** Another sampler than the scheduler's own goes through the scheduler's levels. */
export function schedulerProcess(name: string, scheduler: DiffusersScheduler): SamplingProcess {
  const { parameterization, threshold } = scheduler;
  const own = samplerOfScheduler[name] ?? name;
  return {
    kind: "continuous",
    parameterization,
    threshold,
    sampler: own,
    samplerNamed: (wanted, steps) =>
      wanted === own ? ownSampler(scheduler, steps) : samplerNamed(wanted),
    levels: (steps, { shift }) => scheduler.levels(steps, { shift }),
    start: (first) => scheduler.start(first),
  };
}

function ownSampler({ sampler, targets }: DiffusersScheduler, whole: number): Sampler {
  if (!targets) return sampler;
  return async function* aimed(denoise, x, levels, options = {}) {
    const steps = levels.length - 1;
    for (const [index, target] of targets(whole).slice(-steps).entries()) {
      const pair: readonly NoiseLevel[] = [levels[index]!, target];
      const { noise } = options;
      const run = sampler(denoise, x, pair, {
        ...options,
        noise: noise && ((_, shape) => noise(index, shape)),
      });
      for await (const { x0, x: reached, level } of run) {
        x = reached;
        yield { step: index + 1, steps, level, x, x0 };
      }
    }
    return x;
  };
}
