/**
 * How noise becomes a picture. Continuous numbers and discrete tokens are sampled by different mathematics, but offer the
 * same interface: `begin` makes the noise, `denoise` combines the network's answers, `step` goes through the noise levels.
 */
import { combine } from "../diffusion/arrays.ts";
import { type Denoiser, denoiserOf, type Network } from "../diffusion/denoiser.ts";
import type { DiffusersScheduler } from "../diffusion/diffusers/schedulers.ts";
import {
  guidedTokens,
  type TokenDenoiser,
  tokenLevel,
  tokenLevels,
  type TokenRecipe,
} from "../diffusion/discrete/discrete.ts";
import { sampleTokens, tokenDraws } from "../diffusion/discrete/token-sampling.ts";
import { guided } from "../diffusion/guidance.ts";
import { type CleanTokens, inpaint, withCleanTokens } from "../diffusion/inpainting.ts";
import { type NoiseLevel, noiseOfSteps, refuseShift } from "../diffusion/levels.ts";
import { withLowestTime } from "../diffusion/lowest-time.ts";
import { keyedNoise, type NoiseSource, sharedByFrames } from "../diffusion/noise.ts";
import type { Parameterization } from "../diffusion/parameterization.ts";
import type { MuFor } from "../diffusion/resolution-shift.ts";
import { type LevelOptions, type Recipe, recipeLevels } from "../diffusion/recipe.ts";
import { type SamplerName, samplerNamed } from "../diffusion/samplers/index.ts";
import type { Sampler } from "../diffusion/samplers/sampler.ts";
import { type Threshold, thresholded } from "../diffusion/thresholding.ts";
import type { NdArray } from "../engine/arrays/ndarray.ts";
import { quote, UsageError } from "../engine/errors.ts";
import { fork, randomKey } from "../engine/random/random.ts";
import { tokenSampler } from "../models/card.ts";
import { meanFlowNetwork, meanFlowSampler } from "./mean-flow.ts";
import { familyOf } from "../models/families.ts";
import type { NetworkConfig } from "../models/network.ts";
import type { GenerateSettings } from "./settings.ts";

