/**
 * Leaves of a graph, and operations on several tensors, which no single one of them owns.
 */
import type { DType } from "../arrays/dtype.ts";
import { ShapeError } from "../errors.ts";
import { type NdArray, ndarray } from "../arrays/ndarray.ts";
import { normalizeAxis, type Shape } from "./shape.ts";
import { apply, type Tensor } from "./tensor.ts";

/** Data given to every run under this name. */
export function input(name: string, shape: Shape, dtype: DType = "float32"): Tensor {
  return apply("input", [], { name, shape, dtype });
}

/** A weight under its checkpoint key. */
export function parameter(name: string, shape: Shape, dtype: DType = "float32"): Tensor {
  return apply("parameter", [], { name, shape, dtype });
}

/** A table under its checkpoint key, which is neither trained nor counted. */
export function storedTable(name: string, shape: Shape): Tensor {
  return apply("parameter", [], { name, shape, dtype: "float32", fixed: true });
}

/** Host data frozen into the graph. */
export function constant(value: NdArray): Tensor {
  return apply("constant", [], { value });
}

/** Numbers frozen into the graph. */
export function constantOf(
  values: readonly number[],
  shape: readonly number[],
  dtype: DType = "float32",
): Tensor {
  return constant(ndarray(dtype, shape, values));
}

/** One number everywhere. */
export function full(shape: Shape, value: number, dtype: DType = "float32"): Tensor {
  return apply("full", [], { value, shape, dtype });
}

export function zerosLike(x: Tensor): Tensor {
  return full(x.shape, 0, x.dtype);
}

export function onesLike(x: Tensor): Tensor {
  return full(x.shape, 1, x.dtype);
}

/** Tensors one after another along an axis; a single one is itself. */
export function concat(tensors: readonly Tensor[], axis: number): Tensor {
  const [first] = tensors;
  if (!first) throw new ShapeError("concat: expected at least one tensor, got none.");
  return tensors.length === 1
    ? first
    : apply("concat", tensors, { axis: normalizeAxis(axis, first.rank) });
}

/** Tensors of one shape along a new axis. */
export function stack(tensors: readonly Tensor[], axis = 0): Tensor {
  return concat(
    tensors.map((tensor) => tensor.unsqueeze(axis)),
    axis,
  );
}

/** The same values, through which no gradient flows. */
export function detach(x: Tensor): Tensor {
  return apply("detach", [x], {});
}

/** a where the condition holds, else b; broadcasting. */
export function where(condition: Tensor, a: Tensor, b: Tensor): Tensor {
  return apply("where", [condition, a, b], {});
}

/** Sums rows that share an index: updates [n, ...], indices [n] → [size, ...]. */
export function scatterSum(updates: Tensor, indices: Tensor, size: number): Tensor {
  return apply("scatterSum", [updates, indices], { size });
}

/**
 * softmax(q·kᵀ·scale + bias)·v over heads laid side by side in the last axis.
 *
 * @param q [batch, n, heads · size]
 * @param k [batch, m, heads · size]
 * @param v [batch, m, heads · size]
 * @param options.bias added to the scores, broadcastable to [batch, heads, n, m]
 * @param options.scale 1 / √size unless given
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
