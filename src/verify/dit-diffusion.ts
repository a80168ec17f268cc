/**
 * Gaussian diffusion of facebookresearch/DiT, on an analytic model and on a recorded DiT. Names in io.safetensors:
 *
 *     table.SCHEDULE.NAME, respaced.SCHEDULE.NAME   tables of the process, whole and respaced
 *     space_timesteps.I                             the I-th of `args.space_timesteps`
 *     q_…, training_losses.…                        graphs: see dit-diffusion-graphs.ts
 *     ddpm.VARIANT.clipC, ddim.VARIANT.clipC        states after each step; clip1 limits x0 to [−1, 1]
 *     dit_cfg_ddpm.clipC, dit_cfg_ddim.clipC        the same for a DiT with guidance
 */
import { FormatError } from "../engine/errors.ts";
import { castArray, type NdArray, ndarray } from "../engine/arrays/ndarray.ts";
import { mapElements } from "../diffusion/arrays.ts";
import { denoiserOf, type Network } from "../diffusion/denoiser.ts";
import type { NoiseSource } from "../diffusion/noise.ts";
import { type DiffusionProcess, levelsOf } from "../diffusion/process.ts";
import { ddim } from "../diffusion/samplers/ddim.ts";
import { ddpm } from "../diffusion/samplers/ddpm.ts";
import { thresholded } from "../diffusion/thresholding.ts";
import { respacedTimesteps } from "../diffusion/timesteps.ts";
import type { StepVariance } from "../diffusion/variational-bound.ts";
import { fieldReader } from "../weights/config-fields.ts";
import { diffusionGraphs } from "./dit-diffusion-graphs.ts";
import { processOf, type Respacing, trainStepsOf, variantOf } from "./dit-diffusion-settings.ts";
import { guidedDiT } from "./dit-guided.ts";
import type { BackendSource, Computed } from "./family.ts";
import { largest } from "./network.ts";
import type { Recording } from "./recording.ts";
import { entry, stacked } from "./scheduler-run.ts";

export async function* ditDiffusion(
  recording: Recording,
  backend: BackendSource,
): AsyncGenerator<Computed> {
  const trainSteps = trainStepsOf(recording);
  yield* tables(recording, trainSteps);
  yield* diffusionGraphs(recording, backend, trainSteps);
  yield* analyticLoops(recording, trainSteps);
  yield* guidedLoops(recording, backend, trainSteps);
}

async function* tables(recording: Recording, trainSteps: number): AsyncGenerator<Computed> {
  const { io, config } = recording;
  for (const name of io.entries.keys()) {
    const [, kind, schedule, what] = /^out\.(table|respaced)\.([^.]+)\.(.+)$/.exec(name) ?? [];
    const [, index] = /^out\.space_timesteps\.(\d+)$/.exec(name) ?? [];
    if (schedule !== undefined && what !== undefined) {
      const respacing = kind === "respaced" ? respacingOf(recording) : undefined;
      const numbers = tableOf(processOf(schedule, trainSteps, respacing), what);
      if (!numbers) continue;
      const want = await io.read(name);
      const got = castArray(ndarray("float64", [numbers.length], numbers), want.dtype);
      yield { name, got, want, tolerance: { rtol: 1e-12 } };
    } else if (index !== undefined) {
      const args = config.fields["args"] as { space_timesteps?: [number, Respacing][] } | undefined;
      const call = args?.space_timesteps?.[Number(index)];
      if (!call) continue;
      const times = respacedTimesteps(...call);
      const want = await io.read(name);
      yield { name, got: castArray(ndarray("float64", [times.length], times), want.dtype), want };
    }
  }
}

/** A table of the process by the original's name; undefined if there is no such table. */
function tableOf(process: DiffusionProcess, name: string): readonly number[] | undefined {
  const { times, betas, alphaBars, previousAlphaBars, posterior } = process;
  const of = (table: Float64Array, f: (x: number) => number = (x) => x) => Array.from(table, f);
  switch (name) {
    case "betas":
      return of(betas);
    case "timestep_map":
      return times;
    case "alphas_cumprod":
      return of(alphaBars);
    case "alphas_cumprod_prev":
      return of(previousAlphaBars);
    case "alphas_cumprod_next":
      return [...of(alphaBars).slice(1), 0];
    case "sqrt_alphas_cumprod":
      return of(alphaBars, Math.sqrt);
    case "sqrt_one_minus_alphas_cumprod":
      return of(alphaBars, (alphaBar) => Math.sqrt(1 - alphaBar));
    case "log_one_minus_alphas_cumprod":
      return of(alphaBars, (alphaBar) => Math.log(1 - alphaBar));
    case "sqrt_recip_alphas_cumprod":
      return of(alphaBars, (alphaBar) => Math.sqrt(1 / alphaBar));
    case "sqrt_recipm1_alphas_cumprod":
      return of(alphaBars, (alphaBar) => Math.sqrt(1 / alphaBar - 1));
    case "posterior_variance":
      return of(posterior.variance);
    case "posterior_log_variance_clipped":
      return of(posterior.logVariance);
    case "posterior_mean_coef1":
      return of(posterior.ofX0);
    case "posterior_mean_coef2":
      return of(posterior.ofX);
    default:
      return undefined;
  }
}

