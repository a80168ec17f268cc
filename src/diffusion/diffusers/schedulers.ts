/**
 * Diffusers' schedulers, from the `scheduler_config.json` of a model folder, as noise levels and one of our samplers. Their
 * tables are computed in float32 as in diffusers, because models were trained with them.
 */
import { FormatError, nearestNames, UsageError } from "../../engine/errors.ts";
import type { NdArray } from "../../engine/arrays/ndarray.ts";
import type { FieldReader } from "../../weights/config-fields.ts";
import type { Denoiser } from "../denoiser.ts";
import {
  diffusersTables,
  flowMatchLevels,
  multistepLevels,
  noisiestFirst,
  pointwiseLevels,
  singleStepTimes,
  unipcFlowLevels,
} from "./levels.ts";
import { clean, type NoiseLevel, refuseShift } from "../levels.ts";
import type { Parameterization } from "../parameterization.ts";
import { ownOptions, type schedulerOptions } from "./options.ts";
import { ddim, euler, eulerAncestral } from "../samplers/ddim.ts";
import { ddpm } from "../samplers/ddpm.ts";
import { dpmSolver } from "../samplers/dpm-solver.ts";
import { exploding, heun } from "../samplers/heun.ts";
import type { Sampler } from "../samplers/sampler.ts";
import { unipc } from "../samplers/unipc.ts";
import { levelOf } from "../schedule.ts";
import { timestepSpacings } from "../timesteps.ts";
import type { Threshold } from "../thresholding.ts";

export interface DiffusersScheduler {
  /** What the model predicts. */
  readonly parameterization: Parameterization;
  /** Keeps estimates of x0 in range. */
  readonly threshold?: Threshold | undefined;
  readonly sampler: Sampler;
  /**
   * Noise levels for a number of steps, and the last level.
   *
   * @param options.mu logarithm of the shift, for configs whose shift depends on the image size
   * @param options.shift replaces the config's
   * @throws UsageError if there are fewer steps, or a shift is given for levels that are not a flow's
   */
  levels(steps: number, options?: SchedulerLevelOptions): NoiseLevel[];
  /** Standard deviation of the noise that sampling starts with, at the scale of the network's input. */
  start(first: NoiseLevel): number;
  /** True if diffusers' samples are x / alpha instead of x. */
  readonly exploding: boolean;
  /** Deviation of the noise that its last step from a level adds to the images, if it adds any. */
  readonly leftover?: (last: NoiseLevel) => number;
  /** True if it lists the inner levels twice, since it runs the network twice at each. */
  readonly twice?: boolean;
  /** The level at which each step ends, for the one scheduler where this is not the next level. */
  readonly targets?: (steps: number) => NoiseLevel[];
}

export interface SchedulerLevelOptions {
  /** Spaces the sigmas of a flow evenly from 1 to 1 / steps before the shift, instead of to the last time of training. */
  readonly evenSigmas?: boolean | undefined;
  /** The logarithm of the shift, for configs whose shift depends on the size of the picture. */
  readonly mu?: number | undefined;
  /** The shift of times, above 0; that of the scheduler's config unless given. */
  readonly shift?: number | undefined;
}

/** The arguments of a call of `step` besides the images. */
export interface StepArguments {
  readonly eta?: number;
  readonly keepNoise?: boolean;
}

type Build = (read: FieldReader, step: StepArguments) => DiffusersScheduler;

const builders: Readonly<Record<keyof typeof schedulerOptions, Build>> = {
  DDPMScheduler: ddpmScheduler,
  DDIMScheduler: ddimScheduler,
  EulerDiscreteScheduler: (read) => eulerScheduler(read, euler),
  EulerAncestralDiscreteScheduler: (read) => eulerScheduler(read, eulerAncestral),
  HeunDiscreteScheduler: heunScheduler,
  DPMSolverMultistepScheduler: dpmSolverScheduler,
  UniPCMultistepScheduler: unipcScheduler,
  FlowMatchEulerDiscreteScheduler: flowMatchScheduler,
};

export const diffusersSchedulerNames: readonly string[] = Object.keys(builders);

/**
 * @param name of the class, `_class_name` of the config
 * @throws FormatError if the scheduler or the value of a field is not supported
 */
