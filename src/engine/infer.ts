/**
 * Shape and dtype of every op's outputs: one row an op. A row throws a ShapeError whose message
 * quotes what it got; `apply` in tensor.ts puts the op's name and the parameter path around it.
 */
import { type DType, isFloat } from "./dtype.ts";
import { ShapeError } from "./errors.ts";
import type { BinaryName, CompareName, ConvAttributes, OpName, Ops, UnaryName } from "./ops.ts";
import {
  batchTimes,
  broadcast,
  type Dim,
  factorOf,
  formatDim,
  formatShape,
  isStatic,
  normalizeAxis,
  product,
  sameShape,
  type Shape,
  sum,
} from "./shape.ts";

export interface TensorType {
  readonly shape: Shape;
  readonly dtype: DType;
}

type InferRule<K extends OpName> = (
  inputs: readonly TensorType[],
  attributes: Ops[K],
) => readonly TensorType[];

const fail = (message: string): never => {
  throw new ShapeError(message);
};

/** The input at an index, which the caller is known to give. */
function at(inputs: readonly TensorType[], index: number): TensorType {
  return inputs[index] ?? fail(`input ${index} is missing`);
}

function dimAt(shape: Shape, axis: number): Dim {
  return shape[normalizeAxis(axis, shape.length)]!;
}

function requireFloat(x: TensorType): TensorType {
  if (!isFloat(x.dtype)) fail(`expected a float dtype, got ${x.dtype}`);
  return x;
}

function requireDtype(x: TensorType, ...expected: DType[]): TensorType {
  if (!expected.includes(x.dtype)) fail(`expected dtype ${expected.join(" or ")}, got ${x.dtype}`);
  return x;
}

function requireSameDtype(a: TensorType, b: TensorType): DType {
  if (a.dtype !== b.dtype) fail(`dtypes ${a.dtype} and ${b.dtype} differ; cast one of them`);
  return a.dtype;
}

function requireRank(x: TensorType, atLeast: number): void {
  if (x.shape.length < atLeast) {
    fail(`${formatShape(x.shape)} has ${x.shape.length} dimensions, expected at least ${atLeast}`);
  }
}

function requireShape(name: string, x: TensorType | undefined, expected: Shape): void {
  if (x && !sameShape(x.shape, expected)) {
    fail(`${name} is ${formatShape(x.shape)}, expected ${formatShape(expected)}`);
  }
}

function broadcastOrFail(a: Shape, b: Shape): Shape {
  return broadcast(a, b) ?? fail(`${formatShape(a)} and ${formatShape(b)} do not broadcast`);
}

const unary: InferRule<UnaryName> = (inputs) => [requireFloat(at(inputs, 0))];

/** neg, abs, sign, relu: also on integers. */
const unaryAny: InferRule<UnaryName> = (inputs) => {
  const x = at(inputs, 0);
  if (x.dtype === "bool") fail("expected numbers, got bool");
  return [x];
};

const binary: InferRule<BinaryName> = (inputs) => {
  const [a, b] = [at(inputs, 0), at(inputs, 1)];
  const dtype = requireSameDtype(a, b);
  if (dtype === "bool") fail("expected numbers, got bool; cast first, or use and/or");
  return [{ shape: broadcastOrFail(a.shape, b.shape), dtype }];
};

const compare: InferRule<CompareName> = (inputs) => {
  const [a, b] = [at(inputs, 0), at(inputs, 1)];
  requireSameDtype(a, b);
  return [{ shape: broadcastOrFail(a.shape, b.shape), dtype: "bool" }];
};

const logic: InferRule<"and" | "or"> = (inputs) => {
  const [a, b] = [requireDtype(at(inputs, 0), "bool"), requireDtype(at(inputs, 1), "bool")];
  return [{ shape: broadcastOrFail(a.shape, b.shape), dtype: "bool" }];
};

const reduce: InferRule<"sum" | "mean" | "max"> = (inputs, { axes, keepDims }) => {
  const x = at(inputs, 0);
  if (x.dtype === "bool") fail("expected numbers, got bool; cast first");
  const reduced = new Set(axes.map((axis) => normalizeAxis(axis, x.shape.length)));
  if (reduced.size !== axes.length) fail(`axes [${axes.join(", ")}] name one axis twice`);
  const shape = keepDims
    ? x.shape.map((dim, axis) => (reduced.has(axis) ? 1 : dim))
    : x.shape.filter((_, axis) => !reduced.has(axis));
  return [{ shape, dtype: x.dtype }];
};

