/**
 * Shapes of symbolic tensors. Every dimension is known when a graph is built except the batch, which may stay symbolic: `k·B` with
 * a known factor k, such as 64·B for the tokens of a batch or 2·B for a batch concatenated with itself for guidance. One program
 * then works for any batch size.
 */
import { ShapeError } from "../errors.ts";

/** The dimension `batch · B`, where B is the batch size of a run. Equal dimensions are the same object. */
export interface BatchDim {
  readonly batch: number;
}

export type Dim = number | BatchDim;
export type Shape = readonly Dim[];

const interned = new Map<number, BatchDim>();

/** Returns the dimension `factor · B` for a positive whole factor. */
export function batchTimes(factor: number): BatchDim {
  let dim = interned.get(factor);
  if (!dim) {
    if (!Number.isInteger(factor) || factor < 1) {
      throw new ShapeError(`A batch dimension needs a positive whole factor, not ${factor}.`);
    }
    dim = Object.freeze({ batch: factor });
    interned.set(factor, dim);
  }
  return dim;
}

/** The symbolic batch dimension B. */
export const batch: BatchDim = batchTimes(1);

export function isStatic(shape: Shape): shape is readonly number[] {
  return shape.every((dim) => typeof dim === "number");
}

export function sameShape(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((dim, axis) => dim === b[axis]);
}

/** `B`, `64B` or a number. */
export function formatDim(dim: Dim): string {
  if (typeof dim === "number") return String(dim);
  return dim.batch === 1 ? "B" : `${dim.batch}B`;
}

/** `[2B, 64, 384]` */
export function formatShape(shape: Shape): string {
  return `[${shape.map(formatDim).join(", ")}]`;
}

/** Multiplies dimensions. Returns undefined if the batch occurs twice. */
export function product(dims: Shape): Dim | undefined {
  let factor = 1;
  let symbolic = 0;
  for (const dim of dims) {
    if (typeof dim === "number") factor *= dim;
    else {
      factor *= dim.batch;
      symbolic++;
    }
  }
  if (symbolic === 0 || factor === 0) return factor;
  return symbolic === 1 ? batchTimes(factor) : undefined;
}

/** Returns a / b, or undefined if that is not a whole dimension. */
export function quotient(a: Dim, b: Dim): Dim | undefined {
  const [top, bottom] = [factorOf(a), factorOf(b)];
  if (bottom <= 0 || top % bottom !== 0) return undefined;
  if (typeof b !== "number") return typeof a === "number" ? undefined : top / bottom;
  return typeof a === "number" ? top / bottom : batchTimes(top / bottom);
}

/** Returns a + b, or undefined for the sum of a batch and a number other than 0, which no dimension can express. */
export function sum(a: Dim, b: Dim): Dim | undefined {
  if (a === 0) return b;
  if (b === 0) return a;
  if (typeof a === "number") return typeof b === "number" ? a + b : undefined;
  return typeof b === "number" ? undefined : batchTimes(a.batch + b.batch);
}

/** Returns the number itself, or the factor k of k·B. */
export function factorOf(dim: Dim): number {
  return typeof dim === "number" ? dim : dim.batch;
}

/** Broadcasts two shapes by NumPy's rule. Returns undefined if two dimensions differ and neither is 1. */
export function broadcast(a: Shape, b: Shape): Shape | undefined {
  const rank = Math.max(a.length, b.length);
  const result: Dim[] = [];
  for (let axis = 0; axis < rank; axis++) {
    const left = a[axis - rank + a.length] ?? 1;
    const right = b[axis - rank + b.length] ?? 1;
    if (left !== right && left !== 1 && right !== 1) return undefined;
    result.push(left === 1 ? right : left);
  }
  return result;
}

/** Converts an axis in [−rank, rank) to one counted from the front. */
export function normalizeAxis(axis: number, rank: number): number {
  const normal = axis < 0 ? axis + rank : axis;
  if (!Number.isInteger(axis) || normal < 0 || normal >= rank) {
    throw new ShapeError(
      `axis ${axis} does not exist in ${rank} dimensions: expected a whole number from ${-rank} to ${rank - 1}`,
    );
  }
  return normal;
}

/** Replaces the −1 of a shape, if there is one, by the size that follows from the number of elements. */
export function fillRest(from: Shape, shape: Shape): Shape {
  const rest = shape.indexOf(-1);
  if (rest < 0) return shape;
  const others = product(shape.filter((_, axis) => axis !== rest));
  const total = product(from);
  const missing = total !== undefined && others !== undefined ? quotient(total, others) : undefined;
  return missing === undefined ? shape : shape.map((dim, axis) => (axis === rest ? missing : dim));
}

/** Replaces each batch dimension by its size in a run. */
export function resolve(shape: Shape, batchSize: number | undefined): number[] {
  return shape.map((dim) => {
    if (typeof dim === "number") return dim;
    if (batchSize === undefined) {
      throw new ShapeError(
        `The shape ${formatShape(shape)} depends on the batch size, which no input gives.`,
      );
    }
    return dim.batch * batchSize;
  });
}

/**
 * Finds the batch size for which `actual` is an instance of `declared`.
 *
 * @returns no batch size for a static shape, and a description of the mismatch if the shapes do not match
 */
export function matchBatch(
  declared: Shape,
  actual: readonly number[],
): { batchSize?: number } | { mismatch: string } {
  const fail = { mismatch: `expected ${formatShape(declared)}, got ${formatShape(actual)}` };
  if (declared.length !== actual.length) return fail;
  let batchSize: number | undefined;
  for (const [axis, dim] of declared.entries()) {
    const size = actual[axis]!;
    if (typeof dim === "number") {
      if (dim !== size) return fail;
      continue;
    }
    const found = size / dim.batch;
    if (!Number.isInteger(found) || (batchSize !== undefined && batchSize !== found)) return fail;
    batchSize = found;
  }
  return batchSize === undefined ? {} : { batchSize };
}