/** One generation, as far as its process depends on it. */
export interface SamplingRun {
  readonly settings: GenerateSettings;
  /** One for each picture. */
  readonly seeds: readonly number[];
  /** Noise levels from the noisiest to the last. */
  readonly levels: readonly NoiseLevel[];
  /** Shape of the network's input: [count, channels, height, width], or [count, height, width] of tokens. */
  readonly shape: readonly number[];
  /** The image or frames to start from as the network sees them. */
  readonly given?: GivenLatents | undefined;
  /** True if the second half of the network's output channels is a variance. */
  readonly learnedVariance?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** What a drawing starts from; arrays are of the shape of the network's input. */
export interface GivenLatents {
  readonly latents: NdArray;
  /** Where it is 0, the latents are kept. */
  readonly mask: NdArray | undefined;
  /** Tokens that the network sees as they are, without noise. */
  readonly clean?: CleanTokens | undefined;
}

/** One network under the conditions that guidance compares. */
export interface GuidedNetworks {
  readonly conditional: Network;
  readonly unconditional: Network;
  /** The conditional network without the layers of `skipLayers`. */
  readonly weakened: Network;
}

export interface ProcessStep {
  /** Number of steps that are done, from 1. */
  readonly step: number;
  readonly steps: number;
  /** The current estimate of the result, for a preview. */
  readonly estimate: NdArray;
  /** What the next step begins with. */
  readonly x: NdArray;
}

/** The denoisers that guidance compares, each by itself. */
export interface SeparateDenoisers {
  readonly conditional: Denoiser;
  readonly unconditional: Denoiser;
  readonly weakened: Denoiser;
}

/** `Denoise` is the process's own kind of denoiser, which `denoise` makes and `step` asks. */
export interface SamplingProcess<Denoise = unknown> {
  readonly kind: "continuous" | "tokens";
  /** Name of the model's own sampler. */
  readonly sampler: string;
  /** What the network predicts; undefined for tokens. */
  readonly predicts?: Parameterization;
  /** Standard deviation of all noise in units of the levels' sigma; 1 unless given. */
  readonly noiseScale?: number;
  /** True if guidance is in the network, which then never draws without its condition. */
  readonly guidesItself?: boolean;
  /** @throws UsageError if there is no sampler of this name, with the nearest names */
  checkSampler(name: string): void;
  /**
   * Noise levels from the noisiest to the last, one more than steps.
   *
   * @throws UsageError if the schedule has no such number of steps, or no such shift
   */
  levels(steps: number, options: LevelOptions): readonly NoiseLevel[];
  /** What sampling begins with: noise, or the given image with as much noise as the first level has. */
  begin(run: SamplingRun): NdArray;
  /** A denoiser with guidance by the run's settings; where no guidance applies, the unconditional network is not run. */
  denoise(networks: GuidedNetworks, run: SamplingRun): Denoise;
  /** The denoisers before they are guided; absent for tokens. */
  separate?(networks: GuidedNetworks, run: SamplingRun): SeparateDenoisers;
  /** Takes x through all levels, yields after each step and returns the result. */
  step(denoise: Denoise, x: NdArray, run: SamplingRun): AsyncGenerator<ProcessStep, NdArray>;
}

/** What distinguishes one process of continuous numbers from another. */
export interface ContinuousProcessOptions {
  /** What the network predicts. */
  readonly parameterization: Parameterization;
  /** Keeps estimates of x0 in range. */
  readonly threshold?: Threshold | undefined;
  readonly sampler: string;
  /**
   * The sampler of a name.
   *
   * @param steps of the whole schedule; a run may go through its last levels only
   */
  readonly samplerNamed?: (name: string, steps: number) => Sampler;
  readonly levels: (steps: number, options: LevelOptions) => readonly NoiseLevel[];
  /** Standard deviation of the noise that sampling begins with; 1 unless given. */
  readonly start?: (first: NoiseLevel) => number;
  /** Standard deviation of all noise in units of the levels' sigma; 1 unless given. */
  readonly noiseScale?: number | undefined;
  /** True if the network predicts whole steps (see mean-flow.ts). */
  readonly meanFlow?: boolean;
  /** The least sigma with which the velocity of a network that predicts x0 is taken (see `withLowestTime`); none unless given. */
  readonly lowestTime?: number;
}

/** A process of continuous numbers: pixels in [−1, 1], or latents. */
export function continuousProcess({
  parameterization,
  threshold,
  sampler: ownSampler,
  samplerNamed: named = samplerNamed,
  levels,
  start = () => 1,
  noiseScale = 1,
  lowestTime,
  meanFlow = false,
}: ContinuousProcessOptions): SamplingProcess<Denoiser> {
  const separate = (networks: GuidedNetworks, run: SamplingRun): SeparateDenoisers => {
    const { levels: own, given, learnedVariance = false } = run;
    const { guidance } = run.settings;
    const denoiser = (network: Network) => {
      const shown = given?.clean ? withCleanTokens(network, given.latents, given.clean) : network;
      const bounded = lowestTime === undefined ? shown : withLowestTime(shown, lowestTime);
      return denoiserOf(bounded, parameterization, { learnedVariance });
    };
    const { conditional, unconditional, weakened } = networks;
    return {
      conditional: denoiser(
        meanFlow
          ? meanFlowNetwork(conditional, own, { guidance, interval: intervalOf(run) })
          : conditional,
      ),
      unconditional: denoiser(unconditional),
      weakened: denoiser(weakened),
    };
  };
  return {
    kind: "continuous",
    sampler: ownSampler,
    predicts: parameterization,
    noiseScale,
    checkSampler: (name) => void named(name, 1),
    levels,
    begin(run) {
      const noise = scaledNoise(run, noiseScale)("start", run.shape);
      const first = run.levels[0]!;
      return run.given
        ? combine([first.alpha, run.given.latents], [first.sigma, noise])
        : combine([start(first), noise]);
    },
    guidesItself: meanFlow,
    separate,
    denoise(networks, run) {
      const { settings, levels: own, given } = run;
      const { guidance, guidedChannels, rescale, skipLayers, steps } = settings;
      const { conditional, unconditional, weakened } = separate(networks, run);
      const combined = guided(conditional, unconditional, {
        scale: meanFlow ? 1 : guidance,
        channels: guidedChannels,
        interval: intervalOf(run),
        rescale: rescale === undefined ? undefined : { amount: rescale, parameterization },
        skipLayers: skipLayers && {
          scale: skipLayers.scale,
          weakened,
          interval: noiseOfSteps(own, steps, skipLayers),
        },
      });
      const inRange = threshold ? thresholded(combined, threshold) : combined;
      return given?.mask ? inpaint(inRange, given.latents, given.mask) : inRange;
    },
    async *step(denoise, x, run) {
      const { settings, levels: own, signal } = run;
      const sampler = named(settings.sampler, settings.steps);
      const sampling = sampler(denoise, x, own, { noise: scaledNoise(run, noiseScale), signal });
      return yield* mapSteps(sampling, ({ step, x: reached, x0 }) => ({
        step,
        steps: own.length - 1,
        estimate: x0,
        x: reached,
      }));
    },
  };
}

/** Noise of each picture's own seed, with a standard deviation. */
function scaledNoise({ seeds, settings }: SamplingRun, scale: number): NoiseSource {
  const own = keyedNoise(seeds.map((seed) => randomKey(seed)));
  const { sharedNoise = 0, seed: first } = settings;
  // The windows of a long clip have seeds of their own, but share this noise too.
  const common = keyedNoise(seeds.map((_, i) => fork(randomKey(first + i), "frames in common")));
  const unit = sharedNoise === 0 ? own : sharedByFrames(own, common, sharedNoise);
  return scale === 1 ? unit : (step, shape) => combine([scale, unit(step, shape)]);
}

function intervalOf({ settings: { guidanceInterval } }: SamplingRun) {
  return guidanceInterval && { above: guidanceInterval[0], upTo: guidanceInterval[1] };
}

/** Yields what `f` makes of each step, and returns what the steps return. */
export async function* mapSteps<S, T, R>(
  steps: AsyncGenerator<S, R>,
  f: (step: S) => T | Promise<T>,
): AsyncGenerator<T, R> {
  for (;;) {
    const next = await steps.next();
    if (next.done) return next.value;
    yield await f(next.value);
  }
}

/** The logarithm of a flow's time shift for a height and width of the network's input and a number of steps. */
export type MuAt = (size: readonly [height: number, width: number], steps: number) => number;

/** μ of a network, which depends on its tokens. */
export function muOf(network: NetworkConfig, mu: MuFor): MuAt {
  return (size, steps) => mu(familyOf(network).patches(network, size), steps);
}

/**
 * The process by which a network was trained.
 *
 * @param mu gives the shift in place of the recipe
 */
export function recipeProcess(recipe: Recipe, sampler: SamplerName, mu?: MuAt): SamplingProcess {
  return continuousProcess({
    parameterization: recipe.predicts,
    sampler,
    levels: (steps, { size, frames, shift = mu && Math.exp(mu(size, steps)) }) =>
      recipeLevels(recipe, steps, { size, frames, shift }),
    ...(recipe.process === "flow" && {
      noiseScale: recipe.noiseScale,
      ...(recipe.meanFlow && { meanFlow: true, samplerNamed: meanFlowSampler }),
    }),
  });
}

/** The name of our sampler for each of diffusers' schedulers. */
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

/** What a pipeline of diffusers gives its scheduler beside the number of steps. */
export interface PipelineSchedule {
  /** The logarithm of the time shift, for schedulers whose shift depends on the picture. */
  readonly mu?: MuAt | undefined;
  /** True if sigmas are evenly spaced from 1 to 1 / steps before the shift, as FLUX and Z-Image have them. */
  readonly evenSigmas?: boolean | undefined;
}

/**
 * The process of a scheduler of diffusers. Other samplers than the scheduler's own go through the scheduler's levels.
 *
 * @param pipeline what diffusers' pipeline gives the scheduler: sigmas that are evenly spaced before the shift, and the
 *   logarithm of the shift where it depends on the picture
 */
export function schedulerProcess(
  name: string,
  scheduler: DiffusersScheduler,
  { mu, evenSigmas }: PipelineSchedule = {},
): SamplingProcess {
  const { parameterization, threshold } = scheduler;
  const own = samplerOfScheduler[name] ?? name;
  return continuousProcess({
    parameterization,
    threshold,
    sampler: own,
    samplerNamed: (wanted, steps) =>
      wanted === own ? schedulerSampler(scheduler, steps) : samplerNamed(wanted),
    levels: (steps, { size, shift }) =>
      scheduler.levels(steps, {
        shift,
        evenSigmas,
        mu: shift === undefined ? mu?.(size, steps) : undefined,
      }),
    start: (first) => scheduler.start(first),
  });
}

/** Some schedulers aim each step at another level than the one at which the next step begins. */
export function schedulerSampler({ sampler, targets }: DiffusersScheduler, whole: number): Sampler {
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

/**
 * The process of a network of discrete tokens. The sigma of a level is the share of tokens that are noise.
 *
 * @param codebook number of tokens
 */
export function tokenProcess(
  recipe: TokenRecipe,
  codebook: number,
): SamplingProcess<TokenDenoiser> {
  const drawsOf = ({ seeds, shape }: SamplingRun) =>
    tokenDraws(
      seeds.map((seed) => randomKey(seed)),
      shape.slice(-2) as [number, number],
    );
  return {
    kind: "tokens",
    sampler: tokenSampler,
    checkSampler(name) {
      if (name === tokenSampler) return;
      throw new UsageError(
        `There is no sampler ${quote(name)} for tokens; give ${tokenSampler}, or leave it out.`,
      );
    },
    levels(steps, { shift }) {
      refuseShift(shift);
      return tokenLevels(recipe, steps);
    },
    begin: (run) => drawsOf(run).noise(codebook),
    denoise({ conditional, unconditional }, { settings: { guidance } }) {
      const denoiser =
        (network: Network): TokenDenoiser =>
        (tokens, share) =>
          network(tokens, tokenLevel(share));
      return guidedTokens(denoiser(conditional), denoiser(unconditional), guidance);
    },
    async *step(denoise, noise, run) {
      const { settings, levels, given, signal } = run;
      const sampling = sampleTokens(
        denoise,
        noise as NdArray<"int64">,
        {
          codebook,
          levels: levels.map(({ sigma }) => sigma),
          temperature: settings.temperature,
          known: given && { tokens: given.latents as NdArray<"int64">, mask: given.mask },
          signal,
        },
        drawsOf(run),
      );
      return yield* mapSteps(sampling, ({ step, steps, drawn }) => ({
        step,
        steps,
        estimate: drawn,
        x: drawn,
      }));
    },
  };
}
