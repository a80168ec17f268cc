/** Every sampler by the name that requests use. */
import { didYouMean, UsageError } from "../../engine/errors.ts";
import { ddim, euler, eulerAncestral } from "./ddim.ts";
import { ddpm } from "./ddpm.ts";
import { dpmSolver2M, dpmSolver2MSDE, dpmSolver2MSigma, dpmSolver3M } from "./dpm-solver.ts";
import { heun } from "./heun.ts";
import type { Sampler } from "./sampler.ts";
import { unipc } from "./unipc.ts";

export const samplers = {
  ddpm,
  ddim,
  euler,
  "euler-ancestral": eulerAncestral,
  heun,
  "dpmpp-2m": dpmSolver2M,
  "dpmpp-2m-sigma": dpmSolver2MSigma,
  "dpmpp-2m-sde": dpmSolver2MSDE,
  "dpmpp-3m": dpmSolver3M,
  unipc,
} satisfies Record<string, Sampler>;

export type SamplerName = keyof typeof samplers;

/** @throws UsageError if there is no such sampler, with the nearest names */
export function samplerNamed(name: string): Sampler {
  if (Object.hasOwn(samplers, name)) return samplers[name as SamplerName];
  throw new UsageError(
    `There is no sampler ${JSON.stringify(name)}; ${didYouMean(name, Object.keys(samplers))}`,
  );
}
