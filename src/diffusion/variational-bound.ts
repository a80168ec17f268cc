/** The variational bound of a discrete process as a graph (Ho et al., 2020, eq. 5; Nichol & Dhariwal, 2021). */
import { constantOf, detach, where } from "../engine/graph/functional.ts";
import type { Tensor } from "../engine/graph/tensor.ts";
import { type Example, meanOfImage, noised, perImage, regressionLoss } from "./losses.ts";
import { type Parameterization, type SignalAndNoise, x0Of } from "./parameterization.ts";
import type { DiffusionProcess } from "./process.ts";

/** Entries of a table at steps [B], as [B, 1, …] for images of x's rank, in float32. */
export function lookUp(table: Float64Array | readonly number[], steps: Tensor, x: Tensor): Tensor {
  return perImage(constantOf([...table], [table.length]).gather(steps), x);
}

/** alpha and sigma of steps [B] of a process. */
export function processLevel(
  { alphaBars }: DiffusionProcess,
  steps: Tensor,
  x: Tensor,
): SignalAndNoise<Tensor> {
  return {
    alpha: lookUp(alphaBars.map(Math.sqrt), steps, x),
    sigma: lookUp(
      alphaBars.map((alphaBar) => Math.sqrt(1 - alphaBar)),
      steps,
      x,
    ),
  };
}

/** The mean and the logarithm of the variance of a Gaussian. */
interface Gaussian {
  readonly mean: Tensor;
  readonly logVariance: Tensor;
}

/** q(x[t − 1] | x[t], x0) at steps t [B]; log β̃ of the first step is that of the second. */
export function posteriorOf(
  { posterior }: DiffusionProcess,
  steps: Tensor,
  x0: Tensor,
  x: Tensor,
): Gaussian {
  const ofX0 = lookUp(posterior.ofX0, steps, x);
  const ofX = lookUp(posterior.ofX, steps, x);
  return {
    mean: x0.mul(ofX0).add(x.mul(ofX)),
    logVariance: lookUp(posterior.logVariance, steps, x),
  };
}

/** The variance of the model's steps: β̃, β, or learned between the two. */
export type StepVariance = "small" | "large" | "learned";

/**
 * The log variance of the model's steps, of x's shape or broadcastable to it.
 *
 * @param place where the learned one lies between log β̃ (−1) and log β (1), of x's shape (Nichol & Dhariwal, eq. 15)
 */
function modelLogVariance(
  { betas, posterior }: DiffusionProcess,
  steps: Tensor,
  x: Tensor,
  variance: StepVariance,
  place: Tensor | undefined,
): Tensor {
  if (variance === "small") return lookUp(posterior.logVariance, steps, x);
  if (variance === "large" || !place) {
    // β of the first step would only worsen its likelihood, since sampling adds no noise there.
    const large = betas.map((beta, t) => (t === 0 ? posterior.logVariance[0]! : Math.log(beta)));
    return lookUp(large, steps, x);
  }
  const low = lookUp(posterior.logVariance, steps, x);
  const high = lookUp(betas.map(Math.log), steps, x);
  const share = place.add(1).div(2);
  return share.mul(high).add(share.neg().add(1).mul(low));
}

/** KL(a ‖ b) of Gaussians, elementwise, in nats. */
function gaussianKL(a: Gaussian, b: Gaussian): Tensor {
  const ratio = a.logVariance.sub(b.logVariance);
  const distance = a.mean.sub(b.mean).square().mul(b.logVariance.neg().exp());
  return ratio.exp().sub(1).sub(ratio).add(distance).mul(0.5);
}

/** Φ by the approximation of Page (1977) that the published losses use. */
function normalCDF(x: Tensor): Tensor {
  return x
    .add(x.mul(x).mul(x).mul(0.044715))
    .mul(Math.sqrt(2 / Math.PI))
    .tanh()
    .add(1)
    .mul(0.5);
}

/**
 * The log likelihood of images of 256 levels in [−1, 1], elementwise, in nats: the Gaussian's mass up to half-way to the
 * neighbouring levels; the outermost intervals reach to infinity (Ho et al., eq. 13).
 */
