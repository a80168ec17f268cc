/**
 * Schedulers of diffusers on an analytic model. For each of the `configs` by name and N steps there are
 * `out.NAME.sN.timesteps`, `.sigmas`, `.init_noise_sigma` and `.traj`; and there is `out.alphas_cumprod.SCHEDULE`.
 */
import { type NdArray, ndarray, scalar } from "../engine/arrays/ndarray.ts";
import { combine } from "../diffusion/arrays.ts";
import type { Network } from "../diffusion/denoiser.ts";
import { diffusersTables } from "../diffusion/diffusers/levels.ts";
import {
  type DiffusersScheduler,
  diffusersScheduler,
  diffusersSchedulerNames,
} from "../diffusion/diffusers/schedulers.ts";
import type { NoiseLevel } from "../diffusion/levels.ts";
import { type ConfigFields, type FieldReader, fieldReader } from "../weights/config-fields.ts";
import type { Computed } from "./family.ts";
import type { Tolerance } from "./compare.ts";
import { largest, recordedFields } from "./network.ts";
import type { Recording } from "./recording.ts";
import { entry, listed, listedSigmas, trajectory } from "./scheduler-run.ts";

/** The recorded model: 0.3 · x · cos(t / 1000), independent of the prediction type. */
const network: Network = async (x, { time }) => combine([0.3 * Math.cos(time / 1000), x]);

export async function* samplersFamily(recording: Recording): AsyncGenerator<Computed> {
  const { io, config } = recording;
  const fields = recordedFields(recording);
  const runs = new Map<string, Run>();
  for (const output of io.entries.keys()) {
    if (output.startsWith("in.")) continue;
    const want = await io.read(output);
    const [, schedule] = /^out\.alphas_cumprod\.(.+)$/.exec(output) ?? [];
    if (schedule !== undefined) {
      const got = cumulativeAlphas(schedule, want, config.fields["configs"]);
      yield { name: output, got, want, tolerance: { rtol: TABLE } };
      continue;
    }
    const [, tag, steps, what] = /^out\.(.+)\.s(\d+)\.([^.]+)$/.exec(output) ?? [];
    if (tag === undefined || what === undefined) continue;
    const key = `${tag}.${steps}`;
    const run = runs.get(key) ?? startRun(fields.object("configs").object(tag), Number(steps));
    runs.set(key, run);
    const got = await computed(run, what, recording, want);
    if (got) yield { name: output, want, ...got };
  }
}

interface Run {
  readonly scheduler: DiffusersScheduler;
  readonly levels: readonly NoiseLevel[];
  readonly flow: boolean;
  /** True if times are interpolated between those of the training process. */
  readonly between: boolean;
  /** True if its tables were computed partly in float32 and partly in float64. */
  readonly multistep: boolean;
}

function startRun(config: FieldReader, steps: number): Run {
  const kind = config.choice("scheduler", diffusersSchedulerNames);
  const args = config.object("args");
  const step = config.object("step");
  const scheduler = diffusersScheduler(kind, args, {
    eta: step.number("eta", 0),
    keepNoise: !step.flag("use_clipped_model_output", false),
  });
  const shifting = args.flag("use_dynamic_shifting", false);
  const mu = shifting ? config.object("set_timesteps").number("mu") : undefined;
  const levels = scheduler.levels(steps, { mu });
  const flow = kind.startsWith("FlowMatch") || args.flag("use_flow_sigmas", false);
  const between = ["use_karras_sigmas", "use_exponential_sigmas"].some((name) =>
    args.flag(name, false),
  );
  return { scheduler, levels, flow, between, multistep: kind.includes("Multistep") };
}

/** Shares of the recorded number, as the recording's rule gives them. */
const TABLE = 1e-5;
const SIGMA = 2e-6;

async function computed(
  { scheduler, levels, flow, between, multistep }: Run,
  what: string,
  { io }: Recording,
  want: NdArray,
): Promise<{ readonly got: NdArray; readonly tolerance: Tolerance } | undefined> {
  const inner = (i: number) => i > 0 && i < levels.length - 1;
  const each = levels.flatMap((level, i) => (scheduler.twice && inner(i) ? [level, level] : level));
  switch (what) {
    case "timesteps": {
      const times = each.slice(0, -1).map(({ time }) => time);
      return { got: listed(times, want), tolerance: { atol: flow || between ? 1e-3 : 0 } };
    }
    case "sigmas":
      return { got: listedSigmas(each, flow), tolerance: { rtol: multistep ? TABLE : SIGMA } };
    case "init_noise_sigma": {
      const [first] = levels as [NoiseLevel];
      return {
        got: scalar(scheduler.start(first) / (scheduler.exploding ? first.alpha : 1)),
        tolerance: { rtol: SIGMA },
      };
    }
    case "traj": {
      const [x, noise] = await Promise.all([io.read("in.x"), io.read("in.step_noise")]);
      const drawn = (step: number | "start") => entry(noise, Number(step));
      return {
        got: await trajectory(scheduler, network, x, levels, drawn),
        tolerance: { atol: 1e-4 * Math.max(1, largest(want)) },
      };
    }
    default:
      return undefined;
  }
}

/** ᾱ of a schedule by its short name, with the first and last beta of a config that uses it. */
function cumulativeAlphas(schedule: string, want: NdArray, configs: unknown): NdArray {
  const { kind, start, end } = shortNames[schedule] ?? { kind: schedule };
  const used = Object.values((configs ?? {}) as Record<string, { args?: ConfigFields }>)
    .map(({ args = {} }) => args)
    .find((args) => args["beta_schedule"] === kind && "beta_start" in args);
  const { alphaBars } = diffusersTables(
    fieldReader(schedule, {
      beta_start: used?.["beta_start"] ?? start,
      beta_end: used?.["beta_end"] ?? end,
      beta_schedule: kind,
      num_train_timesteps: want.shape[0],
    }),
  );
  return ndarray("float64", want.shape, alphaBars);
}

interface NamedSchedule {
  readonly kind: string;
  readonly start?: number;
  readonly end?: number;
}

const shortNames: Readonly<Record<string, NamedSchedule>> = {
  cosine: { kind: "squaredcos_cap_v2" },
  sd: { kind: "scaled_linear", start: 0.00085, end: 0.012 },
};
