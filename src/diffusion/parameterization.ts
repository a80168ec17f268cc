/**
 * What a network predicts, as one table: prediction, x0 and noise are each a weighted sum of two others. The weights are
 * numbers for samplers, and tensors in the graphs of losses.
 */
import type { NdArray } from "../engine/arrays/ndarray.ts";
import type { Tensor } from "../engine/graph/tensor.ts";
import { combine, type Real } from "./arrays.ts";

/**
 * - epsilon: the noise (Ho et al., 2020).
 * - x0: the image.
 * - v: alpha·noise − sigma·x0 (Salimans & Ho, 2022).
 * - flow: noise − x0, the velocity of rectified flow (Liu et al., 2022).
 */
export type Parameterization = "epsilon" | "x0" | "v" | "flow";

/** A number for arrays; in graphs also a tensor that broadcasts to the images, such as [B, 1, 1, 1]. */
type Coefficient = number | Tensor;

export interface SignalAndNoise<C extends Coefficient = Coefficient> {
  readonly alpha: C;
  readonly sigma: C;
}

/** Weights of the two parts of a sum. */
type Pair = readonly [Coefficient, Coefficient];

interface Conversions {
  /** Weights of x0 and the noise in what is predicted. */
  readonly target: Pair;
  /** Weights of x and the prediction in x0. */
  readonly x0: Pair;
  /** Weights of x and the prediction in the noise. */
  readonly noise: Pair;
}

/** Each row solves x = alpha·x0 + sigma·noise together with its target. */
const table: { readonly [P in Parameterization]: (level: SignalAndNoise) => Conversions } = {
  epsilon: ({ alpha, sigma }) => ({
    target: [0, 1],
    x0: [over(1, alpha), over(minus(sigma), alpha)],
    noise: [0, 1],
  }),
  x0: ({ alpha, sigma }) => ({
    target: [1, 0],
    x0: [0, 1],
    noise: [over(1, sigma), over(minus(alpha), sigma)],
  }),
  v: ({ alpha, sigma }) => {
    // 1 for variance-preserving levels.
    const square = plus(times(alpha, alpha), times(sigma, sigma));
    return {
      target: [minus(sigma), alpha],
      x0: [over(alpha, square), over(minus(sigma), square)],
      noise: [over(sigma, square), over(alpha, square)],
    };
  },
  flow: ({ alpha, sigma }) => {
    // 1 for straight levels.
    const whole = plus(alpha, sigma);
    return {
      target: [-1, 1],
      x0: [over(1, whole), over(minus(sigma), whole)],
      noise: [over(1, whole), over(alpha, whole)],
    };
  },
};

export const parameterizations = Object.keys(table) as readonly Parameterization[];

/** The prediction of a perfect network: the training target. */
export function targetOf(
  name: Parameterization,
  level: SignalAndNoise,
  { x0, noise }: { readonly x0: Tensor; readonly noise: Tensor },
): Tensor {
  const [p, q] = table[name](level).target;
  return sum([p, x0], [q, noise]);
}

/** The x0 that a prediction at x implies. */
export function x0Of(
  name: Parameterization,
  level: SignalAndNoise,
  x: Tensor,
  prediction: Tensor,
): Tensor {
  const [ofX, ofPrediction] = table[name](level).x0;
  return sum([ofX, x], [ofPrediction, prediction]);
}

/** The factor between errors of two kinds of predictions at the same x. */
export function gain(
  from: Parameterization,
  to: Parameterization,
  level: SignalAndNoise,
): Coefficient {
  const { x0, noise } = table[from](level);
  const [p, q] = table[to](level).target;
  return from === to ? 1 : plus(times(p, x0[1]), times(q, noise[1]));
}

/** The weights of x and of the prediction in x0, at a level of numbers. */
export function x0Weights(
  name: Parameterization,
  level: SignalAndNoise<number>,
): readonly [ofX: number, ofPrediction: number] {
  return numeric(name, level).x0;
}

/** Estimates of x0 and noise from a prediction, on host data. */
export function estimatesOf(
  name: Parameterization,
  level: SignalAndNoise<number>,
  x: NdArray,
  prediction: NdArray,
): { readonly x0: NdArray<Real>; readonly noise: NdArray<Real> } {
  const { x0, noise } = numeric(name, level);
  return {
    x0: combine([x0[0], x], [x0[1], prediction]),
    noise: combine([noise[0], x], [noise[1], prediction]),
  };
}

/** The prediction that x0 and noise imply, on host data. */
export function predictionOf(
  name: Parameterization,
  level: SignalAndNoise<number>,
  { x0, noise }: { readonly x0: NdArray; readonly noise: NdArray },
): NdArray<Real> {
  const [p, q] = numeric(name, level).target;
  return combine([p, x0], [q, noise]);
}

/** The weights of a row at a level of numbers, which are numbers too. */
function numeric(name: Parameterization, level: SignalAndNoise<number>) {
  return table[name](level) as { readonly [K in keyof Conversions]: readonly [number, number] };
}

function sum(...terms: readonly (readonly [Coefficient, Tensor])[]): Tensor {
  const parts = terms
    .filter(([weight]) => weight !== 0)
    .map(([weight, x]) => times(weight, x) as Tensor);
  return parts.reduce((total, part) => total.add(part));
}

// Arithmetic of coefficients, without ops that 0 and 1 make superfluous.

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
  if (typeof b === "number") return typeof a === "number" ? a / b : a.div(b);
  return typeof a === "number" ? times(a, b.reciprocal()) : a.div(b);
}
