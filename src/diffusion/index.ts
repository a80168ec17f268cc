/**
 * Diffusion apart from any network: noise levels, what networks predict, losses as graphs, samplers, guidance.
 */
export {
  type Conditions,
  splitAcrossCopies,
  type Denoised,
  type Denoiser,
  denoiserOf,
  type Network,
  type RunRows,
  batchedNetwork,
} from "./denoiser.ts";
export {
  type DiffusersScheduler,
  diffusersScheduler,
  diffusersSchedulerNames,
  type SchedulerLevelOptions,
  type StepArguments,
} from "./diffusers/schedulers.ts";
export {
  cosineLevels,
  cosineShare,
  evenLevels,
  guidedTokens,
  isNoise,
  noiseTokens,
  noiseWeightedLoss,
  type TokenDenoiser,
  tokenLoss,
  type AnyRecipe,
} from "./discrete/discrete.ts";
export { type Guidance, guided } from "./guidance.ts";
export { inpaint, type CleanTokens } from "./inpainting.ts";
export {
  clean,
  flowLevels,
  type FlowOptions,
  karrasLevels,
  type KarrasOptions,
  logRatio,
  type NoiseInterval,
  type NoiseLevel,
  noiseOfSteps,
  noiseRatio,
  sd3Levels,
  type Shift,
  shiftAt,
  shiftTime,
  straight,
  variancePreserving,
} from "./levels.ts";
export {
  type Example,
  flowLevel,
  noised,
  perImage,
  regressionLoss,
  type RegressionOptions,
  type Weighting,
} from "./losses.ts";
export { keyedNoise, type NoiseSource, torchNoise } from "./noise.ts";
export {
  type Parameterization,
  parameterizations,
  type SignalAndNoise,
  targetOf,
  x0Of,
} from "./parameterization.ts";
export { type DiffusionProcess, diffusionProcess, levelsOf, respaced } from "./process.ts";
export { ddim, type DDIMOptions, euler, eulerAncestral } from "./samplers/ddim.ts";
export { ddpm, type DDPMOptions } from "./samplers/ddpm.ts";
export {
  dpmSolver,
  dpmSolver2M,
  dpmSolver2MSDE,
  dpmSolver2MSigma,
  dpmSolver3M,
  type DPMSolverOptions,
} from "./samplers/dpm-solver.ts";
export { exploding, heun } from "./samplers/heun.ts";
export { type SamplerName, samplerNamed, samplers } from "./samplers/index.ts";
export {
  finalImages,
  type Sampler,
  type SamplerOptions,
  type SampleStep,
} from "./samplers/sampler.ts";
export { unipc, type UniPCOptions } from "./samplers/unipc.ts";
export {
  alphaBarsOf,
  type BetaSchedule,
  betasOf,
  levelsAt,
  zeroTerminalSNR,
  type Rounding,
} from "./schedule.ts";
export { type Threshold, thresholded } from "./thresholding.ts";
export {
  respacedTimesteps,
  spacedTimesteps,
  type SpacingOptions,
  type TimestepSpacing,
} from "./timesteps.ts";
export {
  type KeyedTokenDraws,
  type KnownTokens,
  pickByShare,
  sampleTokens,
  type TokenDraws,
  tokenDraws,
  type TokenSampling,
  type TokenStep,
  type Typical,
} from "./discrete/token-sampling.ts";
export {
  flowTimes,
  type FlowTimesOptions,
  type TimeDistribution,
  uniformSteps,
} from "./training-times.ts";
export {
  boundTerm,
  type DiscreteExample,
  exampleAt,
  hybridLoss,
  type HybridLoss,
  type HybridOptions,
  processLevel,
  type StepVariance,
} from "./variational-bound.ts";
export type { LevelOptions } from "./recipe.ts";
export type { MuFor } from "./resolution-shift.ts";
export type { CacheCount } from "./step-cache.ts";