const argument: InferRule<"argmax" | "argmin"> = (inputs, { axis }) => {
  const { shape } = at(inputs, 0);
  const reduced = normalizeAxis(axis, shape.length);
  return [{ shape: shape.filter((_, other) => other !== reduced), dtype: "int64" }];
};

const alongAxis: InferRule<"softmax" | "logSoftmax"> = (inputs, { axis }) => {
  const x = requireFloat(at(inputs, 0));
  normalizeAxis(axis, x.shape.length);
  return [x];
};

/** Spatial sizes behind a convolution window. */
function convSpatial(
  size: readonly Dim[],
  kernel: readonly Dim[],
  { stride, padding, dilation }: ConvAttributes,
): Dim[] {
  const sizes = size.map((dim) =>
    typeof dim === "number" ? dim : fail("a spatial axis cannot be the batch"),
  );
  return sizes.map((dim, i) => {
    const [before, after] = padding[i]!;
    const window = (factorOf(kernel[i]!) - 1) * dilation[i]! + 1;
    const count = Math.floor((dim + before + after - window) / stride[i]!) + 1;
    return count > 0
      ? count
      : fail(
          `a window of ${window} does not fit into ${dim} pixels padded by ${before} and ${after}`,
        );
  });
}

function checkConv(inputs: readonly TensorType[], attributes: ConvAttributes): void {
  const [x, weight] = [requireFloat(at(inputs, 0)), at(inputs, 1)];
  requireSameDtype(x, weight);
  const spatial = x.shape.length - 2;
  if (spatial < 1 || spatial > 3 || weight.shape.length !== x.shape.length) {
    fail(
      `${formatShape(x.shape)} and weight ${formatShape(weight.shape)}: expected both of 3, 4 or 5 dimensions`,
    );
  }
  for (const [name, list] of [
    ["stride", attributes.stride],
    ["padding", attributes.padding],
    ["dilation", attributes.dilation],
  ] as const) {
    if (list.length !== spatial)
      fail(`${name} has ${list.length} entries for ${spatial} spatial axes`);
  }
}

