/** Checks of inputs and attributes that the rules of infer.ts share. */
import { type DType, isFloat } from "../arrays/ndarray.ts";
import { ShapeError } from "../errors.ts";
import type { OpName, Ops } from "./ops.ts";
import {
  batchTimes,
  broadcast,
  type Dim,
  formatDim,
  formatShape,
  normalizeAxis,
  sameShape,
  type Shape,
} from "./shape.ts";

export interface TensorType {
  readonly shape: Shape;
  readonly dtype: DType;
}

export type InferRule<K extends OpName> = (
  inputs: readonly TensorType[],
  attributes: Ops[K],
) => readonly TensorType[];

export type InferRules = { readonly [K in OpName]: InferRule<K> };

export const fail = (message: string): never => {
  throw new ShapeError(message);
};

/** Returns the input at an index, and fails if it is missing. */
export function at(inputs: readonly TensorType[], index: number): TensorType {
  return inputs[index] ?? fail(`input ${index} is missing`);
}

export function dimAt(shape: Shape, axis: number): Dim {
  return shape[normalizeAxis(axis, shape.length)]!;
}

export function requireFloat(x: TensorType): TensorType {
  if (!isFloat(x.dtype)) fail(`expected a float dtype, got ${x.dtype}`);
  return x;
}

export function requireDtype(x: TensorType, ...expected: DType[]): TensorType {
  if (!expected.includes(x.dtype)) fail(`expected dtype ${expected.join(" or ")}, got ${x.dtype}`);
  return x;
}

export function requireSameDtype(a: TensorType, b: TensorType): DType {
  if (a.dtype !== b.dtype) fail(`dtypes ${a.dtype} and ${b.dtype} differ; cast one of them`);
  return a.dtype;
}

export function requireRank(x: TensorType, atLeast: number): void {
  if (x.shape.length < atLeast) {
    fail(`${formatShape(x.shape)} has ${x.shape.length} dimensions, expected at least ${atLeast}`);
  }
}

/** Checks an operand whose type follows from the others; an optional operand may be missing. */
export function requireType(
  name: string,
  x: TensorType | undefined,
  expected: { readonly shape: Shape; readonly dtype: DType },
): void {
  if (!x || (sameShape(x.shape, expected.shape) && x.dtype === expected.dtype)) return;
  fail(
    `${name} is ${x.dtype} ${formatShape(x.shape)}, expected ${expected.dtype} ${formatShape(expected.shape)}`,
  );
}

/** Checks that there is a whole number of at least `least` for each axis. */
export function requireCounts(
  name: string,
  values: readonly number[],
  axes: number,
  least: number,
): void {
  if (values.length !== axes) {
    fail(`${name} has ${values.length} entries for ${axes} spatial axes`);
  }
  for (const value of values) requireCount(name, value, least);
}

/** Checks that a value is a whole number of at least `least`. */
export function requireCount(name: string, value: number, least = 1): void {
  if (!Number.isInteger(value) || value < least) {
    fail(`${name} is ${value}, expected a whole number from ${least}`);
  }
}

/** Checks a shape given by a caller: every size is a whole number of at least 0, or a batch dimension. */
export function checkShape(shape: Shape): Shape {
  const wrong = shape.find(
    (dim) => typeof dim === "number" && !(Number.isInteger(dim) && dim >= 0),
  );
  return wrong === undefined
    ? shape
    : fail(`${formatShape(shape)} has the size ${formatDim(wrong)}, expected whole numbers from 0`);
}

/** Returns the size of a spatial axis, which must not be the batch. */
export function spatialSize(dim: Dim): number {
  return typeof dim === "number" ? dim : fail("a spatial axis cannot be the batch");
}

export function broadcastOrFail(a: Shape, b: Shape): Shape {
  return broadcast(a, b) ?? fail(`${formatShape(a)} and ${formatShape(b)} do not broadcast`);
}

/** Returns dim · factor. */
export function scale(dim: Dim, factor: number): Dim {
  return typeof dim === "number" ? dim * factor : batchTimes(dim.batch * factor);
}
