/**
 * Symbolic tensors. A tensor is a value that a program will compute; its shape and dtype are known now. Every method only adds a
 * node to the graph: nothing is computed until a backend runs it.
 */
import type { DType } from "../arrays/ndarray.ts";
import { ShapeError } from "../errors.ts";
import { inferRules, type TensorType } from "./infer.ts";
import { convAttributes, type ConvOptions, type OpName, type Ops, perAxis } from "./ops.ts";
import {
  type Dim,
  fillRest,
  formatShape,
  normalizeAxis,
  quotient,
  sameShape,
  type Shape,
} from "./shape.ts";
import { rearrange } from "./rearrange.ts";

export interface Node<K extends OpName = OpName> {
  readonly op: K;
  readonly inputs: readonly Tensor[];
  readonly attributes: Ops[K];
  readonly outputs: readonly Tensor[];
  /** The path of the nearest parameter, which errors name. */
  readonly scope: string;
  /** Ascending in the order of creation. */
  readonly id: number;
}

/** An operand of an elementwise method: another tensor, or a number, which takes the tensor's dtype. */
export type Operand = Tensor | number;

let nextId = 0;

/**
 * Adds one node and returns its outputs.
 *
 * @throws ShapeError that names the op, its inputs and the path of the nearest parameter
 */
export function applyMany<K extends OpName>(
  op: K,
  inputs: readonly Tensor[],
  attributes: Ops[K],
  scope: string = scopeOf(op, inputs, attributes),
): readonly Tensor[] {
  const outputs: Tensor[] = [];
  const node: Node<K> = { op, inputs, attributes, outputs, scope, id: nextId++ };
  for (const type of inferOrExplain(op, inputs, attributes, scope)) {
    outputs.push(new Tensor(node, outputs.length, type));
  }
  return outputs;
}

/** Adds one node and returns its first output. */
export function apply<K extends OpName>(
  op: K,
  inputs: readonly Tensor[],
  attributes: Ops[K],
): Tensor {
  return applyMany(op, inputs, attributes)[0]!;
}

function inferOrExplain<K extends OpName>(
  op: K,
  inputs: readonly Tensor[],
  attributes: Ops[K],
  scope: string,
): readonly TensorType[] {
  try {
    return inferRules[op](inputs, attributes);
  } catch (error) {
    if (!(error instanceof ShapeError)) throw error;
    throw new ShapeError(`${op}: ${error.message}${scope ? ` (at ${scope})` : ""}`);
  }
}

/** Returns the scope of a parameter among the inputs, or that of the newest input that has a scope. */
function scopeOf<K extends OpName>(op: K, inputs: readonly Tensor[], attributes: Ops[K]): string {
  if (op === "parameter") return parentPath((attributes as Ops["parameter"]).name);
  let newest: Node | undefined;
  for (const { node } of inputs) {
    if (node.op === "parameter") return node.scope;
    if (node.scope && (!newest || node.id > newest.id)) newest = node;
  }
  return newest?.scope ?? "";
}

function parentPath(name: string): string {
  const dot = name.lastIndexOf(".");
  return dot < 0 ? name : name.slice(0, dot);
}

export class Tensor {
  readonly node: Node;
  /** The index of this tensor among the node's outputs. */
  readonly index: number;
  readonly shape: Shape;
  readonly dtype: DType;

  constructor(node: Node, index: number, type: TensorType) {
    this.node = node;
    this.index = index;
    this.shape = type.shape;
    this.dtype = type.dtype;
  }

  get rank(): number {
    return this.shape.length;
  }

  /** Returns the size of an axis, which may be the batch. Negative axes count from the end. */
  dim(axis: number): Dim {
    return this.shape[normalizeAxis(axis, this.rank)]!;
  }

  /** Returns the size of an axis as a number. Throws a ShapeError for the batch. */
  size(axis: number): number {
    const dim = this.dim(axis);
    if (typeof dim === "number") return dim;
    throw new ShapeError(
      `Axis ${axis} holds the batch, whose size is known only when the program runs.`,
    );
  }

  // Elementwise

