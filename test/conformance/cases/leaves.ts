/** Where values come from (inputs, weights, constants, casts) and what orders them (recompute, barrier). */
import { recompute } from "../../../src/engine/graph/recompute.ts";
import type { DType } from "../../../src/engine/arrays/ndarray.ts";
import { gradient } from "../../../src/engine/gradients/gradient.ts";
import type { OpName } from "../../../src/engine/graph/ops.ts";
import { batch, batchTimes } from "../../../src/engine/graph/shape.ts";
import { constantOf, full } from "../../../src/engine/graph/functional.ts";
import { apply, type Tensor } from "../../../src/engine/graph/tensor.ts";
import type { Case, CaseData } from "../case.ts";

const dtypes: readonly DType[] = [
  "float32",
  "float16",
  "float64",
  "int64",
  "int32",
  "uint8",
  "bool",
];

/** Values that every dtype but bool can hold; integers are reached by cutting off towards zero. */
const castable: { readonly [D in DType]?: readonly number[] } = {
  float32: [0, 1, 2.75, 100, 255, 0.1],
  float16: [0, 1, 2.75, 100, 255, 0.5],
  float64: [0, 1, 2.75, 100, 255, 1 / 3],
  int64: [0, 1, 2, 100, 255],
  int32: [0, 1, 2, 100, 255],
  uint8: [0, 1, 2, 100, 255],
  bool: [0, 1],
};

/** Dtypes that not every device has stand in cases of their own. */
const castTargets: readonly (readonly DType[])[] = [
  ["float32", "int64", "int32", "uint8", "bool"],
  ["float16"],
  ["float64"],
];

function castCases(from: DType): Case[] {
  const targets = castTargets.map((list) => list.filter((to) => to !== from));
  return targets
    .filter((list) => list.length > 0)
    .map((list) => ({
      name: `cast of ${from} to ${list.join(", ")}`,
      exact: true,
      build: (data) => {
        const x = data.values(castable[from]!, from);
        const rows = data.uniform([batch, 3], { dtype: from, low: 0 });
        return Object.fromEntries(
          list.flatMap((to) => [
            [to, x.cast(to)],
            [`${to} of a batch`, rows.cast(to)],
          ]),
        );
      },
    }));
}

const numbers = dtypes.filter((dtype) => dtype !== "bool");

/** Two layers with a nonlinearity: something to compute again. */
function block(x: Tensor, weights: readonly Tensor[]): Tensor {
  return weights.reduce((y, weight) => y.linear(weight).gelu("tanh"), x);
}

