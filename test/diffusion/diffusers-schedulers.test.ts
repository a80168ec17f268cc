import { describe, expect, it } from "vitest";
import { schedulerOptions } from "../../src/diffusion/diffusers/options.ts";
import { diffusersScheduler } from "../../src/diffusion/diffusers/schedulers.ts";
import { exponentialRatios, variancePreserving } from "../../src/diffusion/levels.ts";
import { ddim } from "../../src/diffusion/samplers/ddim.ts";
import { finalImages } from "../../src/diffusion/samplers/sampler.ts";
import { unipc } from "../../src/diffusion/samplers/unipc.ts";
import { FormatError } from "../../src/engine/errors.ts";
import { ndarray, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { fieldReader } from "../../src/weights/config-fields.ts";
import { parsedJson } from "../../src/weights/sources/folder.ts";
import { mixtureDenoiser } from "../support/gaussian-mixture.ts";

const scheduler = (name: string, fields: Readonly<Record<string, unknown>>) =>
  diffusersScheduler(name, fieldReader("scheduler_config.json", fields));

describe("trained_betas", () => {
  const betas = [0.1, 0.2, 0.3, 0.4];

  it("replace the schedule", () => {
    const ddpm = scheduler("DDPMScheduler", { num_train_timesteps: 4, trained_betas: betas });
    let alphaBar = 1;
    const alphas = betas.map((beta) => Math.sqrt((alphaBar *= 1 - beta)));
    const got = ddpm.levels(4).map(({ alpha }) => alpha);
    for (const [i, alpha] of [...alphas.toReversed(), 1].entries()) {
      expect(got[i]).toBeCloseTo(alpha, 6);
    }
  });

  it("must have one for each step", () => {
    const wrong = () => scheduler("DDIMScheduler", { trained_betas: betas });
    expect(wrong).toThrow(FormatError);
    expect(wrong).toThrow("4 trained_betas for 1000 steps");
  });
});

describe("UniPC without its corrector", () => {
  const denoise = mixtureDenoiser([
    { weight: 0.3, mean: -1.2, std: 0.3 },
    { weight: 0.7, mean: 0.8, std: 0.5 },
  ]);
  const x = ndarray("float64", [3, 1], [-2, 0.5, 1.5]);
  const levels = exponentialRatios(9, 20, 0.1).map((ratio) => variancePreserving(ratio, ratio));
  const all = Array.from(levels, (_, i) => i);

  it("is DDIM at order 1", async () => {
    const plain = toNumbers(await finalImages(ddim(denoise, x, levels)));
    const options = { order: 1, uncorrected: all };
    const got = toNumbers(await finalImages(unipc(denoise, x, levels, options)));
    for (const [i, value] of plain.entries()) expect(got[i]).toBeCloseTo(value, 10);
    const corrected = toNumbers(await finalImages(unipc(denoise, x, levels, { order: 1 })));
    expect(Math.abs(corrected[0]! - plain[0]!)).toBeGreaterThan(1e-4);
  });

  it("is used for the steps of disable_corrector", async () => {
    const fields = { disable_corrector: all, solver_order: 1 };
    const { sampler } = scheduler("UniPCMultistepScheduler", fields);
    const got = toNumbers(await finalImages(sampler(denoise, x, levels)));
    const plain = toNumbers(await finalImages(ddim(denoise, x, levels)));
    for (const [i, value] of plain.entries()) expect(got[i]).toBeCloseTo(value, 10);
  });
});

type Fields = Readonly<Record<string, unknown>>;

/** Everything that a config can change: the levels, how sampling starts, and the images. */
async function behaviour(name: string, fields: Fields): Promise<string> {
  const own = scheduler(name, fields);
  const levels = own.levels(6);
  const denoise = mixtureDenoiser([
    { weight: 0.3, mean: -3, std: 0.3 },
    { weight: 0.7, mean: 2, std: 0.5 },
  ]);
  const x = ndarray("float64", [3, 1], [-2, 0.5, 1.5]);
  const noise = () => ndarray("float64", [3, 1], [0.3, -1, 0.2]);
  const images = toNumbers(await finalImages(own.sampler(denoise, x, levels, { noise })));
  return JSON.stringify([own, levels, own.start(levels[0]!), images]);
}

describe("every option of a scheduler", () => {
  const flow = { use_flow_sigmas: true, prediction_type: "flow_prediction" };
  const dynamic = { thresholding: true };
  /** For each option another value than the default's, and the options without which it has no effect. */
  const changed: Readonly<Record<string, readonly [unknown, Fields?]>> = {
    num_train_timesteps: [500],
    beta_start: [0.0005],
    beta_end: [0.03],
    beta_schedule: ["squaredcos_cap_v2"],
    trained_betas: [Array.from({ length: 1000 }, (_, i) => 0.0001 + i * 0.00001)],
    prediction_type: ["v_prediction"],
    timestep_spacing: ["trailing"],
    steps_offset: [1, { timestep_spacing: "leading" }],
    thresholding: [true],
    dynamic_thresholding_ratio: [0.5, dynamic],
    sample_max_value: [3, dynamic],
    clip_sample: [false],
    clip_sample_range: [2, { clip_sample: true }],
    rescale_betas_zero_snr: [true, { timestep_spacing: "trailing" }],
    variance_type: ["fixed_large"],
    set_alpha_to_one: [false],
    use_karras_sigmas: [true],
    use_exponential_sigmas: [true],
    final_sigmas_type: ["sigma_min"],
    sigma_min: [0.1, { use_karras_sigmas: true }],
    sigma_max: [5, { use_karras_sigmas: true }],
    solver_order: [1],
    solver_type: ["heun"],
    lower_order_final: [false, { solver_order: 3 }],
    use_flow_sigmas: [true],
    flow_shift: [2, flow],
    algorithm_type: ["sde-dpmsolver++"],
    euler_at_final: [true, { final_sigmas_type: "sigma_min", lower_order_final: false }],
    use_lu_lambdas: [true],
    lambda_min_clipped: [-2],
    disable_corrector: [[2]],
    shift_terminal: [0.1, { ...flow, shift_terminal: null }],
    shift: [2],
  };
  const own: Readonly<Record<string, Fields>> = {
    HeunDiscreteScheduler: { clip_sample: [true] },
    UniPCMultistepScheduler: { solver_type: ["bh1"] },
    EulerDiscreteScheduler: {},
  };
  /** Without effect unless the shift depends on the image, which is refused. */
  const inert = /^(base|max)_(shift|image_seq_len)$|^time_shift_type$|^use_dynamic_shifting$/;
  const rows = Object.entries(schedulerOptions).flatMap(([name, options]) =>
    options.read.filter((option) => !inert.test(option)).map((option) => [name, option] as const),
  );

  it.each(rows)("of %s counts: %s", async (name, option) => {
    const [value, context = {}] = (own[name]?.[option] ?? changed[option]!) as readonly [
      unknown,
      Fields?,
    ];
    const before = await behaviour(name, context);
    const after = await behaviour(name, { ...context, [option]: value });
    expect(after).not.toBe(before);
  });

  it("that makes the shift depend on the image asks for a shift", async () => {
    const run = behaviour("FlowMatchEulerDiscreteScheduler", { use_dynamic_shifting: true });
    await expect(run).rejects.toThrow("--shift");
  });

  const fixed = Object.entries(schedulerOptions as Record<string, { only?: object }>).flatMap(
    ([name, { only = {} }]) => Object.keys(only).map((option) => [name, option] as const),
  );
  it.each(fixed)("of %s is refused by name where it is not supported: %s", (name, option) => {
    const value = { predict_x0: false, variance_type: "other", solver_p: {} }[option] ?? true;
    expect(() => scheduler(name, { [option]: value })).toThrow(FormatError);
    expect(() => scheduler(name, { [option]: value })).toThrow(`"${option}"`);
  });

  /** The arguments of the constructors in diffusers (commit 58eb52c, August 2026), and their defaults. */
  const constructors: Readonly<
    Record<keyof typeof schedulerOptions, Readonly<Record<string, unknown>>>
  > = {
    DDPMScheduler: {
      num_train_timesteps: 1000,
      beta_start: 0.0001,
      beta_end: 0.02,
      beta_schedule: "linear",
      trained_betas: null,
      variance_type: "fixed_small",
      clip_sample: true,
      prediction_type: "epsilon",
      thresholding: false,
      dynamic_thresholding_ratio: 0.995,
      clip_sample_range: 1.0,
      sample_max_value: 1.0,
      timestep_spacing: "leading",
      steps_offset: 0,
      rescale_betas_zero_snr: false,
    },
    DDIMScheduler: {
      num_train_timesteps: 1000,
      beta_start: 0.0001,
      beta_end: 0.02,
      beta_schedule: "linear",
      trained_betas: null,
      clip_sample: true,
      set_alpha_to_one: true,
      steps_offset: 0,
      prediction_type: "epsilon",
      thresholding: false,
      dynamic_thresholding_ratio: 0.995,
      clip_sample_range: 1.0,
      sample_max_value: 1.0,
      timestep_spacing: "leading",
      rescale_betas_zero_snr: false,
    },
    EulerDiscreteScheduler: {
      num_train_timesteps: 1000,
      beta_start: 0.0001,
      beta_end: 0.02,
      beta_schedule: "linear",
      trained_betas: null,
      prediction_type: "epsilon",
      interpolation_type: "linear",
      use_karras_sigmas: false,
      use_exponential_sigmas: false,
      use_beta_sigmas: false,
      sigma_min: null,
      sigma_max: null,
      timestep_spacing: "linspace",
      timestep_type: "discrete",
      steps_offset: 0,
      rescale_betas_zero_snr: false,
      final_sigmas_type: "zero",
    },
    EulerAncestralDiscreteScheduler: {
      num_train_timesteps: 1000,
      beta_start: 0.0001,
      beta_end: 0.02,
      beta_schedule: "linear",
      trained_betas: null,
      prediction_type: "epsilon",
      timestep_spacing: "linspace",
      steps_offset: 0,
      rescale_betas_zero_snr: false,
    },
    HeunDiscreteScheduler: {
      num_train_timesteps: 1000,
      beta_start: 0.00085,
      beta_end: 0.012,
      beta_schedule: "linear",
      trained_betas: null,
      prediction_type: "epsilon",
      use_karras_sigmas: false,
      use_exponential_sigmas: false,
      use_beta_sigmas: false,
      clip_sample: false,
      clip_sample_range: 1.0,
      timestep_spacing: "linspace",
      steps_offset: 0,
    },
    DPMSolverMultistepScheduler: {
      num_train_timesteps: 1000,
      beta_start: 0.0001,
      beta_end: 0.02,
      beta_schedule: "linear",
      trained_betas: null,
      solver_order: 2,
      prediction_type: "epsilon",
      thresholding: false,
      dynamic_thresholding_ratio: 0.995,
      sample_max_value: 1.0,
      algorithm_type: "dpmsolver++",
      solver_type: "midpoint",
      lower_order_final: true,
      euler_at_final: false,
      use_karras_sigmas: false,
      use_exponential_sigmas: false,
      use_beta_sigmas: false,
      use_lu_lambdas: false,
      use_flow_sigmas: false,
      flow_shift: 1.0,
      final_sigmas_type: "zero",
      lambda_min_clipped: -Infinity,
      variance_type: null,
      timestep_spacing: "linspace",
      steps_offset: 0,
      rescale_betas_zero_snr: false,
      use_dynamic_shifting: false,
      time_shift_type: "exponential",
    },
    UniPCMultistepScheduler: {
      num_train_timesteps: 1000,
      beta_start: 0.0001,
      beta_end: 0.02,
      beta_schedule: "linear",
      trained_betas: null,
      solver_order: 2,
      prediction_type: "epsilon",
      thresholding: false,
      dynamic_thresholding_ratio: 0.995,
      sample_max_value: 1.0,
      predict_x0: true,
      solver_type: "bh2",
      lower_order_final: true,
      disable_corrector: [],
      solver_p: null,
      use_karras_sigmas: false,
      use_exponential_sigmas: false,
      use_beta_sigmas: false,
      use_flow_sigmas: false,
      flow_shift: 1.0,
      timestep_spacing: "linspace",
      steps_offset: 0,
      final_sigmas_type: "zero",
      rescale_betas_zero_snr: false,
      use_dynamic_shifting: false,
      time_shift_type: "exponential",
      sigma_min: null,
      sigma_max: null,
      shift_terminal: null,
    },
    FlowMatchEulerDiscreteScheduler: {
      num_train_timesteps: 1000,
      shift: 1.0,
      use_dynamic_shifting: false,
      base_shift: 0.5,
      max_shift: 1.15,
      base_image_seq_len: 256,
      max_image_seq_len: 4096,
      invert_sigmas: false,
      shift_terminal: null,
      use_karras_sigmas: false,
      use_exponential_sigmas: false,
      use_beta_sigmas: false,
      time_shift_type: "exponential",
      stochastic_sampling: false,
    },
  };
  it.each(Object.entries(constructors))(
    "of %s is known, with diffusers' default",
    async (name, defaults) => {
      const { read, only = {} } = (
        schedulerOptions as Record<string, { read: readonly string[]; only?: object }>
      )[name]!;
      const passed = Object.keys(defaults).filter(
        (option) => ![...read, ...Object.keys(only)].includes(option),
      );
      // Without effect where "use_dynamic_shifting" is refused.
      expect(
        passed.filter(
          (option) => option !== "time_shift_type" || !("use_dynamic_shifting" in only),
        ),
      ).toEqual([]);
      expect(await behaviour(name, defaults)).toBe(await behaviour(name, {}));
      for (const [option, value] of Object.entries(defaults)) {
        expect(await behaviour(name, { [option]: value })).toBe(await behaviour(name, {}));
      }
    },
  );

  it("is passed over if it is of another scheduler, and refused if it is of none", async () => {
    const others = { sigma_min: 0.1, final_sigmas_type: "sigma_min", use_lu_lambdas: true, eta: 1 };
    for (const name of ["HeunDiscreteScheduler", "EulerAncestralDiscreteScheduler"]) {
      expect(await behaviour(name, others)).toBe(await behaviour(name, {}));
    }
    const unknown = () => scheduler("DDIMScheduler", { use_new_sigmas: true });
    expect(unknown).toThrow('"use_new_sigmas", which is no option');
    expect(() => scheduler("DDIMScheduler", { use_new_sigmas: false })).not.toThrow();
  });

  it("is refused where it contradicts another", () => {
    const both = { use_karras_sigmas: true, use_flow_sigmas: true };
    expect(() => scheduler("DPMSolverMultistepScheduler", both)).toThrow("keep one of them");
    const bare = { prediction_type: "flow_prediction" };
    expect(() => scheduler("UniPCMultistepScheduler", bare)).toThrow('without "use_flow_sigmas"');
  });
});

describe("a scheduler config that Python wrote", () => {
  it("may have infinite numbers", () => {
    const text =
      '{"lambda_min_clipped": -Infinity, "sample_max_value": 1.0, "_note": "NaN, -Infinity"}';
    const fields = parsedJson(text, "scheduler_config.json") as Record<string, unknown>;
    expect(fields).toEqual({
      lambda_min_clipped: -Infinity,
      sample_max_value: 1,
      _note: "NaN, -Infinity",
    });
    const name = "DPMSolverMultistepScheduler";
    expect(scheduler(name, fields).levels(5)).toEqual(scheduler(name, {}).levels(5));
  });

  it.each([["NaN"], ["Infinity"]])("is refused where %s is no value of an option", (value) => {
    const fields = parsedJson(`{"shift": ${value}}`, "scheduler_config.json");
    const flow = scheduler("FlowMatchEulerDiscreteScheduler", fields as Fields);
    expect(() => flow.levels(4)).toThrow(/"shift" = "?(NaN|Infinity)"?, but it must be a number/);
  });

  it("is still refused if it is no JSON", () => {
    expect(() => parsedJson('{"a": Infinity,}', "x.json")).toThrow("x.json is not valid JSON");
  });
});

describe("flow levels", () => {
  it("of UniPC begin just below 1 in releases that know shift_terminal, and end where it says", () => {
    const levels = (fields: Fields) =>
      scheduler("UniPCMultistepScheduler", {
        use_flow_sigmas: true,
        prediction_type: "flow_prediction",
        ...fields,
      })
        .levels(4)
        .map(({ sigma }) => sigma);
    const near = (values: readonly number[]) => values.map((value) => expect.closeTo(value, 6));
    const even = [1 - 1e-6, 0.75025, 0.5005, 0.25075, 0];
    expect(levels({ shift_terminal: null })).toEqual(near(even));
    const stretch = 0.9 / (1 - 0.25075);
    expect(levels({ shift_terminal: 0.1 })).toEqual(
      near([1 - 1e-6, 1 - 0.24975 * stretch, 1 - 0.4995 * stretch, 0.1, 0]),
    );
    expect(levels({})).toEqual(near([0.999, 0.74925, 0.4995, 0.24975, 0]));
  });

  it("cannot end at a terminal sigma in one step", () => {
    const one = () =>
      scheduler("FlowMatchEulerDiscreteScheduler", { shift: 3, shift_terminal: 0.02 }).levels(1);
    expect(one).toThrow("One step cannot end at a terminal sigma of 0.02; give at least 2 steps.");
  });

  it("are refused where the shift leaves no noise level but the first", () => {
    const shifted = () =>
      scheduler("FlowMatchEulerDiscreteScheduler", {}).levels(4, { shift: 1e9 });
    expect(shifted).toThrow("A shift of 1000000000 leaves all 4 steps at pure noise");
  });
});
