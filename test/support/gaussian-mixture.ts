/** Data whose every conditional mean is known: a mixture of Gaussians in one dimension, one number an image. */
import { mapElements } from "../../src/diffusion/arrays.ts";
import type { Denoiser } from "../../src/diffusion/denoiser.ts";
import type { NoiseLevel } from "../../src/diffusion/levels.ts";

export interface Component {
  readonly weight: number;
  readonly mean: number;
  readonly std: number;
}

/** E[x0 | x], and nothing to learn. */
export function mixtureDenoiser(components: readonly Component[]): Denoiser {
  return async (x, level) => ({
    x0: mapElements((value) => estimate(components, value, level), x),
  });
}

function estimate(
  components: readonly Component[],
  x: number,
  { alpha, sigma }: NoiseLevel,
): number {
  const parts = components.map(({ weight, mean, std }) => {
    const variance = (alpha * std) ** 2 + sigma ** 2;
    const distance = x - alpha * mean;
    return {
      log: Math.log(weight) - distance ** 2 / (2 * variance) - Math.log(variance) / 2,
      mean: mean + ((alpha * std ** 2) / variance) * distance,
    };
  });
  const largest = Math.max(...parts.map(({ log }) => log));
  const odds = parts.map(({ log }) => Math.exp(log - largest));
  const total = odds.reduce((sum, each) => sum + each);
  return parts.reduce((sum, part, i) => sum + (odds[i]! / total) * part.mean, 0);
}

/**
 * Where the probability-flow equation takes x: in one dimension no two paths cross, so that the share of the data below
 * each stays what it is.
 */
export function flowOf(
  components: readonly Component[],
  x: number,
  from: NoiseLevel,
  to: NoiseLevel,
): number {
  const share = shareBelow(components, x, from);
  let [low, high] = [-100, 100];
  for (let i = 0; i < 200; i++) {
    const middle = (low + high) / 2;
    if (shareBelow(components, middle, to) < share) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

function shareBelow(
  components: readonly Component[],
  x: number,
  { alpha, sigma }: NoiseLevel,
): number {
  return components.reduce((sum, { weight, mean, std }) => {
    const deviation = Math.sqrt((alpha * std) ** 2 + sigma ** 2);
    return sum + weight * normalCDF((x - alpha * mean) / deviation);
  }, 0);
}

/** Φ by integration from 0: Simpson's rule, to 1e-13. */
function normalCDF(x: number): number {
  const steps = 400;
  const density = (z: number) => Math.exp((-z * z) / 2) / Math.sqrt(2 * Math.PI);
  const width = Math.min(Math.max(x, -9), 9) / steps;
  let sum = density(0) + density(width * steps);
  for (let i = 1; i < steps; i++) sum += density(i * width) * (i % 2 === 1 ? 4 : 2);
  return 0.5 + (sum * width) / 3;
}