export const leafCases = {
  input: [
    {
      name: "an input that is an output, and one that nothing reads",
      exact: true,
      build: (data) => {
        const x = data.uniform([batch, 3]);
        return { same: x, again: x, half: x.mul(0.5), unread: data.uniform([2]).mul(0) };
      },
    },
    ...dtypes.map((dtype) => ({
      name: `input of ${dtype}`,
      exact: true,
      build: (data: CaseData) => ({
        batch: data.uniform([batchTimes(2), 3], { dtype }).reshape([batch, 6]),
        scalar: data.uniform([], { dtype }).reshape([1]),
      }),
    })),
  ],
  parameter: [
    ...(["float32", "float16", "bfloat16", "float64"] as const).map((stored) => ({
      name: `parameter stored as ${stored}`,
      build: (data: CaseData) => ({
        product: data.uniform([batch, 5]).linear(data.weight([3, 5], { stored })),
        itself: data.weight([2, 3], { stored }),
        scalar: data.weight([], { stored }),
      }),
    })),
    {
      name: "parameter read as float16",
      exact: true,
      build: (data) => ({
        float32: data.weight([2, 3], { dtype: "float16", stored: "float32" }),
        bfloat16: data.weight([2, 3], { dtype: "float16", stored: "bfloat16" }),
      }),
    },
  ],
  constant: [
    ...numbers.map((dtype) => ({
      name: `constant of ${dtype}`,
      exact: true,
      build: (data: CaseData) => {
        const row = constantOf([1, 2, 3], [3], dtype);
        return { row, added: data.uniform([batch, 3], { dtype }).maximum(row) };
      },
    })),
    {
      name: "constant with edge values",
      exact: true,
      build: (data) => {
        const row = constantOf([-Infinity, -0, Infinity, NaN], [4]);
        return { row, added: data.uniform([batch, 1]).add(row) };
      },
    },
    {
      name: "constant of bool and of no elements",
      exact: true,
      build: (data) => ({
        mask: data.uniform([3], { dtype: "bool" }).and(constantOf([1, 0, 1], [3], "bool")),
        empty: constantOf([], [0, 3]),
      }),
    },
  ],
  full: [
    {
      name: "full of the batch",
      exact: true,
      build: (data) => {
        const x = data.uniform([batch, 3]);
        return {
          batch: full([batch, 5], 1.5),
          twice: full([batchTimes(2)], -1).add(x.sum().mul(0)),
          large: full([11, 13], 0.25),
          infinite: full([batch, 3], -Infinity),
        };
      },
    },
    ...dtypes.map((dtype) => ({
      name: `full of ${dtype}`,
      exact: true,
      build: (data: CaseData) => ({
        x: data.uniform([batch, 1]),
        scalar: full([], 1, dtype),
        batch: full([batch, 3], 1, dtype),
        nothing: full([0, 2], 1, dtype),
      }),
    })),
  ],
  cast: [
    ...dtypes.flatMap(castCases),
    {
      name: "cast of negative and fractional numbers to integers",
      build: (data) => {
        const x = data.values([-2.75, -0.5, 0.5, 2.75, 1e6, -1e6]);
        return { int64: x.cast("int64"), int32: x.cast("int32"), bool: x.cast("bool") };
      },
    },
    {
      name: "cast to float16 rounds, overflows and keeps subnormal numbers",
      exact: true,
      build: (data) =>
        data
          .values([1 + 2 ** -11, 1 + 3 * 2 ** -11, 65519, 65520, -1e6, 2 ** -24, 3e-8, 2 ** -14])
          .cast("float16"),
    },
    {
      name: "cast through float16 loses what float16 cannot hold",
      exact: true,
      build: (data) => data.uniform([batch, 11]).cast("float16").cast("float32").mul(3),
    },
  ],
  recompute: [
    {
      name: "recompute computes its block",
      build: (data) => {
        const weights = [data.uniform([5, 5]), data.uniform([5, 5])];
        const x = data.uniform([batch, 3, 5]);
        return recompute([x], (y) => block(y, weights)).add(x);
      },
    },
    {
      name: "recompute's gradients",
      build: (data) => {
        const weights = [data.uniform([5, 5]), data.uniform([5, 5])];
        const x = data.uniform([batch, 3, 5]);
        const first = recompute([x], (y) => block(y, weights));
        const second = recompute([first], (y) => block(y, weights));
        const loss = second.square().sum();
        const [dx, ...dWeights] = gradient(loss, [x, ...weights]);
        return { loss, dx: dx!, first: dWeights[0]!, second: dWeights[1]! };
      },
    },
  ],
  barrier: [
    ...dtypes.map((dtype) => ({
      name: `barrier of ${dtype}`,
      exact: true,
      build: (data: CaseData) => {
        const after = data.uniform([batch, 3]);
        return {
          batch: apply("barrier", [data.uniform([batch, 2, 3], { dtype }), after], {}),
          fixed: apply("barrier", [data.uniform([7], { dtype }), data.uniform([])], {}),
        };
      },
    })),
    {
      name: "barrier behind infinities and NaN",
      exact: true,
      build: (data) => ({
        nan: apply("barrier", [data.uniform([batch, 3]), data.values([NaN])], {}),
        infinite: apply("barrier", [data.uniform([batch, 3]), data.values([Infinity, 1])], {}),
      }),
    },
  ],
} satisfies { readonly [K in OpName]?: readonly Case[] };