/** The respacing of the recorded process, a text or a list of counts. */
function respacingOf({ config, name }: Recording): Respacing {
  const args = fieldReader(`${name}/config.json`, config.fields).object("args");
  const value = (config.fields["args"] as { respacing?: unknown }).respacing;
  if (typeof value === "string") return value;
  if (Array.isArray(value)) return args.counts("respacing");
  throw new FormatError(
    `${args.file} has no "respacing"; give the text or the list that the process was made with.`,
  );
}

/** A loop over all steps of a process. */
interface Loop {
  readonly sampler: string;
  readonly process: DiffusionProcess;
  readonly network: Network;
  readonly variance: StepVariance;
  readonly learnedVariance: boolean;
  readonly predictsX0?: boolean;
  readonly clip: boolean;
  readonly eta: number;
  readonly x: NdArray;
  readonly noise: NdArray;
}

async function states(loop: Loop): Promise<NdArray> {
  const { process, network, learnedVariance, variance, eta } = loop;
  const parameterization = loop.predictsX0 ? "x0" : "epsilon";
  const plain = denoiserOf(network, parameterization, { learnedVariance });
  const denoise = loop.clip ? thresholded(plain, { kind: "static" }) : plain;
  const noise: NoiseSource = (step) => entry(loop.noise, Number(step));
  const levels = levelsOf(process);
  const steps =
    loop.sampler === "ddim"
      ? ddim(denoise, loop.x, levels, { noise, eta })
      : ddpm(denoise, loop.x, levels, { noise, variance });
  const reached: NdArray[] = [];
  for await (const { x } of steps) reached.push(x);
  return stacked(reached);
}

async function* analyticLoops(recording: Recording, trainSteps: number): AsyncGenerator<Computed> {
  const { io } = recording;
  for (const name of io.entries.keys()) {
    const [, sampler, variantName, clip] = /^out\.(ddpm|ddim)\.(.+)\.clip([01])$/.exec(name) ?? [];
    if (sampler === undefined || variantName === undefined) continue;
    const { schedule, variance, parameterization } = variantOf(variantName);
    const got = await states({
      sampler,
      process: processOf(schedule, trainSteps, respacingOf(recording)),
      network: analyticModel(variance === "learned"),
      variance,
      learnedVariance: variance === "learned",
      predictsX0: parameterization === "x0",
      clip: clip === "1",
      eta: etaOf(recording),
      x: await io.read("in.x_T"),
      noise: await io.read("in.step_noise"),
    });
    const want = await io.read(name);
    yield { name, got, want, tolerance: { atol: 1e-4 * Math.max(1, largest(want)) } };
  }
}

async function* guidedLoops(
  recording: Recording,
  backend: BackendSource,
  trainSteps: number,
): AsyncGenerator<Computed> {
  const { io, name: file, config } = recording;
  const pattern = /^out\.dit_cfg_(ddpm|ddim)\.clip([01])$/;
  const names = [...io.entries.keys()].filter((name) => pattern.test(name));
  if (names.length === 0) return;
  const args = fieldReader(`${file}/config.json`, config.fields).object("args");
  const y = await io.read("in.dit_y");
  const model = await guidedDiT(recording, backend, y, args.number("cfg_scale"));
  try {
    for (const name of names) {
      const [, sampler, clip] = pattern.exec(name) as unknown as [string, string, string];
      const got = await states({
        ...model,
        sampler,
        process: processOf("linear", trainSteps, respacingOf(recording)),
        variance: model.learnedVariance ? "learned" : "large",
        clip: clip === "1",
        eta: etaOf(recording),
        x: await io.read("in.dit_z"),
        noise: await io.read("in.dit_step_noise"),
      });
      const want = await io.read(name);
      yield { name, got, want, tolerance: { atol: 5e-4 * largest(want) } };
    }
  } finally {
    await model.dispose();
  }
}

function etaOf({ config, name }: Recording): number {
  return fieldReader(`${name}/config.json`, config.fields).object("args").number("ddim_eta", 0);
}

/** The analytic model: 0.3 · x · cos(t / 1000) + 0.1, followed by sin(x + t / 500) if the variance is learned. */
function analyticModel(learned: boolean): Network {
  return async (x, { time }) => {
    const prediction = mapElements((value) => 0.3 * value * Math.cos(time / 1000) + 0.1, x);
    if (!learned) return prediction;
    const variance = mapElements((value) => Math.sin(value + time / 500), x);
    const [count = 0, channels = 0, ...space] = x.shape;
    const size = x.data.length / count;
    const data = new Float32Array(2 * x.data.length);
    for (let i = 0; i < count; i++) {
      data.set(prediction.data.subarray(i * size, (i + 1) * size), 2 * i * size);
      data.set(variance.data.subarray(i * size, (i + 1) * size), (2 * i + 1) * size);
    }
    return ndarray("float32", [count, 2 * channels, ...space], data);
  };
}
