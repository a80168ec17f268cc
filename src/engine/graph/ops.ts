/**
 * The vocabulary of ops. Every node of a graph has one of these ops, with these attributes.
 *
 * A pass (infer, vjp, lower, evaluate) is a table with one rule for each name here. To add an op, write its attributes below and
 * then the rules that the compiler reports as missing.
 */
import type { DType, NdArray } from "../arrays/ndarray.ts";
import { recordOf } from "../records.ts";
import type { Graph } from "./graph.ts";
import type { Shape } from "./shape.ts";

interface None {}

/** x → f(x), element by element. */
interface UnaryOps {
  neg: None;
  abs: None;
  /** −1, 0 or 1. */
  sign: None;
  exp: None;
  /** Natural logarithm. */
  log: None;
  sqrt: None;
  reciprocal: None;
  sin: None;
  cos: None;
  tanh: None;
  erf: None;
  sigmoid: None;
  relu: None;
  /** x · sigmoid(x). */
  silu: None;
  /** x · Φ(x); "tanh" is the approximation of Hendrycks & Gimpel, 2016. */
  gelu: { readonly approximate: "none" | "tanh" };
  floor: None;
  ceil: None;
  /** Rounds to the nearest whole number, and halves to the even one. */
  round: None;
  /** x without a gradient. */
  detach: None;
}

/** (a, b) → f(a, b) with NumPy broadcasting; both have the same dtype. */
interface BinaryOps {
  add: None;
  sub: None;
  mul: None;
  div: None;
  pow: None;
  minimum: None;
  maximum: None;
}

/** (a, b) → bool with NumPy broadcasting. */
interface CompareOps {
  equal: None;
  less: None;
  lessEqual: None;
}

interface LogicOps {
  not: None;
  and: None;
  or: None;
}

/** Axes are counted from the front, ascending. */
interface Reduction {
  readonly axes: readonly number[];
  readonly keepDims: boolean;
}

interface ReduceOps {
  sum: Reduction;
  mean: Reduction;
  max: Reduction;
}

/** Spatial attributes of a convolution, with one entry for each spatial axis. */
export interface ConvAttributes {
  readonly stride: readonly number[];
  /** Zeros before and after each axis. */
  readonly padding: readonly (readonly [number, number])[];
  readonly dilation: readonly number[];
  readonly groups: number;
}

/** The same rule for several ops, as a part of a rule table. */
export function forEach<K extends OpName, R>(names: readonly K[], rule: R): Record<K, R> {
  return recordOf(names, () => rule);
}

export interface Ops extends UnaryOps, BinaryOps, CompareOps, LogicOps, ReduceOps {
  // Leaves
  /** Data that each run is given. */
  input: { readonly name: string; readonly shape: Shape; readonly dtype: DType };
  /** A weight, named by its key in a checkpoint. If fixed, it is a table that is neither trained nor counted. */
  parameter: {
    readonly name: string;
    readonly shape: Shape;
    readonly dtype: DType;
    readonly fixed?: true;
  };
  constant: { readonly value: NdArray };
  /** A tensor filled with one number. */
  full: { readonly value: number; readonly shape: Shape; readonly dtype: DType };

  // Elementwise
  /** (condition: bool, a, b) → a where the condition holds, and b elsewhere. */
  where: None;
  cast: { readonly to: DType };

  // Reductions and scans
  /** The number of elements of x along the axes, as a scalar of x's dtype. It is known only at run time if an axis is the batch. */
  extent: { readonly axes: readonly number[] };
  /** The position of the first largest element, int64; the axis is removed. */
  argmax: { readonly axis: number };
  argmin: { readonly axis: number };
  cumsum: { readonly axis: number; readonly reverse: boolean };
  softmax: { readonly axis: number };
  logSoftmax: { readonly axis: number };

  // Products
  /** [..., m, k] × [..., k, n] → [..., m, n] with broadcasting; a flag reads its operand with the last two axes swapped. */
  matmul: { readonly transposeA: boolean; readonly transposeB: boolean };
  /** (x [..., in], weight [out, in], bias [out]?) → x · weightᵀ + bias, [..., out]. */
  linear: None;
  /** (x [..., n]) → [uint8 [..., n], scale [..., 1]] with x ≈ scale·(uint8 − 128): scale = max |x| / 127 over the last axis, rounded to the nearest, and halves to the even one. */
  quantizeRows: None;
  /** (q uint8 [..., in], scale [..., 1], weight int8 [in, out], weightScale [out], bias [out]?) → scale · ((q − 128) · weight) · weightScale + bias. The sums are exact. */
  quantizedLinear: None;

  // Shape
  reshape: { readonly shape: Shape };
  /** Permutes axes: axis i of the result is axis permutation[i] of x. */
  transpose: { readonly permutation: readonly number[] };
  expand: { readonly shape: Shape };
  concat: { readonly axis: number };
  /** For each axis the first element, one past the last, and a step of at least 1. */
  slice: {
    readonly starts: readonly number[];
    readonly ends: Shape;
    readonly steps: readonly number[];
  };
  /** Several outputs, which follow one another along the axis. */
  split: { readonly axis: number; readonly sizes: Shape };
  pad: { readonly padding: readonly (readonly [number, number])[]; readonly value: number };
  flip: { readonly axes: readonly number[] };