export const inferRules: { readonly [K in OpName]: InferRule<K> } = {
  input: (_, { shape, dtype }) => [{ shape, dtype }],
  parameter: (_, { shape, dtype }) => [{ shape, dtype }],
  constant: (_, { value }) => [{ shape: value.shape, dtype: value.dtype }],
  full: (_, { shape, dtype }) => [{ shape, dtype }],

  neg: unaryAny,
  abs: unaryAny,
  sign: unaryAny,
  relu: unaryAny,
  exp: unary,
  log: unary,
  sqrt: unary,
  reciprocal: unary,
  sin: unary,
  cos: unary,
  tanh: unary,
  erf: unary,
  sigmoid: unary,
  silu: unary,
  gelu: unary,
  floor: unary,
  ceil: unary,
  round: unary,

  add: binary,
  sub: binary,
  mul: binary,
  div: binary,
  pow: binary,
  minimum: binary,
  maximum: binary,
  equal: compare,
  less: compare,
  lessEqual: compare,
  not: (inputs) => [requireDtype(at(inputs, 0), "bool")],
  and: logic,
  or: logic,

  where: (inputs) => {
    const condition = requireDtype(at(inputs, 0), "bool");
    const [a, b] = [at(inputs, 1), at(inputs, 2)];
    const dtype = requireSameDtype(a, b);
    return [{ shape: broadcastOrFail(condition.shape, broadcastOrFail(a.shape, b.shape)), dtype }];
  },
  cast: (inputs, { to }) => [{ shape: at(inputs, 0).shape, dtype: to }],

  sum: reduce,
  mean: (inputs, attributes) => {
    requireFloat(at(inputs, 0));
    return reduce(inputs, attributes);
  },
  max: reduce,
  extent: (inputs, { axes }) => {
    const x = requireFloat(at(inputs, 0));
    for (const axis of axes) normalizeAxis(axis, x.shape.length);
    return [{ shape: [], dtype: x.dtype }];
  },
  argmax: argument,
  argmin: argument,
  cumsum: (inputs, { axis }) => {
    const x = at(inputs, 0);
    normalizeAxis(axis, x.shape.length);
    return [x];
  },
  softmax: alongAxis,
  logSoftmax: alongAxis,

  matmul: (inputs, { transposeA, transposeB }) => {
    const [a, b] = [requireFloat(at(inputs, 0)), at(inputs, 1)];
    const dtype = requireSameDtype(a, b);
    requireRank(a, 2);
    requireRank(b, 2);
    const [rows, innerA] = transposeA
      ? [dimAt(a.shape, -1), dimAt(a.shape, -2)]
      : [dimAt(a.shape, -2), dimAt(a.shape, -1)];
    const [innerB, columns] = transposeB
      ? [dimAt(b.shape, -1), dimAt(b.shape, -2)]
      : [dimAt(b.shape, -2), dimAt(b.shape, -1)];
    if (innerA !== innerB) {
      fail(
        `${formatShape(a.shape)}${transposeA ? "ᵀ" : ""} × ${formatShape(b.shape)}${transposeB ? "ᵀ" : ""}: ` +
          `inner sizes ${formatDim(innerA)} and ${formatDim(innerB)} differ`,
      );
    }
    const leading = broadcastOrFail(a.shape.slice(0, -2), b.shape.slice(0, -2));
    return [{ shape: [...leading, rows, columns], dtype }];
  },
  linear: (inputs) => {
    const [x, weight, bias] = [requireFloat(at(inputs, 0)), at(inputs, 1), inputs[2]];
    requireSameDtype(x, weight);
    requireRank(x, 1);
    if (weight.shape.length !== 2)
      fail(`weight is ${formatShape(weight.shape)}, expected [out, in]`);
    const [outputs, inner] = [weight.shape[0]!, weight.shape[1]!];
    if (dimAt(x.shape, -1) !== inner) {
      fail(
        `${formatShape(x.shape)} × weight ${formatShape(weight.shape)}: ` +
          `the last size ${formatDim(dimAt(x.shape, -1))} is not the weight's ${formatDim(inner)}`,
      );
    }
    requireShape("bias", bias, [outputs]);
    return [{ shape: [...x.shape.slice(0, -1), outputs], dtype: x.dtype }];
  },

  reshape: (inputs, { shape }) => {
    const x = at(inputs, 0);
    const [before, after] = [product(x.shape), product(shape)];
    if (before === undefined || before !== after) {
      fail(`${formatShape(x.shape)} does not hold as many elements as ${formatShape(shape)}`);
    }
    return [{ shape, dtype: x.dtype }];
  },
  transpose: (inputs, { permutation }) => {
    const x = at(inputs, 0);
    const axes = [...permutation].sort((a, b) => a - b);
    if (permutation.length !== x.shape.length || axes.some((axis, i) => axis !== i)) {
      fail(`[${permutation.join(", ")}] is no permutation of the axes of ${formatShape(x.shape)}`);
    }
    return [{ shape: permutation.map((axis) => x.shape[axis]!), dtype: x.dtype }];
  },
  expand: (inputs, { shape }) => {
    const x = at(inputs, 0);
    const result = broadcast(x.shape, shape);
    if (!result || !sameShape(result, shape)) {
      fail(`${formatShape(x.shape)} does not expand to ${formatShape(shape)}`);
    }
    return [{ shape, dtype: x.dtype }];
  },
  concat: (inputs, { axis }) => {
    const first = at(inputs, 0);
    const along = normalizeAxis(axis, first.shape.length);
    const total = inputs.reduce<Dim>((size, x) => {
      requireSameDtype(first, x);
      const others =
        x.shape.length === first.shape.length &&
        x.shape.every((dim, i) => i === along || dim === first.shape[i]);
      if (!others) {
        fail(
          `${inputs.map((y) => formatShape(y.shape)).join(", ")} differ outside of axis ${axis}`,
        );
      }
      return (
        sum(size, x.shape[along]!) ??
        fail(
          `${inputs.map((y) => formatShape(y.shape)).join(", ")} mix the batch with a number on axis ${axis}`,
        )
      );
    }, 0);
    return [
      { shape: first.shape.map((dim, i) => (i === along ? total : dim)), dtype: first.dtype },
    ];
  },
  slice: (inputs, { starts, ends, steps }) => {
    const x = at(inputs, 0);
    if ([starts, ends, steps].some((list) => list.length !== x.shape.length)) {
      fail(`${formatShape(x.shape)} needs a start, an end and a step for each dimension`);
    }
    const shape = x.shape.map((dim, axis) => {
      const [start, end, step] = [starts[axis]!, ends[axis]!, steps[axis]!];
      if (start === 0 && end === dim && step === 1) return dim;
      if (typeof dim !== "number" || typeof end !== "number") {
        return fail(
          `axis ${axis} of ${formatShape(x.shape)} holds the batch: take it whole, or split it`,
        );
      }
      if (start < 0 || end < start || end > dim || !(step >= 1)) {
        fail(`${start}:${end}:${step} is outside of axis ${axis} of ${formatShape(x.shape)}`);
      }
      return Math.ceil((end - start) / step);
    });
    return [{ shape, dtype: x.dtype }];
  },
  split: (inputs, { axis, sizes }) => {
    const x = at(inputs, 0);
    const along = normalizeAxis(axis, x.shape.length);
    const total = sizes.reduce<Dim | undefined>(
      (size, dim) => (size === undefined ? undefined : sum(size, dim)),
      0,
    );
    if (total !== x.shape[along]) {
      fail(`sizes ${formatShape(sizes)} do not add up to axis ${axis} of ${formatShape(x.shape)}`);
    }
    return sizes.map((size) => ({
      shape: x.shape.map((dim, i) => (i === along ? size : dim)),
      dtype: x.dtype,
    }));
  },
  pad: (inputs, { padding }) => {
    const x = at(inputs, 0);
    if (padding.length !== x.shape.length)
      fail(`${formatShape(x.shape)} needs one padding a dimension`);
    const shape = x.shape.map((dim, axis) => {
      const [before, after] = padding[axis]!;
      if (before === 0 && after === 0) return dim;
      if (typeof dim !== "number") return fail(`axis ${axis} is the batch and cannot be padded`);
      if (before < 0 || after < 0) fail(`padding ${before}, ${after} is negative; slice instead`);
      return dim + before + after;
    });
    return [{ shape, dtype: x.dtype }];
  },
  flip: (inputs, { axes }) => {
    const x = at(inputs, 0);
    for (const axis of axes) normalizeAxis(axis, x.shape.length);
    return [x];
  },

  gather: (inputs, { axis }) => {
    const [x, indices] = [at(inputs, 0), requireDtype(at(inputs, 1), "int64", "int32")];
    const along = normalizeAxis(axis, x.shape.length);
    const shape = [...x.shape.slice(0, along), ...indices.shape, ...x.shape.slice(along + 1)];
    return [{ shape, dtype: x.dtype }];
  },
  scatterSum: (inputs, { size }) => {
    const [updates, indices] = [
      requireFloat(at(inputs, 0)),
      requireDtype(at(inputs, 1), "int64", "int32"),
    ];
    if (indices.shape.length !== 1 || indices.shape[0] !== updates.shape[0]) {
      fail(
        `indices ${formatShape(indices.shape)} do not number the rows of ${formatShape(updates.shape)}`,
      );
    }
    return [{ shape: [size, ...updates.shape.slice(1)], dtype: updates.dtype }];
  },
  oneHot: (inputs, { depth, dtype }) => {
    const indices = requireDtype(at(inputs, 0), "int64", "int32");
    return [{ shape: [...indices.shape, depth], dtype }];
  },

  conv: (inputs, attributes) => {
    checkConv(inputs, attributes);
    const [x, weight, bias] = [at(inputs, 0), at(inputs, 1), inputs[2]];
    const [channels, outputs] = [x.shape[1]!, weight.shape[0]!];
    const { groups } = attributes;
    if (channels !== scale(weight.shape[1]!, groups) || factorOf(outputs) % groups !== 0) {
      fail(
        `${formatShape(x.shape)} with weight ${formatShape(weight.shape)} in ${groups} groups: ` +
          `expected ${formatDim(channels)} = ${groups} × ${formatDim(weight.shape[1]!)} channels, and outputs divisible by ${groups}`,
      );
    }
    requireShape("bias", bias, [outputs]);
    const spatial = convSpatial(x.shape.slice(2), weight.shape.slice(2), attributes);
    return [{ shape: [x.shape[0]!, outputs, ...spatial], dtype: x.dtype }];
  },
  convTranspose: (inputs, attributes) => {
    checkConv(inputs, attributes);
    const [x, weight, bias] = [at(inputs, 0), at(inputs, 1), inputs[2]];
    const { stride, padding, dilation, groups, outputPadding } = attributes;
    if (x.shape[1] !== weight.shape[0] || factorOf(x.shape[1]!) % groups !== 0) {
      fail(
        `${formatShape(x.shape)} with weight ${formatShape(weight.shape)} in ${groups} groups: ` +
          `expected ${formatDim(x.shape[1]!)} channels in both, divisible by ${groups}`,
      );
    }
    const outputs = scale(weight.shape[1]!, groups);
    requireShape("bias", bias, [outputs]);
    const spatial = x.shape.slice(2).map((dim, i) => {
      const [before, after] = padding[i]!;
      const window = (factorOf(weight.shape[i + 2]!) - 1) * dilation[i]! + 1;
      return (factorOf(dim) - 1) * stride[i]! + window - before - after + outputPadding[i]!;
    });
    return [{ shape: [x.shape[0]!, outputs, ...spatial], dtype: x.dtype }];
  },
  upsampleNearest: (inputs, { scale: factors }) => {
    const x = at(inputs, 0);
    if (factors.length !== x.shape.length - 2) {
      fail(
        `scale [${factors.join(", ")}] needs one entry for each spatial axis of ${formatShape(x.shape)}`,
      );
    }
    const spatial = x.shape.slice(2).map((dim, i) => scale(dim, factors[i]!));
    return [{ shape: [...x.shape.slice(0, 2), ...spatial], dtype: x.dtype }];
  },

  layerNorm: (inputs) => {
    const [x, weight, bias] = [requireFloat(at(inputs, 0)), inputs[1], inputs[2]];
    requireRank(x, 1);
    const last = dimAt(x.shape, -1);
    requireShape("weight", weight, [last]);
    requireShape("bias", bias, [last]);
    const statistics = { shape: [...x.shape.slice(0, -1), 1], dtype: x.dtype };
    return [x, statistics, statistics];
  },
  rmsNorm: (inputs) => {
    const [x, weight] = [requireFloat(at(inputs, 0)), inputs[1]];
    requireRank(x, 1);
    requireShape("weight", weight, [dimAt(x.shape, -1)]);
    return [x, { shape: [...x.shape.slice(0, -1), 1], dtype: x.dtype }];
  },
  groupNorm: (inputs, { groups }) => {
    const x = requireFloat(at(inputs, 0));
    requireRank(x, 3);
    if (!isStatic(x.shape.slice(1)) || factorOf(x.shape[1]!) % groups !== 0) {
      fail(`the channels of ${formatShape(x.shape)} do not divide into ${groups} groups`);
    }
    return [x];
  },

  attention: (inputs, { heads }) => {
    const [q, k, v, bias] = [requireFloat(at(inputs, 0)), at(inputs, 1), at(inputs, 2), inputs[3]];
    for (const x of [q, k, v]) {
      requireSameDtype(q, x);
      if (x.shape.length !== 3 || factorOf(x.shape[2]!) % heads !== 0) {
        fail(`${formatShape(x.shape)}: expected [batch, tokens, heads · size] with ${heads} heads`);
      }
    }
    if (
      !sameShape(k.shape.slice(0, 2), v.shape.slice(0, 2)) ||
      q.shape[0] !== k.shape[0] ||
      q.shape[2] !== k.shape[2]
    ) {
      fail(
        `q ${formatShape(q.shape)}, k ${formatShape(k.shape)} and v ${formatShape(v.shape)} do not fit`,
      );
    }
    if (bias) {
      const full: Shape = [q.shape[0]!, heads, q.shape[1]!, k.shape[1]!];
      const result = broadcast(full, bias.shape);
      if (!result || !sameShape(result, full)) {
        fail(`bias ${formatShape(bias.shape)} does not broadcast to ${formatShape(full)}`);
      }
    }
    return [{ shape: [q.shape[0]!, q.shape[1]!, v.shape[2]!], dtype: q.dtype }];
  },

  checkpoint: (inputs, { body }) => {
    for (const [i, declared] of body.inputs.entries()) {
      const x = at(inputs, i);
      if (!sameShape(x.shape, declared.shape) || x.dtype !== declared.dtype) {
        fail(
          `input ${i} is ${x.dtype} ${formatShape(x.shape)}, the block expects ${declared.dtype} ${formatShape(declared.shape)}`,
        );
      }
    }
    return Object.values(body.outputs).map(({ shape, dtype }) => ({ shape, dtype }));
  },
  barrier: (inputs) => [at(inputs, 0)],
};

function scale(dim: Dim, factor: number): Dim {
  return typeof dim === "number" ? dim * factor : batchTimes(dim.batch * factor);
}