  neg(): Tensor {
    return apply("neg", [this], {});
  }
  abs(): Tensor {
    return apply("abs", [this], {});
  }
  /** −1, 0 or 1. */
  sign(): Tensor {
    return apply("sign", [this], {});
  }
  exp(): Tensor {
    return apply("exp", [this], {});
  }
  /** Natural logarithm. */
  log(): Tensor {
    return apply("log", [this], {});
  }
  sqrt(): Tensor {
    return apply("sqrt", [this], {});
  }
  /** 1 / x. */
  reciprocal(): Tensor {
    return apply("reciprocal", [this], {});
  }
  sin(): Tensor {
    return apply("sin", [this], {});
  }
  cos(): Tensor {
    return apply("cos", [this], {});
  }
  tanh(): Tensor {
    return apply("tanh", [this], {});
  }
  erf(): Tensor {
    return apply("erf", [this], {});
  }
  sigmoid(): Tensor {
    return apply("sigmoid", [this], {});
  }
  relu(): Tensor {
    return apply("relu", [this], {});
  }
  /** x · sigmoid(x). */
  silu(): Tensor {
    return apply("silu", [this], {});
  }
  /** x · Φ(x), exactly ("none") or by the tanh approximation. */
  gelu(approximate: "none" | "tanh" = "none"): Tensor {
    return apply("gelu", [this], { approximate });
  }
  floor(): Tensor {
    return apply("floor", [this], {});
  }
  ceil(): Tensor {
    return apply("ceil", [this], {});
  }
  /** Rounds to the nearest whole number, and halves to the even one. */
  round(): Tensor {
    return apply("round", [this], {});
  }
  square(): Tensor {
    return this.mul(this);
  }
  /** Clamps to [low, high]. */
  clamp(low: number, high: number): Tensor {
    return this.maximum(low).minimum(high);
  }

  add(other: Operand): Tensor {
    return apply("add", [this, this.operand(other)], {});
  }
  sub(other: Operand): Tensor {
    return apply("sub", [this, this.operand(other)], {});
  }
  mul(other: Operand): Tensor {
    return apply("mul", [this, this.operand(other)], {});
  }
  div(other: Operand): Tensor {
    return apply("div", [this, this.operand(other)], {});
  }
  pow(exponent: Operand): Tensor {
    return apply("pow", [this, this.operand(exponent)], {});
  }
  minimum(other: Operand): Tensor {
    return apply("minimum", [this, this.operand(other)], {});
  }
  maximum(other: Operand): Tensor {
    return apply("maximum", [this, this.operand(other)], {});
  }

  equal(other: Operand): Tensor {
    return apply("equal", [this, this.operand(other)], {});
  }
  less(other: Operand): Tensor {
    return apply("less", [this, this.operand(other)], {});
  }
  lessEqual(other: Operand): Tensor {
    return apply("lessEqual", [this, this.operand(other)], {});
  }
  greater(other: Operand): Tensor {
    return apply("less", [this.operand(other), this], {});
  }
  greaterEqual(other: Operand): Tensor {
    return apply("lessEqual", [this.operand(other), this], {});
  }
  not(): Tensor {
    return apply("not", [this], {});
  }
  and(other: Tensor): Tensor {
    return apply("and", [this, other], {});
  }
  or(other: Tensor): Tensor {
    return apply("or", [this, other], {});
  }

  /** Converts to another dtype. Returns the tensor itself if it already has that dtype. */
  cast(to: DType): Tensor {
    return this.dtype === to ? this : apply("cast", [this], { to });
  }

  // Reductions, which are over all axes by default