export function diffusersScheduler(
  name: string,
  read: FieldReader,
  step: StepArguments = {},
): DiffusersScheduler {
  if (!isSchedulerName(name)) {
    const near = nearestNames(name, diffusersSchedulerNames);
    throw new FormatError(
      `${read.file} names the scheduler ${JSON.stringify(name)}, which is not known; ${near.length > 0 ? `nearest are ${near.join(", ")}` : `known are ${diffusersSchedulerNames.join(", ")}`}.`,
    );
  }
  const built = builders[name](ownOptions(name, read), step);
  if (name === "FlowMatchEulerDiscreteScheduler") return built;
  return {
    ...built,
    levels(steps, { shift } = {}) {
      refuseShift(shift);
      return built.levels(steps);
    },
  };
}

function isSchedulerName(name: string): name is keyof typeof schedulerOptions {
  return Object.hasOwn(builders, name);
}

const predictions = {
  epsilon: "epsilon",
  sample: "x0",
  v_prediction: "v",
  flow_prediction: "flow",
} as const satisfies Record<string, Parameterization>;

function parameterizationOf(read: FieldReader): Parameterization {
  const names = Object.keys(predictions) as (keyof typeof predictions)[];
  return predictions[read.choice("prediction_type", names, "epsilon")];
}

function thresholdOf(
  read: FieldReader,
  { clip, keepNoise = false }: { readonly clip: boolean; readonly keepNoise?: boolean },
): Threshold | undefined {
  if (read.flag("thresholding", false)) {
    const quantile = read.number("dynamic_thresholding_ratio", 0.995);
    return { kind: "dynamic", quantile, most: read.number("sample_max_value", 1), keepNoise };
  }
  if (!read.flag("clip_sample", clip)) return undefined;
  return { kind: "static", range: read.number("clip_sample_range", 1), keepNoise };
}

const unit = () => 1;

function ddpmScheduler(read: FieldReader): DiffusersScheduler {
  const tables = diffusersTables(read);
  const variances = {
    fixed_small: "small",
    fixed_small_log: "small",
    fixed_large: "large",
    learned_range: "learned",
  } as const;
  const kinds = Object.keys(variances) as (keyof typeof variances)[];
  const variance = variances[read.choice("variance_type", kinds, "fixed_small")];
  return {
    parameterization: parameterizationOf(read),
    threshold: thresholdOf(read, { clip: true }),
    sampler: (denoise, x, levels, options) => ddpm(denoise, x, levels, { ...options, variance }),
    levels: (steps) => noisiestFirst(tables, singleStepTimes(read, steps, "leading"), clean),
    start: unit,
    exploding: false,
    // Only a step from time 0 adds no noise. At the end β̃ is 0 anyway, but β is not.
    leftover: ({ time, sigma }) => (variance === "large" && time > 0 ? sigma : 0),
  };
}

function ddimScheduler(read: FieldReader, { eta = 0, keepNoise = true }: StepArguments) {
  const tables = diffusersTables(read);
  const { alphaBars, trainSteps } = tables;
  const end = read.flag("set_alpha_to_one", true) ? clean : levelOf(0, alphaBars[0]!);
  const times = (steps: number) => singleStepTimes(read, steps, "leading");
  return {
    parameterization: parameterizationOf(read),
    threshold: thresholdOf(read, { clip: true, keepNoise }),
    sampler: (denoise: Denoiser, x: NdArray, levels: readonly NoiseLevel[], options) =>
      ddim(denoise, x, levels, { ...options, eta }),
    levels: (steps) => noisiestFirst(tables, times(steps), end),
    start: unit,
    exploding: false,
    // It goes back by a fixed stride, even if the spacing has another.
    targets: (steps) =>
      times(steps).map((time) => {
        const target = time - Math.floor(trainSteps / steps);
        return target < 0 ? end : levelOf(target, alphaBars[target]!);
      }),
  } satisfies DiffusersScheduler;
}

/** With "leading" times, sampling starts with more noise than the first level has. */
function explodingStart(read: FieldReader) {
  const leading = read.choice("timestep_spacing", timestepSpacings, "linspace") === "leading";
  return ({ sigma }: NoiseLevel) => (leading ? 1 : sigma);
}

