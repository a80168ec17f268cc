/**
 * The options of diffusers' schedulers. As in diffusers, a config may also hold options of other schedulers, which it keeps when
 * one scheduler is made of another's config, and which have no effect.
 */
import { FormatError } from "../../engine/errors.ts";
import type { FieldReader } from "../../weights/config-fields.ts";

const table = ["num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas"];
const spacing = ["prediction_type", "timestep_spacing", "steps_offset"];
const threshold = ["thresholding", "dynamic_thresholding_ratio", "sample_max_value"];
const clip = ["clip_sample", "clip_sample_range"];
const sigmas = ["use_karras_sigmas", "use_exponential_sigmas", "final_sigmas_type"];
const solver = ["solver_order", "solver_type", "lower_order_final"];
const flow = ["use_flow_sigmas", "flow_shift"];
const zeroSNR = "rescale_betas_zero_snr";
const multistep = [...table, ...spacing, ...threshold, ...sigmas, ...solver, ...flow, zeroSNR];
/** Options that have no effect without "use_dynamic_shifting". */
const dynamic = ["base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len"];

interface Options {
  /** Options that the scheduler uses. */
  readonly read: readonly string[];
  /** Options that are supported with these values alone, and null. */
  readonly only?: Readonly<Record<string, readonly (string | number | boolean)[]>>;
}

export const schedulerOptions = {
  DDPMScheduler: { read: [...table, ...spacing, ...threshold, ...clip, zeroSNR, "variance_type"] },
  DDIMScheduler: {
    read: [...table, ...spacing, ...threshold, ...clip, zeroSNR, "set_alpha_to_one"],
  },
  EulerDiscreteScheduler: {
    read: [...table, ...spacing, ...sigmas, zeroSNR, "sigma_min", "sigma_max"],
    only: {
      interpolation_type: ["linear"],
      timestep_type: ["discrete"],
      use_beta_sigmas: [false],
    },
  },
  EulerAncestralDiscreteScheduler: { read: [...table, ...spacing, zeroSNR] },
  HeunDiscreteScheduler: {
    read: [...table, ...spacing, ...clip, "use_karras_sigmas", "use_exponential_sigmas"],
    only: { use_beta_sigmas: [false] },
  },
  DPMSolverMultistepScheduler: {
    read: [
      ...multistep,
      "algorithm_type",
      "euler_at_final",
      "use_lu_lambdas",
      "lambda_min_clipped",
    ],
    only: {
      use_beta_sigmas: [false],
      use_dynamic_shifting: [false],
      // A learned variance is split off before the scheduler sees the answer.
      variance_type: [
        "fixed_small",
        "fixed_small_log",
        "fixed_large",
        "fixed_large_log",
        "learned",
        "learned_range",
      ],
    },
  },
  UniPCMultistepScheduler: {
    read: [...multistep, "disable_corrector", "sigma_min", "sigma_max", "shift_terminal"],
    only: {
      use_beta_sigmas: [false],
      use_dynamic_shifting: [false],
      predict_x0: [true],
      solver_p: [],
    },
  },
  FlowMatchEulerDiscreteScheduler: {
    read: [
      "num_train_timesteps",
      "shift",
      "shift_terminal",
      "use_karras_sigmas",
      "use_exponential_sigmas",
      "use_dynamic_shifting",
      "time_shift_type",
      ...dynamic,
    ],
    only: { use_beta_sigmas: [false], invert_sigmas: [false], stochastic_sampling: [false] },
  },
} as const satisfies Readonly<Record<string, Options>>;

/** Options of schedulers that are not in the table. */
const others = [
  "eta",
  "rho",
  "s_noise",
  "sigma_data",
  "sigma_schedule",
  "skip_prk_steps",
  "snr_shift_scale",
  "original_inference_steps",
  "timestep_scaling",
  "corrector_order",
  "predictor_order",
  "tau_func",
  "noise_sampler_seed",
  "gamma",
  "stages",
  "stage_range",
  "scheduler_type",
  "scale_factors",
  "upscale_mode",
  "clip_denoised",
  "sampling_eps",
  "snr",
];

/** Ways to space the noise of which a config can have one. */
const spacings = [
  "use_karras_sigmas",
  "use_exponential_sigmas",
  "use_lu_lambdas",
  "use_flow_sigmas",
];

/**
 * A reader for the options of one scheduler; those of others are absent to it.
 *
 * @throws FormatError if an option is not supported, or is of no scheduler
 */
export function ownOptions(name: keyof typeof schedulerOptions, read: FieldReader): FieldReader {
  const { read: own, only = {} }: Options = schedulerOptions[name];
  for (const [option, values] of Object.entries(only)) read.only(option, ...values);
  const known = Object.values<Options>(schedulerOptions).flatMap((each) => [
    ...each.read,
    ...Object.keys(each.only ?? {}),
  ]);
  // What is off changes nothing, whatever it is.
  const unknown = read.all.find(
    (each) =>
      !known.includes(each) && !others.includes(each) && !each.startsWith("_") && !read.isOff(each),
  );
  if (unknown !== undefined) {
    throw new FormatError(
      `${read.file} has ${JSON.stringify(unknown)}, which is no option of diffusers' schedulers that is known, and may change the picture; take it out if it does not.`,
    );
  }
  const reader = read.among(own);
  const chosen = spacings.filter((each) => own.includes(each) && reader.flag(each, false));
  if (chosen.length > 1) {
    throw new FormatError(
      `${read.file} has both ${JSON.stringify(chosen[0])} and ${JSON.stringify(chosen[1])}; keep one of them.`,
    );
  }
  const endsEarly = reader.has("final_sigmas_type") && reader.text("final_sigmas_type") !== "zero";
  if (name === "UniPCMultistepScheduler" && chosen.includes("use_flow_sigmas") && endsEarly) {
    throw new FormatError(
      `${read.file} has "final_sigmas_type" = ${JSON.stringify(reader.text("final_sigmas_type"))} with "use_flow_sigmas", so that the last step would lead nowhere; set it to "zero".`,
    );
  }
  return reader;
}
