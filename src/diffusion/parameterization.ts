/**
 * What a network may predict, as ONE table: each is a sum of x0 and noise. With x = alpha·x0 + sigma·noise that makes two
 * equations in two unknowns, from which every conversion follows: of numbers for samplers, in the graph for losses.
 */
import type { NdArray } from "../engine/ndarray.ts";
import type { Tensor } from "../engine/tensor.ts";
import { combine, type Real } from "./arrays.ts";

/**
 * - epsilon: the noise (Ho et al., 2020).
 * - x0: the image.
 * - v: alpha·noise − sigma·x0 (Salimans & Ho, 2022).
 * - flow: noise − x0, the velocity of rectified flow (Liu et al., 2022).
 */
export type Parameterization = "epsilon" | "x0" | "v" | "flow";

/** A number for arrays; for graphs also a tensor that broadcasts to the images, such as [B, 1, 1, 1]. */
type Coefficient = number | Tensor;

export interface SignalAndNoise<C extends Coefficient = Coefficient> {
  readonly alpha: C;
  readonly sigma: C;
}

/** Weights of the two parts of a sum. */
type Pair<C> = readonly [C, C];

/** How much of x0, and how much of the noise, is predicted. */
const predicted: {
  readonly [P in Parameterization]: (level: SignalAndNoise) => Pair<Coefficient>;
} = {
  epsilon: () => [0, 1],
  x0: () => [1, 0],
  v: ({ alpha, sigma }) => [minus(sigma), alpha],
  flow: () => [-1, 1],
};

export const parameterizations = Object.keys(predicted) as readonly Parameterization[];

interface Conversion<C> {
  /** Weights of x0 and noise in what is predicted. */
  readonly target: Pair<C>;
  /** Weights of x and of the prediction in x0. */
  readonly x0: Pair<C>;
  /** Weights of x and of the prediction in the noise. */
  readonly noise: Pair<C>;
}

/** Cramer's rule on x = alpha·x0 + sigma·noise and prediction = p·x0 + q·noise. */
function conversion(name: Parameterization, level: SignalAndNoise<number>): Conversion<number>;
function conversion(name: Parameterization, level: SignalAndNoise): Conversion<Coefficient>;
function conversion(name: Parameterization, level: SignalAndNoise): Conversion<Coefficient> {
  const { alpha, sigma } = level;
  const [p, q] = predicted[name](level);
  // Made once: what is the same object divides to exactly 1, also where it is 0.
  const negative = minus(sigma);
  const determinant = plus(times(alpha, q), times(negative, p));
  return {
    target: [p, q],
    x0: [over(q, determinant), over(negative, determinant)],
    noise: [over(minus(p), determinant), over(alpha, determinant)],
  };
}

/** What a perfect network predicts. */
export function targetOf(
  name: Parameterization,
  level: SignalAndNoise,
  { x0, noise }: { readonly x0: Tensor; readonly noise: Tensor },
): Tensor {
  const [p, q] = conversion(name, level).target;
  return sum([p, x0], [q, noise]);
}

/** The x0 that a prediction at x means. */
export function x0Of(
  name: Parameterization,
  level: SignalAndNoise,
  x: Tensor,
  prediction: Tensor,
): Tensor {
  const [ofX, ofPrediction] = conversion(name, level).x0;
  return sum([ofX, x], [ofPrediction, prediction]);
}

/** How far the prediction of one kind moves for each unit that one of another kind moves, at the same x. */
export function gain(
  from: Parameterization,
  to: Parameterization,
  level: SignalAndNoise,
): Coefficient {
  const { x0, noise } = conversion(from, level);
  const [p, q] = conversion(to, level).target;
  return from === to ? 1 : plus(times(p, x0[1]), times(q, noise[1]));
}

/** The same conversions on host data. */
export function estimatesOf(
  name: Parameterization,
  level: SignalAndNoise<number>,
  x: NdArray,
  prediction: NdArray,
): { readonly x0: NdArray<Real>; readonly noise: NdArray<Real> } {
  const { x0, noise } = conversion(name, level);
  return {
    x0: combine([x0[0], x], [x0[1], prediction]),
    noise: combine([noise[0], x], [noise[1], prediction]),
  };
}

/** What a network of this kind would have predicted, from x0 and noise on the host. */
export function predictionOf(
  name: Parameterization,
  level: SignalAndNoise<number>,
  { x0, noise }: { readonly x0: NdArray; readonly noise: NdArray },
): NdArray<Real> {
  const [p, q] = conversion(name, level).target;
  return combine([p, x0], [q, noise]);
}

function sum(...terms: readonly (readonly [Coefficient, Tensor])[]): Tensor {
  const parts = terms
    .filter(([weight]) => weight !== 0)
    .map(([weight, x]) => times(weight, x) as Tensor);
  return parts.reduce((total, part) => total.add(part));
}

// Arithmetic of coefficients, which leaves out what 0 and 1 make superfluous.

function minus(a: Coefficient): Coefficient {
  if (typeof a === "number") return 0 - a;
  return a.neg();
}

function plus(a: Coefficient, b: Coefficient): Coefficient {
  if (typeof a !== "number") return b === 0 ? a : a.add(b);
  return typeof b === "number" ? a + b : plus(b, a);
}

function times(a: Coefficient, b: Coefficient): Coefficient {
  if (typeof a !== "number") return typeof b === "number" ? times(b, a) : a.mul(b);
  if (typeof b === "number") return a * b;
  if (a === 0) return 0;
  if (a === 1) return b;
  return a === -1 ? b.neg() : b.mul(a);
}

function over(a: Coefficient, b: Coefficient): Coefficient {
  if (a === b) return 1;
  if (a === 0) return 0;
  if (b === 1) return a;
  if (typeof a === "number") {
    return typeof b === "number" ? a / b : times(a, b.reciprocal());
  }
  return a.div(b);
}