  sum(axes?: number | readonly number[], keepDims = false): Tensor {
    return apply("sum", [this], this.reduction(axes, keepDims));
  }
  mean(axes?: number | readonly number[], keepDims = false): Tensor {
    return apply("mean", [this], this.reduction(axes, keepDims));
  }
  max(axes?: number | readonly number[], keepDims = false): Tensor {
    return apply("max", [this], this.reduction(axes, keepDims));
  }
  min(axes?: number | readonly number[], keepDims = false): Tensor {
    return this.neg().max(axes, keepDims).neg();
  }
  /** The mean squared distance from the mean, divided by n rather than n − 1. */
  variance(axes?: number | readonly number[], keepDims = false): Tensor {
    return this.sub(this.mean(axes, true)).square().mean(axes, keepDims);
  }
  /** The number of elements along the axes, as a scalar tensor. */
  extent(axes?: number | readonly number[]): Tensor {
    return apply("extent", [this], { axes: this.axes(axes) });
  }
  argmax(axis = -1): Tensor {
    return apply("argmax", [this], { axis: normalizeAxis(axis, this.rank) });
  }
  argmin(axis = -1): Tensor {
    return apply("argmin", [this], { axis: normalizeAxis(axis, this.rank) });
  }
  /** The cumulative sum, which includes the element itself. */
  cumsum(axis: number, reverse = false): Tensor {
    return apply("cumsum", [this], { axis: normalizeAxis(axis, this.rank), reverse });
  }
  softmax(axis = -1): Tensor {
    return apply("softmax", [this], { axis: normalizeAxis(axis, this.rank) });
  }
  logSoftmax(axis = -1): Tensor {
    return apply("logSoftmax", [this], { axis: normalizeAxis(axis, this.rank) });
  }

  // Products

  /** [..., m, k] × [..., k, n] → [..., m, n]. */
  matmul(other: Tensor, options: Partial<Ops["matmul"]> = {}): Tensor {
    const { transposeA = false, transposeB = false } = options;
    return apply("matmul", [this, other], { transposeA, transposeB });
  }
  /** x · weightᵀ + bias with weight [out, in], as PyTorch stores it. */
  linear(weight: Tensor, bias?: Tensor): Tensor {
    return apply("linear", bias ? [this, weight, bias] : [this, weight], {});
  }

  // Shape

  /** Changes the shape. At most one size may be −1, which is computed from the others. */
  reshape(shape: Shape): Tensor {
    const wanted = fillRest(this.shape, shape);
    return sameShape(wanted, this.shape) ? this : apply("reshape", [this], { shape: wanted });
  }
  /** Permutes the axes: axis i of the result is axis permutation[i] of this tensor. */
  transpose(permutation: readonly number[]): Tensor {
    const normal = permutation.map((axis) => normalizeAxis(axis, this.rank));
    return normal.every((axis, i) => axis === i) && normal.length === this.rank
      ? this
      : apply("transpose", [this], { permutation: normal });
  }
  /** Swaps two axes. */
  swapAxes(a: number, b: number): Tensor {
    const permutation = this.shape.map((_, axis) => axis);
    const [first, second] = [normalizeAxis(a, this.rank), normalizeAxis(b, this.rank)];
    permutation[first] = second;
    permutation[second] = first;
    return this.transpose(permutation);
  }
  /** Rearranges axes by an einops pattern: `x.rearrange("b n (h d) -> b h n d", { h: 6 })`. */
  rearrange(pattern: string, sizes: Readonly<Record<string, number>> = {}): Tensor {
    return rearrange(this, pattern, sizes);
  }
  /** Repeats axes of size 1, and adds leading axes, to reach the shape. */
  expand(shape: Shape): Tensor {
    return sameShape(shape, this.shape) ? this : apply("expand", [this], { shape });
  }
  /** Inserts an axis of size 1 before `axis`, or after the last for −1. */
  unsqueeze(axis: number): Tensor {
    const position = normalizeAxis(axis, this.rank + 1);
    return this.reshape([...this.shape.slice(0, position), 1, ...this.shape.slice(position)]);
  }
  /** Removes an axis of size 1. */
  squeeze(axis: number): Tensor {
    const position = normalizeAxis(axis, this.rank);
    return this.reshape(this.shape.filter((_, i) => i !== position));
  }
  /** Takes the elements start, start + step, … below end along one axis. Negative bounds count from the end. */
  slice(axis: number, start: number, end?: number, step = 1): Tensor {
    const along = normalizeAxis(axis, this.rank);
    const size = this.size(along);
    const bound = (value: number) => Math.min(size, Math.max(0, value < 0 ? value + size : value));
    return apply("slice", [this], {
      starts: this.shape.map((_, i) => (i === along ? bound(start) : 0)),
      ends: this.shape.map((dim, i) => (i === along ? bound(end ?? size) : dim)),
      steps: this.shape.map((_, i) => (i === along ? step : 1)),
    });
  }
  /** Splits an axis into parts of the given sizes, or into that many equal parts. */
  split(sizes: number | Shape, axis: number): readonly Tensor[] {
    const along = normalizeAxis(axis, this.rank);
    return applyMany("split", [this], {
      axis: along,
      sizes: typeof sizes === "number" ? this.equalParts(sizes, along) : sizes,
    });
  }
  /** Adds elements of `value` before and after each axis; `padding` has one pair for each axis. */
  pad(padding: readonly (readonly [number, number])[], value = 0): Tensor {
    return padding.every(([before, after]) => before === 0 && after === 0)
      ? this
      : apply("pad", [this], { padding, value });
  }
  flip(axes: number | readonly number[]): Tensor {
    return apply("flip", [this], { axes: this.axes(axes) });
  }

