/**
 * The values of the reference interpreter, which are float64 numbers in row-major order for every dtype, and ways to iterate over
 * them.
 */
import { type DType, sizeOf, stridesOf } from "../arrays/ndarray.ts";
import { ShapeError } from "../errors.ts";
import type { OpName, Ops } from "../graph/ops.ts";
import { broadcast, formatShape, type Shape } from "../graph/shape.ts";

/** The elements. Integers are exact up to 2^53; bools are 0 and 1. */
export interface Value {
  readonly shape: readonly number[];
  readonly data: Float64Array;
}

/** What an implementation gets besides the inputs and attributes. */
export interface Context {
  /** The shape of the node's first output. */
  readonly dtype: DType;
  /** The batch size of this run, if an input determines it. */
  readonly batchSize: number | undefined;
  /** Replaces the batch by its size. Throws a ShapeError if no input determines it. */
  readonly resolve: (shape: Shape) => number[];
}

export type EvaluateRule<K extends OpName> = (
  inputs: readonly Value[],
  attributes: Ops[K],
  context: Context,
) => readonly Value[];

export type EvaluateRules = { readonly [K in OpName]: EvaluateRule<K> };

/** Creates an array of zeros. */
export function blank(shape: readonly number[]): Value {
  return { shape, data: new Float64Array(sizeOf(shape)) };
}

/** Returns the input at an index. Throws a ShapeError if there is none. */
export function at(inputs: readonly Value[], index: number): Value {
  const value = inputs[index];
  if (!value) throw new ShapeError(`Input ${index} of a node has no value.`);
  return value;
}

/** Returns the positions start + Σ index·stride for all indices of a shape, in row-major order. */
export function offsets(
  shape: readonly number[],
  strides: readonly number[],
  start = 0,
): Int32Array {
  const positions = new Int32Array(sizeOf(shape));
  if (positions.length === 0) return positions;
  positions[0] = start;
  let count = 1;
  for (const [axis, size] of shape.entries()) {
    // Every position becomes `size` positions, from the end on, so that none is overwritten before it is read.
    for (let i = count - 1; i >= 0; i--) {
      const position = positions[i]!;
      for (let j = size - 1; j >= 0; j--) positions[i * size + j] = position + j * strides[axis]!;
    }
    count *= size;
  }
  return positions;
}

/** Copies the elements that a shape, strides and a start select. */
export function view(
  x: Value,
  shape: readonly number[],
  strides: readonly number[],
  start = 0,
): Value {
  return { shape, data: Float64Array.from(offsets(shape, strides, start), (p) => x.data[p]!) };
}

/** Returns the strides that read `shape` as the larger shape it broadcasts to; repeated axes have stride 0. */
export function broadcastStrides(shape: readonly number[], to: readonly number[]): number[] {
  const strides = stridesOf(shape);
  return to.map((_, axis) => {
    const own = axis - to.length + shape.length;
    return own < 0 || shape[own] === 1 ? 0 : strides[own]!;
  });
}

/** Repeats x to a shape, as NumPy's broadcast_to does. */
export function expandTo(x: Value, shape: readonly number[]): Value {
  return view(x, shape, broadcastStrides(x.shape, shape));
}

/** Returns the shape that two shapes broadcast to. Throws a ShapeError if there is none. */
export function commonShape(a: readonly number[], b: readonly number[]): number[] {
  const shape = broadcast(a, b);
  if (!shape) throw new ShapeError(`${formatShape(a)} and ${formatShape(b)} do not broadcast.`);
  return shape as number[];
}

/** Permutes axes: axis i of the result is axis permutation[i] of x. */
export function transposed(x: Value, permutation: readonly number[]): Value {
  const strides = stridesOf(x.shape);
  return view(
    x,
    permutation.map((axis) => x.shape[axis]!),
    permutation.map((axis) => strides[axis]!),
  );
}

/** Returns the sizes before, on and after an axis: element (o, i, n) is at (o · size + i) · inner + n. */
export function aroundAxis(shape: readonly number[], axis: number) {
  return {
    outer: sizeOf(shape.slice(0, axis)),
    size: shape[axis]!,
    inner: sizeOf(shape.slice(axis + 1)),
  };
}

/** Returns the positions of each line of elements along an axis. */
export function linesAlong(shape: readonly number[], axis: number): number[][] {
  const { outer, size, inner } = aroundAxis(shape, axis);
  const lines: number[][] = [];
  for (let o = 0; o < outer; o++) {
    for (let n = 0; n < inner; n++) {
      lines.push(Array.from({ length: size }, (_, i) => (o * size + i) * inner + n));
    }
  }
  return lines;
}
