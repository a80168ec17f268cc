/** Processes to sample by: of a trained folder's recipe, and of a scheduler of diffusers. */
import type { DiffusersScheduler } from "../diffusion/diffusers-schedulers.ts";
import type { NoiseLevel } from "../diffusion/levels.ts";
import { type Recipe, recipeLevels } from "../diffusion/recipe.ts";
import { type SamplerName, samplerNamed } from "../diffusion/samplers/index.ts";
import type { Sampler } from "../diffusion/samplers/sampler.ts";
import type { SamplingProcess } from "./image-model.ts";

export function recipeProcess(recipe: Recipe, sampler: SamplerName): SamplingProcess {
  return {
    parameterization: recipe.predicts,
    sampler,
    samplerNamed,
    levels: (steps, options) => recipeLevels(recipe, steps, options),
    start: () => 1,
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