function eulerScheduler(read: FieldReader, sampler: Sampler): DiffusersScheduler {
  const tables = diffusersTables(read, { lowest: true });
  return {
    parameterization: parameterizationOf(read),
    sampler,
    levels: (steps) => pointwiseLevels(read, tables, steps),
    start: explodingStart(read),
    exploding: true,
  };
}

function heunScheduler(read: FieldReader): DiffusersScheduler {
  const tables = diffusersTables(read, { start: 0.00085, end: 0.012 });
  return {
    parameterization: parameterizationOf(read),
    threshold: thresholdOf(read, { clip: false }),
    sampler: exploding(heun),
    twice: true,
    levels: (steps) => pointwiseLevels(read, tables, steps),
    start: explodingStart(read),
    exploding: true,
  };
}

function dpmSolverScheduler(read: FieldReader): DiffusersScheduler {
  const tables = diffusersTables(read, { lowest: true });
  const algorithms = ["dpmsolver++", "sde-dpmsolver++"] as const;
  const algorithm = read.choice("algorithm_type", algorithms, "dpmsolver++");
  const solvers = ["midpoint", "heun", "logrho", "bh1", "bh2"] as const;
  const settings = {
    order: read.count("solver_order", 2),
    stochastic: algorithm === "sde-dpmsolver++",
    integration: read.choice("solver_type", solvers, "midpoint") === "heun" ? "heun" : "midpoint",
    lowerOrderFinal: read.flag("lower_order_final", true),
    eulerAtFinal: read.flag("euler_at_final", false),
  } as const;
  const rounding = read.text("beta_schedule", "linear") === "squaredcos_cap_v2" ? "down" : "near";
  const levels = (steps: number) => multistepLevels(read, tables, steps, rounding);
  return multistep(read, levels, (denoise, x, own, options) =>
    dpmSolver(denoise, x, own, { ...options, ...settings }),
  );
}

function unipcScheduler(read: FieldReader): DiffusersScheduler {
  const tables = diffusersTables(read, { lowest: true });
  const solvers = ["bh1", "bh2", "midpoint", "heun", "logrho"] as const;
  const settings = {
    order: read.count("solver_order", 2),
    variant: read.choice("solver_type", solvers, "bh2") === "bh1" ? "bh1" : "bh2",
    lowerOrderFinal: read.flag("lower_order_final", true),
    uncorrected: read.numbers("disable_corrector", []),
  } as const;
  const levels = (steps: number) =>
    read.flag("use_flow_sigmas", false)
      ? unipcFlowLevels(read, steps)
      : multistepLevels(read, tables, steps, "near");
  return multistep(read, levels, (denoise, x, own, options) =>
    unipc(denoise, x, own, { ...options, ...settings }),
  );
}

function multistep(
  read: FieldReader,
  levels: DiffusersScheduler["levels"],
  sampler: Sampler,
): DiffusersScheduler {
  const parameterization = parameterizationOf(read);
  if (parameterization === "flow" && !read.flag("use_flow_sigmas", false)) {
    throw new FormatError(
      `${read.file} has "prediction_type" = "flow_prediction" without "use_flow_sigmas", which fit no process; set "use_flow_sigmas" to true.`,
    );
  }
  return {
    parameterization,
    threshold: thresholdOf(read, { clip: false }),
    sampler,
    levels,
    start: unit,
    exploding: false,
  };
}

function flowMatchScheduler(read: FieldReader): DiffusersScheduler {
  return {
    parameterization: "flow",
    sampler: euler,
    levels(steps, { mu: given, shift, evenSigmas = false } = {}) {
      const dynamic = read.flag("use_dynamic_shifting", false);
      const isLinear =
        read.choice("time_shift_type", ["exponential", "linear"], "exponential") === "linear";
      const told = given === undefined || isLinear ? given : Math.exp(given);
      const own = dynamic ? (told ?? shift) : undefined;
      if (own === undefined && dynamic) {
        throw new UsageError(
          `${read.file} says that the shift depends on the image; give one with --shift (shift), such as 3.`,
        );
      }
      return flowMatchLevels(read, steps, { dynamic: own, given: shift, evenSigmas });
    },
    start: unit,
    exploding: false,
  };
}