function discretizedLogLikelihood(x0: Tensor, { mean, logVariance }: Gaussian): Tensor {
  const inverse = logVariance.mul(-0.5).exp();
  const centred = x0.sub(mean);
  const above = normalCDF(centred.add(1 / 255).mul(inverse));
  const below = normalCDF(centred.sub(1 / 255).mul(inverse));
  const log = (mass: Tensor) => mass.maximum(1e-12).log();
  const inside = log(above.sub(below));
  const upper = where(x0.greater(0.999), log(below.neg().add(1)), inside);
  return where(x0.less(-0.999), log(above), upper);
}

/** A batch at steps of a discrete process. */
export interface DiscreteExample {
  readonly x0: Tensor;
  readonly noise: Tensor;
  /** [B], int64 in [0, number of steps). */
  readonly steps: Tensor;
}

/** The batch with alpha and sigma of its steps. */
export function exampleAt(
  process: DiffusionProcess,
  { x0, noise, steps }: DiscreteExample,
): Example {
  return { x0, noise, level: processLevel(process, steps, x0) };
}

/**
 * The term of the variational bound at each image's step, in bits per dimension, [B]: the divergence of the model's step
 * from the posterior, or at the first step the likelihood of the image.
 *
 * @param model the estimate of x0, and where the learned variance lies
 */
export function boundTerm(
  process: DiffusionProcess,
  { x0, steps }: Pick<DiscreteExample, "x0" | "steps">,
  x: Tensor,
  model: { readonly x0: Tensor; readonly place?: Tensor | undefined },
  variance: StepVariance,
): Tensor {
  const truth = posteriorOf(process, steps, x0, x);
  const guess: Gaussian = {
    mean: posteriorOf(process, steps, model.x0, x).mean,
    logVariance: modelLogVariance(process, steps, x, variance, model.place),
  };
  const divergence = meanOfImage(gaussianKL(truth, guess));
  const likelihood = meanOfImage(discretizedLogLikelihood(x0, guess).neg());
  return where(steps.equal(0), likelihood, divergence).div(Math.LN2);
}

export interface HybridOptions {
  /** The quantity that the network predicts: "epsilon", "x0", "v" or "flow". */
  readonly parameterization: Parameterization;
  /** The variance of a step: fixed, or learned by the network. */
  readonly variance: StepVariance;
  /**
   * - mse: the simple loss, plus the bound if a variance is learned, which trains the variance only (DiT).
   * - rescaled-mse: the same with the bound times steps / 1000 (Nichol & Dhariwal's λ·T).
   * - kl: the bound alone.
   * - rescaled-kl: the bound times the number of steps, an estimate of the whole bound.
   */
  readonly objective: "mse" | "rescaled-mse" | "kl" | "rescaled-kl";
}

export interface HybridLoss {
  /** [B] */
  readonly loss: Tensor;
  /** Its two terms, for a loss that has two. */
  readonly mse?: Tensor;
  readonly bound?: Tensor;
}

/**
 * The losses of Nichol & Dhariwal (2021, eq. 16).
 *
 * @param output of the network on `noised(exampleAt(process, batch))`: [B, C, …], twice as many channels with a learned variance
 */
export function hybridLoss(
  process: DiffusionProcess,
  output: Tensor,
  batch: DiscreteExample,
  { parameterization, variance, objective }: HybridOptions,
): HybridLoss {
  const example = exampleAt(process, batch);
  const x = noised(example);
  const learned = variance === "learned";
  const [prediction, place] = learned ? (output.split(2, 1) as [Tensor, Tensor]) : [output];
  const count = process.betas.length;
  const bound = (mean: Tensor) => {
    const estimate = x0Of(parameterization, example.level, x, mean);
    return boundTerm(process, batch, x, { x0: estimate, place }, variance);
  };
  if (objective === "kl") return { loss: bound(prediction) };
  if (objective === "rescaled-kl") return { loss: bound(prediction).mul(count) };

  const mse = regressionLoss(prediction, example, { parameterization });
  if (!learned) return { loss: mse, mse };
  // The bound is far noisier than the simple loss, so it must not train the mean.
  const term = bound(detach(prediction));
  const scaled = objective === "rescaled-mse" ? term.mul(count / 1000) : term;
  return { loss: mse.add(scaled), mse, bound: scaled };
}
