/**
 * The shape and dtype of every op's outputs, one rule for each op. A rule throws a ShapeError whose message quotes the inputs;
 * `apply` in tensor.ts adds the op's name and the path of the nearest parameter.
 */
import {
  at,
  broadcastOrFail,
  checkShape,
  fail,
  type InferRule,
  type InferRules,
  requireCount,
  requireCounts,
  requireDtype,
  requireFloat,
  requireRank,
  requireSameDtype,
  spatialSize,
  type TensorType,
} from "./infer-checks.ts";
import { reduceRules } from "./infer-reduce.ts";
import {
  type BinaryName,
  type CompareName,
  forEach,
  type MoveName,
  type UnaryName,
} from "./ops.ts";
import {
  broadcast,
  type Dim,
  formatShape,
  normalizeAxis,
  product,
  sameShape,
  sum,
} from "./shape.ts";

const shapeRules: Pick<InferRules, MoveName> = {
  reshape: (inputs, { shape }) => {
    const x = at(inputs, 0);
    const [before, after] = [product(x.shape), product(checkShape(shape))];
    if (before === undefined || before !== after) {
      fail(`${formatShape(x.shape)} does not hold as many elements as ${formatShape(shape)}`);
    }
    return [{ shape, dtype: x.dtype }];
  },
  transpose: (inputs, { permutation }) => {
    const x = at(inputs, 0);
    const axes = [...permutation].sort((a, b) => a - b);
    if (permutation.length !== x.shape.length || axes.some((axis, i) => axis !== i)) {
      fail(
        `[${permutation.join(", ")}] is not a permutation of the axes of ${formatShape(x.shape)}`,
      );
    }
    return [{ shape: permutation.map((axis) => x.shape[axis]!), dtype: x.dtype }];
  },
  expand: (inputs, { shape }) => {
    const x = at(inputs, 0);
    const result = broadcast(x.shape, checkShape(shape));
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
          `axis ${axis} of ${formatShape(x.shape)} holds the batch: take the whole axis, or split it`,
        );
      }
      requireCount("step", step);
      if (!Number.isInteger(start) || start < 0 || !(end >= start) || end > dim) {
        fail(`${start}:${end}:${step} is outside of axis ${axis} of ${formatShape(x.shape)}`);
      }
      return Math.ceil((end - start) / step);
    });
    return [{ shape, dtype: x.dtype }];
  },
  split: (inputs, { axis, sizes }) => {
    const x = at(inputs, 0);
    const along = normalizeAxis(axis, x.shape.length);
    const total = checkShape(sizes).reduce<Dim | undefined>(
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
      requireCount("padding", before, 0);
      requireCount("padding", after, 0);
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
    requireCount("size", size);
    return [{ shape: [size, ...updates.shape.slice(1)], dtype: updates.dtype }];
  },
  oneHot: (inputs, { depth, dtype }) => {
    const indices = requireDtype(at(inputs, 0), "int64", "int32");
    requireCount("depth", depth);
    return [{ shape: [...indices.shape, depth], dtype }];
  },

  upsampleNearest: (inputs, { scale: factors }) => {
    const x = at(inputs, 0);
    requireRank(x, 3);
    requireCounts("scale", factors, x.shape.length - 2, 1);
    const spatial = x.shape.slice(2).map((dim, i) => spatialSize(dim) * factors[i]!);
    return [{ shape: [...x.shape.slice(0, 2), ...spatial], dtype: x.dtype }];
  },

  barrier: (inputs) => {
    at(inputs, 1);
    return [at(inputs, 0)];
  },
};

export type { TensorType };

const unary: InferRule<UnaryName> = (inputs) => [requireFloat(at(inputs, 0))];

/** The rule of neg, abs, sign and relu, which also work on integers. */
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

export const inferRules: InferRules = {
  input: (_, { shape, dtype }) => [{ shape: checkShape(shape), dtype }],
  parameter: (_, { shape, dtype }) => [{ shape: checkShape(shape), dtype }],
  constant: (_, { value }) => [{ shape: value.shape, dtype: value.dtype }],
  full: (_, { shape, dtype }) => [{ shape: checkShape(shape), dtype }],

  ...forEach(["neg", "abs", "sign", "relu"], unaryAny),
  ...forEach(["exp", "log", "sqrt", "reciprocal", "sin", "cos", "tanh", "erf"], unary),
  ...forEach(["sigmoid", "silu", "gelu", "floor", "ceil", "round", "detach"], unary),
  ...forEach(["add", "sub", "mul", "div", "pow", "minimum", "maximum"], binary),
  ...forEach(["equal", "less", "lessEqual"], compare),
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

  ...reduceRules,
  ...shapeRules,

  recompute: (inputs, { body }) => {
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
};
