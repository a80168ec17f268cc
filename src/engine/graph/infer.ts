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
  requireDtype,
  requireFloat,
  requireSameDtype,
  type TensorType,
} from "./infer-checks.ts";
import { reduceRules } from "./infer-reduce.ts";
import { shapeRules } from "./infer-shape.ts";
import type { BinaryName, CompareName, UnaryName } from "./ops.ts";
import { formatShape, sameShape } from "./shape.ts";

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
  detach: unary,

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
