/**
 * Multistep DPM-Solver++ (Lu et al., 2022, "DPM-Solver++: Fast Solver for Guided Sampling"): between two levels x is linear
 * in an integral of x0 over λ = log(alpha / sigma), which earlier estimates of x0 approximate.
 */
import { UsageError } from "../../engine/errors.ts";
import type { NdArray } from "../../engine/arrays/ndarray.ts";
import { combine } from "../arrays.ts";
import { logRatio, type NoiseLevel, noiseRatio } from "../levels.ts";
import {
  noiseFor,
  report,
  type Sampler,
  type SamplerOptions,
  canExtrapolate,
  type Estimate,
  transitions,
  type Transition,
} from "./sampler.ts";

export interface DPMSolverOptions extends SamplerOptions {
  /** Number of estimates that a step uses, 1 to 3; 2 unless given. */
  readonly order?: number;
  /** Solves the reverse stochastic equation (up to order 2) instead of the deterministic one. */
  readonly stochastic?: boolean;
  /** The second-order formula; "midpoint" unless given. */
  readonly integration?: "midpoint" | "heun";
  /** True if the last steps of runs with fewer than 15 have a lower order, which is more stable; true unless given. */
  readonly lowerOrderFinal?: boolean;
  /** True if the last step always has order 1. A step to sigma 0 always does. */
  readonly eulerAtFinal?: boolean;
  /**
   * The variable over which x0 is taken to change linearly: λ (the default), or −log sigma as in k-diffusion, which is finite
   * at pure noise, so that the second step can use the first. The latter needs order 2 at most, "midpoint", and no noise.
   */
  readonly clock?: "lambda" | "sigma";
}

const clocks = { lambda: logRatio, sigma: ({ sigma }: NoiseLevel) => -Math.log(sigma) } as const;

/** @throws UsageError unless the order is 1, 2 or 3; 3 is not possible for the stochastic equation or over sigma */
export const dpmSolver: Sampler<DPMSolverOptions> = async function* (
  denoise,
  x,
  levels,
  options = {},
) {
  checkOrder(options);
  const timeOf = clocks[options.clock ?? "lambda"];
  let earlier: Estimate[] = [];
  for (const step of transitions(levels, options.signal)) {
    const { from } = step;
    const { x0 } = await denoise(x, from);
    const estimates = [{ x0, time: timeOf(from) }, ...earlier];
    const order = orderOf(step, levels.length - 1, estimates.length, options);
    x = advanced(x, step, estimates.slice(0, order), options);
    earlier = ticks(step, options) ? estimates.slice(0, 2) : [];
    yield report(step, levels, x, x0);
  }
  return x;
};

/** Returns true if the clock variable changes during a step, and is finite at its start. */
function ticks(step: Transition, { clock }: DPMSolverOptions): boolean {
  return clock === "sigma" ? step.from.sigma !== step.to.sigma : canExtrapolate(step);
}

function orderOf(
  step: Transition,
  steps: number,
  known: number,
  options: DPMSolverOptions,
): number {
  const { order = 2, lowerOrderFinal = true, eulerAtFinal = false } = options;
  const { index, to, last } = step;
  const few = lowerOrderFinal && steps < 15;
  if (!ticks(step, options) || (last && (few || eulerAtFinal || to.sigma === 0))) return 1;
  return Math.min(order, known, few && index === steps - 2 ? 2 : 3);
}

/** One step by the given estimates, newest first: Lu et al., eq. 9 to 12 and algorithm 2, and their appendix for the SDE. */
function advanced(
  x: NdArray,
  step: Transition,
  [m0, m1, m2]: readonly Estimate[],
  options: DPMSolverOptions,
): NdArray {
  const { from, to } = step;
  const { stochastic = false, integration = "midpoint", clock = "lambda" } = options;
  const shrink = noiseRatio(to) / noiseRatio(from); // exp(−h), also if h is infinite
  const decay = stochastic ? shrink ** 2 : shrink;
  const [ofX, ofX0] = [(to.sigma / from.sigma) * (stochastic ? shrink : 1), to.alpha * (1 - decay)];
  // Weights of the differences m0 − m1 and m1 − m2.
  let [newer, older] = [0, 0];
  if (m1) {
    const h = clocks[clock](to) - m0!.time;
    const exponent = stochastic ? 2 * h : h;
    const r0 = (m0!.time - m1.time) / h;
    const linear = to.alpha * (1 - (1 - decay) / exponent); // of the first derivative of x0 over λ
    newer = (m2 || integration === "heun" ? linear : ofX0 / 2) / r0;
    if (m2) {
      const r1 = (m1.time - m2.time) / h;
      // Half of the Taylor coefficient, as published: the order stays 2, with a smaller error.
      const quadratic = to.alpha * ((1 - decay - exponent) / exponent ** 2 + 0.5);
      const bend = (linear * r0 + quadratic) / (r0 + r1);
      newer += bend / r0;
      older = -bend / r1;
    }
  }
  const next = combine(
    [ofX, x],
    [ofX0 + newer, m0!.x0],
    ...(m1 ? [[older - newer, m1.x0] as const] : []),
    ...(m2 ? [[-older, m2.x0] as const] : []),
  );
  const added = stochastic ? to.sigma * Math.sqrt(1 - decay) : 0;
  return added === 0 ? next : combine([1, next], [added, noiseFor(step, x, options)]);
}

function checkOrder(options: DPMSolverOptions): void {
  const { order = 2, stochastic = false, integration = "midpoint", clock = "lambda" } = options;
  if (clock === "sigma" && (stochastic || integration === "heun")) {
    throw new UsageError(
      'DPM-Solver++ over sigma solves the deterministic equation by "midpoint" alone; leave the other out, or the clock.',
    );
  }
  const most = stochastic || clock === "sigma" ? 2 : 3;
  if (Number.isInteger(order) && order >= 1 && order <= most) return;
  const where = stochastic
    ? " for the stochastic equation"
    : clock === "sigma"
      ? " over sigma"
      : "";
  throw new UsageError(
    `The order of DPM-Solver++ must be a whole number from 1 to ${most}${where}, got ${order}.`,
  );
}

/** DPM-Solver++(2M). */
export const dpmSolver2M: Sampler = (denoise, x, levels, options) =>
  dpmSolver(denoise, x, levels, { ...options, order: 2 });

/** DPM-Solver++(2M) as in k-diffusion and Stable Diffusion 3: over −log sigma, with order 2 from the second step on. */
export const dpmSolver2MSigma: Sampler = (denoise, x, levels, options) =>
  dpmSolver(denoise, x, levels, { ...options, order: 2, clock: "sigma", lowerOrderFinal: false });

/** SDE-DPM-Solver++(2M). */
export const dpmSolver2MSDE: Sampler = (denoise, x, levels, options) =>
  dpmSolver(denoise, x, levels, { ...options, order: 2, stochastic: true });

/** DPM-Solver++(3M). With its published coefficients it has order 2 too, with a smaller error than 2M. */
export const dpmSolver3M: Sampler = (denoise, x, levels, options) =>
  dpmSolver(denoise, x, levels, { ...options, order: 3 });
