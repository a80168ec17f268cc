/**
 * The leaves of a graph, and operations on several tensors.
 */
import { type DType, type NdArray, ndarray } from "../arrays/ndarray.ts";
import { ShapeError } from "../errors.ts";
import { normalizeAxis, type Shape } from "./shape.ts";
import { apply, applyMany, type Tensor } from "./tensor.ts";

/** Declares data that every run is given under this name. */
export function input(name: string, shape: Shape, dtype: DType = "float32"): Tensor {
  return apply("input", [], { name, shape, dtype });
}

/** Declares a weight with its checkpoint key as the name. */
export function parameter(name: string, shape: Shape, dtype: DType = "float32"): Tensor {
  return apply("parameter", [], { name, shape, dtype });
}

/** Declares a fixed table with its checkpoint key as the name; it is neither trained nor counted as a parameter. */
export function storedTable(name: string, shape: Shape): Tensor {
  return apply("parameter", [], { name, shape, dtype: "float32", fixed: true });
}

/** Makes host data part of the graph. */
export function constant(value: NdArray): Tensor {
  return apply("constant", [], { value });
}

/** Makes numbers part of the graph. */
export function constantOf(
  values: readonly number[],
  shape: readonly number[],
  dtype: DType = "float32",
): Tensor {
  return constant(ndarray(dtype, shape, values));
}

/** A tensor filled with one number. */
export function full(shape: Shape, value: number, dtype: DType = "float32"): Tensor {
  return apply("full", [], { value, shape, dtype });
}

export function zerosLike(x: Tensor): Tensor {
  return full(x.shape, 0, x.dtype);
}

export function onesLike(x: Tensor): Tensor {
  return full(x.shape, 1, x.dtype);
}

/** Concatenates tensors along an axis. A single tensor is returned as it is. */
export function concat(tensors: readonly Tensor[], axis: number): Tensor {
  const [first] = tensors;
  if (!first) throw new ShapeError("concat: expected at least one tensor, got none.");
  return tensors.length === 1
    ? first
    : apply("concat", tensors, { axis: normalizeAxis(axis, first.rank) });
}

/** Stacks tensors of one shape along a new axis. */
export function stack(tensors: readonly Tensor[], axis = 0): Tensor {
  return concat(
    tensors.map((tensor) => tensor.unsqueeze(axis)),
    axis,
  );
}

/** Returns the same values without a gradient. */
export function detach(x: Tensor): Tensor {
  return apply("detach", [x], {});
}

/** Selects a where the condition holds and b elsewhere, with broadcasting. */
export function where(condition: Tensor, a: Tensor, b: Tensor): Tensor {
  return apply("where", [condition, a, b], {});
}

/** Sums the rows that share an index: updates [n, ...], indices [n] → [size, ...]. */
export function scatterSum(updates: Tensor, indices: Tensor, size: number): Tensor {
  return apply("scatterSum", [updates, indices], { size });
}

/**
 * Multi-head attention, softmax(q·kᵀ·scale + bias)·v, with the heads side by side in the last axis.
 *
 * @param q [batch, n, heads · size]
 * @param k [batch, m, heads · size]
 * @param v [batch, m, heads · size]
 * @param options.bias added to the scores, broadcastable to [batch, heads, n, m]
 * @param options.scale 1 / √size by default
 */
export function attention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: { heads: number; scale?: number; bias?: Tensor },
): Tensor {
  const { heads, bias } = options;
  const scale = options.scale ?? 1 / Math.sqrt(q.size(-1) / heads);
  return apply("attention", bias ? [q, k, v, bias] : [q, k, v], { heads, scale });
}

/**
 * A linear layer by products of 8-bit integers: the rows of x are quantized as the program runs.
 *
 * @param x float32 [..., in]
 * @param weight int8 [in, out]
 * @param weightScale float32 [out]: the layer's weight is weight · weightScale
 * @param bias float32 [out]
 */
export function quantizedLinear(
  x: Tensor,
  weight: Tensor,
  weightScale: Tensor,
  bias?: Tensor,
): Tensor {
  const [q, scale] = applyMany("quantizeRows", [x], {}) as [Tensor, Tensor];
  const operands = [q, scale, weight, weightScale];
  return apply("quantizedLinear", bias ? [...operands, bias] : operands, {});
}