  // Indexing
  /** (x, indices: integers in [0, size)) → x with the axis replaced by the dimensions of indices. */
  gather: { readonly axis: number };
  /** (updates [n, ...], indices [n]) → [size, ...]: row i is the sum of the updates with index i, as in the gradient of gather. */
  scatterSum: { readonly size: number };
  /** Adds a last axis of size `depth` that is 1 at the index and 0 elsewhere. */
  oneHot: { readonly depth: number; readonly dtype: DType };

  // Images (channels first, 1 to 3 spatial dimensions)
  /** (x [N, C, ...], weight [O, C/groups, ...], bias [O]?) */
  conv: ConvAttributes;
  /** (x [N, C, ...], weight [C, O/groups, ...], bias [O]?); outputPadding adds rows at the end of each axis. */
  convTranspose: ConvAttributes & { readonly outputPadding: readonly number[] };
  /** Repeats every pixel scale[i] times along spatial axis i. */
  upsampleNearest: { readonly scale: readonly number[] };

  // Normalization: single ops, so that float16 does not overflow between their parts
  /** (x, weight?, bias?) over the last axis → [y, mean, 1/std]; the statistics have size 1 along that axis. Ba et al., 2016. */
  layerNorm: { readonly epsilon: number };
  /** (x, weight?) over the last axis → [y, 1/rms]. Zhang & Sennrich, 2019. */
  rmsNorm: { readonly epsilon: number };
  /** (x [N, C, ...]) over groups of channels and space; affine parts are separate ops. Wu & He, 2018. */
  groupNorm: { readonly groups: number; readonly epsilon: number };

  /** (q [B, N, H·D], k [B, M, H·D], v [B, M, H·D], bias broadcastable to [B, H, N, M]?) → [y [B, N, H·D], p [B, H, N, M]]: p = softmax(q·kᵀ·scale + bias), y = p·v. If nothing reads p, it is never held in memory. Vaswani et al., 2017. */
  attention: { readonly heads: number; readonly scale: number };

  // Memory
  /** A block that the backward pass computes again instead of keeping its activations. The inputs are those of the body, in order. */
  recompute: { readonly body: Graph };
  /** (x, after) → x, which is available only once `after` has been computed. */
  barrier: None;
}

export type OpName = keyof Ops;
export type UnaryName = keyof UnaryOps;
export type BinaryName = keyof BinaryOps;
export type CompareName = keyof CompareOps;
export type ReduceName = keyof ReduceOps;
/** Ops that move numbers without changing them. */
export type MoveName =
  | "reshape"
  | "transpose"
  | "expand"
  | "concat"
  | "slice"
  | "split"
  | "pad"
  | "flip"
  | "gather"
  | "scatterSum"
  | "oneHot"
  | "upsampleNearest"
  | "barrier";
/** Ops that combine many numbers into one: reductions, products, convolutions, norms and attention. */
export type CombineName =
  | ReduceName
  | "extent"
  | "argmax"
  | "argmin"
  | "cumsum"
  | "softmax"
  | "logSoftmax"
  | "matmul"
  | "linear"
  | "quantizeRows"
  | "quantizedLinear"
  | "conv"
  | "convTranspose"
  | "layerNorm"
  | "rmsNorm"
  | "groupNorm"
  | "attention";

/** Options of a convolution or a pool; each is one number for all spatial axes, or one for each. */
export interface ConvOptions {
  /** Pixels from one output to the next, from 1, one number for all axes or one for each; 1 by default. */
  readonly stride?: number | readonly number[];
  /** Zeros added on both sides, from 0, one number for all axes, or a number or a pair (before, after) for each; 0 by default. */
  readonly padding?: number | readonly (number | readonly [number, number])[];
  /** Pixels from one tap of the kernel to the next, from 1; 1 by default. */
  readonly dilation?: number | readonly number[];
  /** Groups of channels that are convolved by themselves, a divisor of inputs and outputs; 1 by default. */
  readonly groups?: number;
}

/** Converts options to attributes with one entry for each spatial axis. */
export function convAttributes(spatial: number, options: ConvOptions): ConvAttributes {
  const { padding = 0 } = options;
  const pairs = typeof padding === "number" ? new Array<number>(spatial).fill(padding) : padding;
  return {
    stride: perAxis(options.stride ?? 1, spatial),
    padding: pairs.map((pair) => (typeof pair === "number" ? ([pair, pair] as const) : pair)),
    dilation: perAxis(options.dilation ?? 1, spatial),
    groups: options.groups ?? 1,
  };
}

export function perAxis(value: number | readonly number[], count: number): readonly number[] {
  return typeof value === "number" ? new Array<number>(count).fill(value) : value;
}
