/**
 * Sampling by Stable Diffusion 3's own code: `out.sigmas_table.shiftS`, `out.sigmas.shiftS.stepsN`,
 * `out.latent_process_in` and `_out`, `out.denoised_sigmaX` and `out.cfg_denoised_sigmaX`, and `out.traj.SAMPLER.MODE.shiftS`
 * with each input x of the network and the result.
 */
import { combine, mapElements } from "../diffusion/arrays.ts";
import { type Denoiser, denoiserOf, batchedNetwork } from "../diffusion/denoiser.ts";
import { guided } from "../diffusion/guidance.ts";
import {
  levelsOfStrength,
  type NoiseLevel,
  noiseOfSteps,
  sd3Levels,
  shiftTime,
  straight,
} from "../diffusion/levels.ts";
import { euler } from "../diffusion/samplers/ddim.ts";
import { dpmSolver2MSigma } from "../diffusion/samplers/dpm-solver.ts";
import type { Sampler } from "../diffusion/samplers/sampler.ts";
import { graphOf } from "../engine/graph/graph.ts";
import { input } from "../engine/graph/functional.ts";
import { type NdArray, ndarray } from "../engine/arrays/ndarray.ts";
import { batch } from "../engine/graph/shape.ts";
import { autoencoderKLPresets } from "../models/coders/autoencoder-kl-config.ts";
import { createParams } from "../nn/params.ts";
import { checkedWeights } from "../weights/check-keys.ts";
import type { FieldReader } from "../weights/config-fields.ts";
import type { BackendSource, Family } from "./family.ts";
import { largest, recordedFields, recordedModel, requiredInput } from "./network.ts";
import type { Recording } from "./recording.ts";
import { recordedConfig, recordedFamily } from "./forward.ts";
import { listedSigmas, stacked } from "./scheduler-run.ts";

/** Tolerances from the recording: absolute for sigmas, and relative to the largest magnitude for trajectories. */
const SIGMA = 1e-6;
const SHARE = 2e-4;

const samplers = { euler, dpmpp_2m: dpmSolver2MSigma } as const;

export const sd3Sampling: Family = async function* compute(recording, backend) {
  const { io } = recording;
  const args = recordedFields(recording).object("args");
  const model = await askedModel(recording, backend, args);
  try {
    for (const output of io.entries.keys()) {
      if (output.startsWith("in.")) continue;
      const want = await io.read(output);
      const sigmas = recordedSigmas(output);
      const got = sigmas ?? (await computed(output, model, args));
      const atol = sigmas ? SIGMA : SHARE * largest(want);
      if (got) yield { name: output, got, want, tolerance: { atol } };
    }
  } finally {
    await model.dispose();
  }
};

function recordedSigmas(output: string): NdArray | undefined {
  const [, table] = /^out\.sigmas_table\.shift([\d.]+)$/.exec(output) ?? [];
  if (table !== undefined) {
    const sigmas = Array.from({ length: 1000 }, (_, i) => shiftTime((i + 1) / 1000, Number(table)));
    return ndarray("float32", [1000], sigmas);
  }
  const [, shift, steps] = /^out\.sigmas\.shift([\d.]+)\.steps(\d+)$/.exec(output) ?? [];
  if (shift === undefined) return undefined;
  return listedSigmas(sd3Levels(Number(steps), Number(shift)), true);
}

async function computed(
  output: string,
  model: AskedModel,
  args: FieldReader,
): Promise<NdArray | undefined> {
  const { scale, shift } = autoencoderKLPresets["SD3-VAE"];
  const { noise, latent } = model;
  if (output === "out.latent_process_in") {
    return mapElements((value) => (value - shift) * scale, latent);
  }
  if (output === "out.latent_process_out") {
    return mapElements((value) => value / scale + shift, latent);
  }
  const [, guides, sigma] = /^out\.(cfg_)?denoised_sigma([\d.]+)$/.exec(output) ?? [];
  if (sigma !== undefined) {
    const level = straight(Number(sigma) * 1000, Number(sigma));
    const denoise = guides ? guidedBy(model, args) : model.wanted;
    return (await denoise(noise, level)).x0;
  }
  const [, sampler, mode, at] = /^out\.traj\.(\w+)\.(\w+)\.shift([\d.]+)$/.exec(output) ?? [];
  if (!isSampler(sampler) || mode === undefined) return undefined;
  return trajectory(samplers[sampler], mode, Number(at), model, args);
}

