/**
 * Computes the graphs of a recorded diffusion as one program: `q_sample` and the posterior for `in.x_start` and `in.noise` at
 * the steps `in.t`, and `training_losses.VARIANT.TERM` of the analytic model. Variants respaced to N steps use the steps
 * `in.t_respacedN`.
 */
import { concat } from "../engine/graph/functional.ts";
import { graphOf } from "../engine/graph/graph.ts";
import type { Tensor } from "../engine/graph/tensor.ts";
import { noised } from "../diffusion/losses.ts";
import type { DiffusionProcess } from "../diffusion/process.ts";
import { exampleAt, hybridLoss, lookUp, posteriorOf } from "../diffusion/variational-bound.ts";
import { processOf, type Variant, variantOf } from "./dit-diffusion-settings.ts";
import type { Tolerance } from "./compare.ts";
import type { BackendSource, Computed } from "./family.ts";
import { largest, requiredInput, runRecorded } from "./network.ts";
import type { Recording } from "./recording.ts";

export async function* diffusionGraphs(
  recording: Recording,
  backend: BackendSource,
  trainSteps: number,
): AsyncGenerator<Computed> {
  const { io } = recording;
  const inputs = recordedInputs(recording);
  const outputs: Record<string, Tensor> = {};
  const losses = new Map<string, Record<string, Tensor | undefined>>();
  for (const name of io.entries.keys()) {
    const [, variant, term] = /^out\.training_losses\.(.+)\.(loss|mse|vb)$/.exec(name) ?? [];
    if (variant !== undefined && term !== undefined) {
      const terms = losses.get(variant) ?? lossOf(variantOf(variant), trainSteps, inputs);
      losses.set(variant, terms);
      const tensor = terms[term];
      if (tensor) outputs[name] = tensor;
    } else if (name.startsWith("out.q_")) {
      const tensor = processOutput(name.slice(4), processOf("linear", trainSteps), inputs);
      if (tensor) outputs[name] = tensor;
    }
  }
  if (Object.keys(outputs).length === 0) return;
  const got = await runRecorded(graphOf(outputs), recording, backend);
  for (const name of Object.keys(outputs)) {
    const want = await io.read(name);
    const tolerance = name.startsWith("out.training_losses.")
      ? lossTolerance(name, trainSteps)
      : { atol: 1e-5 * Math.max(1, largest(want)) };
    yield { name, got: got[name]!, want, tolerance };
  }
}

/**
 * A relative tolerance of each loss. A divergence is a sum of numbers near 1, which float32 resolves to 1e-7, so two programs
 * agree within 1e-6, times the number of steps for losses that are scaled by it.
 */
function lossTolerance(name: string, trainSteps: number): Tolerance {
  return { rtol: 1e-4, floor: name.includes("_kl.") ? trainSteps / 100 : 0.01 };
}

interface Inputs {
  readonly x0: Tensor;
  readonly noise: Tensor;
  /** The number of steps of a respaced process. */
  readonly steps: (respacing: string | undefined) => Tensor;
}

/** Creates a leaf for each recorded input when it is first used. */
function recordedInputs(recording: Recording): Inputs {
  const leaves = new Map<string, Tensor>();
  const leaf = (name: string) => {
    const made = leaves.get(name) ?? requiredInput(recording, name);
    leaves.set(name, made);
    return made;
  };
  return {
    get x0() {
      return leaf("x_start");
    },
    get noise() {
      return leaf("noise");
    },
    steps: (respacing) => leaf(respacing === undefined ? "t" : `t_respaced${respacing}`),
  };
}

function processOutput(
  name: string,
  process: DiffusionProcess,
  { x0, noise, steps }: Inputs,
): Tensor | undefined {
  const t = steps(undefined);
  const x = noised(exampleAt(process, { x0, noise, steps: t }));
  const posterior = posteriorOf(process, t, x0, x);
  const outputs: Readonly<Record<string, Tensor>> = {
    q_sample: x,
    q_posterior_mean: posterior.mean,
    q_posterior_log_variance_clipped: posterior.logVariance.expand(x.shape),
    q_posterior_variance: lookUp(process.posterior.variance, t, x).expand(x.shape),
  };
  return outputs[name];
}

function lossOf(
  { schedule, respacing, ...options }: Variant,
  trainSteps: number,
  { x0, noise, steps }: Inputs,
): Record<string, Tensor | undefined> {
  const process = processOf(schedule, trainSteps, respacing);
  const batch = { x0, noise, steps: steps(respacing) };
  const x = noised(exampleAt(process, batch));
  const time = lookUp(process.times, batch.steps, x);
  const output = analyticModel(x, time, options.variance === "learned");
  const { loss, mse, bound } = hybridLoss(process, output, batch, options);
  return { loss, mse, vb: bound };
}

/** The analytic model: 0.3 · x · cos(t / 1000) + 0.1, followed by sin(x + t / 500) if the variance is learned. */
export function analyticModel(x: Tensor, time: Tensor, learned: boolean): Tensor {
  const prediction = x.mul(time.div(1000).cos()).mul(0.3).add(0.1);
  return learned ? concat([prediction, x.add(time.div(500)).sin()], 1) : prediction;
}
