/**
 * Time shifts of published models that grow with the picture: μ, the logarithm of the shift s of `shiftTime`, for a number of
 * tokens of the picture (those of reference pictures do not count) and of steps.
 */
import type { FieldReader } from "../weights/config-fields.ts";

export type MuFor = (tokens: number, steps: number) => number;

type Point = readonly [x: number, y: number];

/** The value at x of the straight line through two points. */
function along(x: number, [x1, y1]: Point, [x2, y2]: Point): number {
  return y1 + ((x - x1) * (y2 - y1)) / (x2 - x1);
}

/** μ on the line through 0.5 at 256 tokens and 1.15 at 4096: FLUX.1 dev (`get_lin_function` of the original code). */
export const fluxMu: MuFor = (tokens) => along(tokens, [256, 0.5], [4096, 1.15]);

/** The same with the two points in the config of diffusers' scheduler. */
export function schedulerMu(read: FieldReader): MuFor {
  const low: Point = [read.number("base_image_seq_len", 256), read.number("base_shift", 0.5)];
  const high: Point = [read.number("max_image_seq_len", 4096), read.number("max_shift", 1.15)];
  return (tokens) => along(tokens, low, high);
}

/** FLUX.2, where μ was fitted to both the tokens and the steps (`compute_empirical_mu` of the original code). */
export const flux2Mu: MuFor = (tokens, steps) => {
  const at200 = 0.00016927 * tokens + 0.45666666;
  if (tokens > 4300) return at200;
  const at10 = 8.73809524e-5 * tokens + 1.89833333;
  return along(steps, [10, at10], [200, at200]);
};