const isSampler = (name: string | undefined): name is keyof typeof samplers =>
  name !== undefined && Object.hasOwn(samplers, name);

/** Samples from noise, or in the mode "img2img" from the latent, and returns the trajectory: [steps + 1, …]. */
async function trajectory(
  sampler: Sampler,
  mode: string,
  shift: number,
  model: AskedModel,
  args: FieldReader,
): Promise<NdArray> {
  const steps = args.count("steps");
  const schedule = sd3Levels(steps, shift);
  const strength = mode === "img2img" ? args.number("img2img_denoise") : 1;
  const levels = levelsOfStrength(schedule, steps, strength);
  const [{ alpha, sigma }] = levels as [NoiseLevel];
  const image = mode === "img2img" ? alpha : 0;
  const start = combine([sigma, model.noise], [image, model.latent]);
  const skips = mode === "slg" ? { levels, steps } : undefined;
  const states: NdArray[] = [start];
  for await (const { x } of sampler(guidedBy(model, args, skips), start, levels)) states.push(x);
  return stacked(states);
}

function guidedBy(
  { wanted, free, weakened }: AskedModel,
  args: FieldReader,
  skips?: { readonly levels: readonly NoiseLevel[]; readonly steps: number },
): Denoiser {
  const guidance = { scale: args.number("cfg_scale") };
  if (!skips) return guided(wanted, free, guidance);
  const config = args.object("skip_layer_config");
  const active = { from: config.number("start"), to: config.number("end") };
  const interval = noiseOfSteps(skips.levels, skips.steps, active);
  const skipLayers = { scale: config.number("scale"), weakened, interval };
  return guided(wanted, free, { ...guidance, skipLayers });
}

/** The recorded model under each of its conditions. */
interface AskedModel {
  readonly noise: NdArray;
  readonly latent: NdArray;
  readonly wanted: Denoiser;
  readonly free: Denoiser;
  /** The conditional prediction without the layers that the recording skips. */
  readonly weakened: Denoiser;
  dispose(): Promise<void>;
}

async function askedModel(
  recording: Recording,
  backend: BackendSource,
  args: FieldReader,
): Promise<AskedModel> {
  const { io } = recording;
  const { weights } = recordedModel(recording);
  const family = recordedFamily("sd3_mmdit");
  const config = recordedConfig(family, recording);
  const params = createParams();
  const like = (name: string, recorded: string) =>
    input(name, requiredInput(recording, recorded).shape);
  const inputs = {
    x: like("x", "noise"),
    pooled: like("pooled", "cond_y"),
    context: like("context", "cond_context"),
    t: input("t", [batch]),
    skip: input("skip", [batch], "bool"),
  };
  // Without skip-layer guidance no block is left out.
  const skippable = args.has("skip_layer_config")
    ? args.object("skip_layer_config").numbers("layers")
    : [];
  const output = family.trace(params, inputs, config, { skippable });
  const source = checkedWeights(params, weights);
  const program = await (await backend()).compile(graphOf({ output }), { weights: source });
  const network = batchedNetwork(async (rows) => (await program.run(rows))["output"]!);
  const under = async (name: string, skips = 0) => {
    const [pooled, context] = [await io.read(`in.${name}_y`), await io.read(`in.${name}_context`)];
    const count = pooled.shape[0]!;
    const skip = ndarray("bool", [count], new Array<number>(count).fill(skips));
    return denoiserOf(network({ pooled, context, ...(skippable.length > 0 && { skip }) }), "flow");
  };
  return {
    noise: await io.read("in.noise"),
    latent: await io.read("in.latent"),
    wanted: await under("cond"),
    free: await under("uncond"),
    weakened: await under("cond", 1),
    dispose: () => program.dispose(),
  };
}
