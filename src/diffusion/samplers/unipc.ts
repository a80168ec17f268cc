/**
 * UniPC (Zhao et al., 2023, "UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion Models"): each
 * estimate of x0 also corrects the step that led to it, without another run of the network.
 */
import { UsageError } from "../../engine/errors.ts";
import type { NdArray } from "../../engine/arrays/ndarray.ts";
import { combine } from "../arrays.ts";
import { logRatio, type NoiseLevel, noiseRatio } from "../levels.ts";
import {
  report,
  type Sampler,
  type SamplerOptions,
  canExtrapolate,
  type Estimate,
  transitions,
} from "./sampler.ts";

export interface UniPCOptions extends SamplerOptions {
  /** Number of estimates that a step uses, at least 1; 2 unless given. */
  readonly order?: number;
  /** B(h) of the paper: h ("bh1"), or exp(h) − 1 ("bh2", the default), which is better with few steps and guidance. */
  readonly variant?: "bh1" | "bh2";
  /** True if the last steps have a lower order; true unless given. */
  readonly lowerOrderFinal?: boolean;
  /** Numbers of the steps, from 0, that are not corrected; none unless given. */
  readonly uncorrected?: readonly number[];
}

/** A step that can be repeated with one more estimate. */
interface Taken {
  readonly x: NdArray;
  readonly from: NoiseLevel;
  readonly to: NoiseLevel;
  /** Newest first, as many as the order. */
  readonly estimates: readonly Estimate[];
}

/** @throws UsageError unless the order is a whole number of at least 1 */
export const unipc: Sampler<UniPCOptions> = async function* (denoise, x, levels, options = {}) {
  const { order = 2, variant = "bh2", lowerOrderFinal = true, uncorrected = [], signal } = options;
  if (!Number.isInteger(order) || order < 1) {
    throw new UsageError(`The order of UniPC must be a whole number of at least 1, got ${order}.`);
  }
  let earlier: Estimate[] = [];
  let taken: Taken | undefined;
  for (const step of transitions(levels, signal)) {
    const { from, to, index } = step;
    const { x0 } = await denoise(x, from);
    const estimate = { x0, time: logRatio(from) };
    if (taken && !uncorrected.includes(index - 1)) x = advanced(taken, variant, estimate);
    const estimates = [estimate, ...earlier].slice(0, order);
    const left = lowerOrderFinal ? levels.length - 1 - index : order;
    const single = to.sigma === 0 || !canExtrapolate(step);
    taken = { x, from, to, estimates: estimates.slice(0, single ? 1 : left) };
    x = advanced(taken, variant);
    earlier = canExtrapolate(step) ? estimates : [];
    yield report(step, levels, x, x0);
  }
  return x;
};

/** The predictor (eq. 9 for x0), or with an estimate at the end of the step the corrector (eq. 8). */
function advanced(
  { x, from, to, estimates }: Taken,
  variant: "bh1" | "bh2",
  end?: Estimate,
): NdArray {
  const [m0, ...others] = estimates as readonly [Estimate, ...Estimate[]];
  const shrink = noiseRatio(to) / noiseRatio(from); // exp(−h), also if h is infinite
  const phi = shrink - 1;
  const ofX = to.sigma / from.sigma;
  const places = others.map(({ time }) => (time - m0.time) / (logRatio(to) - m0.time));
  const known = end ? [...others, end] : others;
  if (known.length === 0) return combine([ofX, x], [-to.alpha * phi, m0.x0]);

  const hh = m0.time - logRatio(to);
  // From pure noise h is infinite, for which only "bh2" has a value.
  const scale = variant === "bh1" && Number.isFinite(hh) ? hh : phi;
  // 1/2 for a single estimate, as the paper simplifies it; the corrector has one more, at the end of the step.
  const all = end ? [...places, 1] : places;
  const weights = all.length === 1 ? [0.5] : solve(...equations(all, hh, scale));
  // D = (m − m0) / r for each estimate; r is 1 at the end of the step.
  const ofDifferences = weights.map((weight, i) => (-to.alpha * scale * weight) / (places[i] ?? 1));
  const ofM0 = -to.alpha * phi - ofDifferences.reduce((sum, weight) => sum + weight);
  return combine(
    [ofX, x],
    [ofM0, m0.x0],
    ...known.map((estimate, i) => [ofDifferences[i]!, estimate.x0] as const),
  );
}

/** Row i: powers i of the places on the left, B(h)-scaled (i + 1)!·φ[i + 1] on the right (theorem 3.1). */
function equations(
  places: readonly number[],
  hh: number,
  scale: number,
): [rows: number[][], right: number[]] {
  let factorial = 1;
  let phi = Math.expm1(hh) / hh - 1;
  const right: number[] = [];
  for (let i = 1; i <= places.length; i++) {
    right.push((phi * factorial) / scale);
    factorial *= i + 1;
    phi = phi / hh - 1 / factorial;
  }
  return [right.map((_, i) => places.map((place) => place ** i)), right];
}

/** Gaussian elimination with pivoting; the system is as small as the order. */
function solve(rows: readonly (readonly number[])[], right: readonly number[]): number[] {
  const system = rows.map((row, i) => [...row, right[i]!]);
  const size = system.length;
  for (let column = 0; column < size; column++) {
    const below = system.slice(column);
    const largest = below.reduce((a, b) => (Math.abs(b[column]!) > Math.abs(a[column]!) ? b : a));
    system[system.indexOf(largest)] = system[column]!;
    system[column] = largest;
    for (const row of system.slice(column + 1)) {
      const factor = row[column]! / largest[column]!;
      for (let j = column; j <= size; j++) row[j]! -= factor * largest[j]!;
    }
  }
  const solution = new Array<number>(size).fill(0);
  for (let i = size - 1; i >= 0; i--) {
    const row = system[i]!;
    const known = solution.reduce((sum, value, j) => (j > i ? sum + value * row[j]! : sum), 0);
    solution[i] = (row[size]! - known) / row[i]!;
  }
  return solution;
}
