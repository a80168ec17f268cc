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
import { type NdArray, ndarray, scalar } from "../engine/arrays/ndarray.ts";
import { input } from "../engine/graph/functional.ts";
import { graphOf } from "../engine/graph/graph.ts";
import { evaluate } from "../engine/reference/evaluate.ts";
import { denoiserOf, type Network } from "../diffusion/denoiser.ts";
import type { NoiseSource } from "../diffusion/noise.ts";
import { type DiffusionProcess, levelsOf } from "../diffusion/process.ts";
import { ddim } from "../diffusion/samplers/ddim.ts";
import { ddpm } from "../diffusion/samplers/ddpm.ts";
import { thresholded } from "../diffusion/thresholding.ts";
import { respacedTimesteps } from "../diffusion/timesteps.ts";
import type { StepVariance } from "../diffusion/variational-bound.ts";
import { analyticModel, diffusionGraphs } from "./dit-diffusion-graphs.ts";
import { processOf, type Respacing, trainStepsOf, variantOf } from "./dit-diffusion-settings.ts";
import type { BackendSource, Computed, Family } from "./family.ts";
import { largest, recordedFields, recordedModel } from "./network.ts";
import type { Recording } from "./recording.ts";
import { entry, listed, stacked } from "./scheduler-run.ts";
import { batchTimes } from "../engine/graph/shape.ts";
import { createParams } from "../nn/params.ts";
import { checkedWeights } from "../weights/check-keys.ts";
import { recordedConfig, recordedFamily } from "./forward.ts";

export const ditDiffusion: Family = async function* compute(recording, backend) {
  const trainSteps = trainStepsOf(recording);
  yield* tables(recording, trainSteps);
  yield* diffusionGraphs(recording, backend, trainSteps);
  yield* analyticLoops(recording, trainSteps);
  yield* guidedLoops(recording, backend, trainSteps);
};

async function* tables(recording: Recording, trainSteps: number): AsyncGenerator<Computed> {
  const { io, config } = recording;
  for (const name of io.entries.keys()) {
    const [, kind, schedule, what] = /^out\.(table|respaced)\.([^.]+)\.(.+)$/.exec(name) ?? [];
    const [, index] = /^out\.space_timesteps\.(\d+)$/.exec(name) ?? [];
    if (schedule !== undefined && what !== undefined) {
      const respacing = kind === "respaced" ? respacingOf(recording) : undefined;
      const table = Object.hasOwn(tableRules, what) ? tableRules[what] : undefined;
      const numbers = table?.(processOf(schedule, trainSteps, respacing));
      if (!numbers) continue;
      const want = await io.read(name);
      yield { name, got: listed(numbers, want), want, tolerance: { rtol: 1e-12 } };
    } else if (index !== undefined) {
      const args = config.fields["args"] as { space_timesteps?: [number, Respacing][] } | undefined;
      const call = args?.space_timesteps?.[Number(index)];
      if (!call) continue;
      const want = await io.read(name);
      yield { name, got: listed(respacedTimesteps(...call), want), want };
    }
  }
}

/** The tables of a process by the original's names. */
const tableRules: Readonly<Record<string, (process: DiffusionProcess) => ArrayLike<number>>> = {
  betas: ({ betas }) => betas,
  timestep_map: ({ times }) => times,
  alphas_cumprod: ({ alphaBars }) => alphaBars,
  alphas_cumprod_prev: ({ previousAlphaBars }) => previousAlphaBars,
  alphas_cumprod_next: ({ alphaBars }) => [...alphaBars.slice(1), 0],
  sqrt_alphas_cumprod: ({ alphaBars }) => alphaBars.map(Math.sqrt),
  sqrt_one_minus_alphas_cumprod: ({ alphaBars }) => alphaBars.map((a) => Math.sqrt(1 - a)),
  log_one_minus_alphas_cumprod: ({ alphaBars }) => alphaBars.map((a) => Math.log(1 - a)),
  sqrt_recip_alphas_cumprod: ({ alphaBars }) => alphaBars.map((a) => Math.sqrt(1 / a)),
  sqrt_recipm1_alphas_cumprod: ({ alphaBars }) => alphaBars.map((a) => Math.sqrt(1 / a - 1)),
  posterior_variance: ({ posterior }) => posterior.variance,
  posterior_log_variance_clipped: ({ posterior }) => posterior.logVariance,
  posterior_mean_coef1: ({ posterior }) => posterior.ofX0,
  posterior_mean_coef2: ({ posterior }) => posterior.ofX,
};

/** The respacing of the recorded process, a text or a list of counts. */
function respacingOf(recording: Recording): Respacing {
  const args = recordedFields(recording).object("args");
  const value = (recording.config.fields["args"] as { respacing?: unknown }).respacing;
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
      network: analyticNetwork(variance === "learned"),
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
  const { io } = recording;
  const pattern = /^out\.dit_cfg_(ddpm|ddim)\.clip([01])$/;
  const names = [...io.entries.keys()].filter((name) => pattern.test(name));
  if (names.length === 0) return;
  const scale = recordedFields(recording).object("args").number("cfg_scale");
  const model = await guidedDiT(recording, backend, await io.read("in.dit_y"), scale);
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

function etaOf(recording: Recording): number {
  return recordedFields(recording).object("args").number("ddim_eta", 0);
}

/** The analytic model on arrays, in float64. */
function analyticNetwork(learned: boolean): Network {
  return async (x, { time }) => {
    const output = analyticModel(input("x", x.shape), input("time", []), learned);
    return evaluate(graphOf({ output }), { x, time: ndarray("float32", [], [time]) })["output"]!;
  };
}

interface GuidedDiT {
  readonly network: Network;
  readonly learnedVariance: boolean;
  dispose(): Promise<void>;
}

/**
 * Computes `forward_with_cfg` of the model whose weights the recording contains or refers to. Its arguments are
 * `args.dit_args`, or those of the recording with the weights.
 *
 * @param y classes [2B] of both halves of the batch
 */
async function guidedDiT(
  recording: Recording,
  backend: BackendSource,
  y: NdArray,
  scale: number,
): Promise<GuidedDiT> {
  const { args, weights } = recordedModel(recording);
  // The recording's own arguments say what the process used, beside those of the process.
  const own = recordedFields(recording).object("args");
  const family = recordedFamily("dit");
  const ditArgs = own.has("dit_args") ? own.object("dit_args") : args;
  const config = recordedConfig(family, recording, ditArgs);
  const params = createParams();
  const twice = batchTimes(2);
  const inputs = {
    x: input("x", [twice, config.channels, ...config.size]),
    t: input("t", [twice]),
    y: input("y", [twice], y.dtype),
  };
  const output = family.recorded.guided!(params, inputs, config, input("scale", []));
  const source = checkedWeights(params, weights);
  const program = await (await backend()).compile(graphOf({ output }), { weights: source });
  return {
    learnedVariance: config.learnedVariance,
    async network(x, { time }) {
      const count = x.shape[0]!;
      const t = ndarray("float32", [count], new Array<number>(count).fill(time));
      return (await program.run({ x, t, y, scale: scalar(scale) }))["output"]!;
    },
    dispose: () => program.dispose(),
  };
}