  // Indexing

  /** Picks the rows of an axis at int64 or int32 indices in [0, size). */
  gather(indices: Tensor, axis = 0): Tensor {
    return apply("gather", [this, indices], { axis: normalizeAxis(axis, this.rank) });
  }
  /** Adds a last axis of size `depth` that is 1 at the index and 0 elsewhere. */
  oneHot(depth: number, dtype: DType = "float32"): Tensor {
    return apply("oneHot", [this], { depth, dtype });
  }

  // Images

  /** Convolves [N, C, ...space] with a weight [O, C/groups, ...kernel]. */
  conv(weight: Tensor, bias?: Tensor, options: ConvOptions = {}): Tensor {
    return apply(
      "conv",
      bias ? [this, weight, bias] : [this, weight],
      convAttributes(this.rank - 2, options),
    );
  }
  /** Transposed convolution, the gradient of `conv`, with a weight [C, O/groups, ...kernel]. */
  convTranspose(
    weight: Tensor,
    bias?: Tensor,
    options: ConvOptions & { readonly outputPadding?: number | readonly number[] } = {},
  ): Tensor {
    return apply("convTranspose", bias ? [this, weight, bias] : [this, weight], {
      ...convAttributes(this.rank - 2, options),
      outputPadding: perAxis(options.outputPadding ?? 0, this.rank - 2),
    });
  }
  upsampleNearest(scale: number | readonly number[]): Tensor {
    return apply("upsampleNearest", [this], { scale: perAxis(scale, this.rank - 2) });
  }

  // Normalization

  /** Normalizes the last axis; weight and bias are optional. */
  layerNorm(options: { weight?: Tensor; bias?: Tensor; epsilon?: number } = {}): Tensor {
    const { weight, bias, epsilon = 1e-5 } = options;
    const affine = weight ? (bias ? [weight, bias] : [weight]) : [];
    const y = apply("layerNorm", [this, ...affine], { epsilon });
    return bias && !weight ? y.add(bias) : y;
  }
  rmsNorm(options: { weight?: Tensor; epsilon?: number } = {}): Tensor {
    const { weight, epsilon = 1e-6 } = options;
    return apply("rmsNorm", weight ? [this, weight] : [this], { epsilon });
  }
  /** Normalizes groups of channels of [N, C, ...space], without scale and shift. */
  groupNorm(groups: number, epsilon = 1e-5): Tensor {
    return apply("groupNorm", [this], { groups, epsilon });
  }

  private operand(other: Operand): Tensor {
    return typeof other === "number"
      ? apply("full", [], { value: other, shape: [], dtype: this.dtype })
      : other;
  }

  private axes(axes?: number | readonly number[]): number[] {
    const list = axes === undefined ? this.shape.map((_, i) => i) : [axes].flat();
    return list.map((axis) => normalizeAxis(axis, this.rank)).sort((a, b) => a - b);
  }

  private reduction(axes: number | readonly number[] | undefined, keepDims: boolean) {
    return { axes: this.axes(axes), keepDims };
  }

  private equalParts(count: number, axis: number): Shape {
    const part = quotient(this.shape[axis]!, count);
    if (part === undefined) {
      throw new ShapeError(
        `split: axis ${axis} of ${formatShape(this.shape)} does not divide into ${count} equal parts${this.node.scope ? ` (at ${this.node.scope})` : ""}.`,
      );
    }
    return new Array<Dim>(count).fill(part);
  }
}
