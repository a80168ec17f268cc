/** Reductions, scans and normalised exponentials: axes, ranks, dtypes, ties and large magnitudes. */
import type { DType } from "../../../src/engine/arrays/ndarray.ts";
import type { OpName } from "../../../src/engine/graph/ops.ts";
import { batch, batchTimes } from "../../../src/engine/graph/shape.ts";
import type { Tensor } from "../../../src/engine/graph/tensor.ts";
import type { Case, CaseData } from "../case.ts";

type Reduce = (x: Tensor, axes?: number | readonly number[], keepDims?: boolean) => Tensor;

/** @param nonEmpty the op has no value over nothing: mean and max */
function reduceCases(
  name: string,
  reduce: Reduce,
  dtypes: readonly DType[],
  options: { exact?: boolean; nonEmpty?: boolean } = {},
): Case[] {
  const { exact = false, nonEmpty = false } = options;
  const alongAxes = (data: CaseData) => {
    const x = data.uniform([batch, 3, 1, 5]);
    return {
      last: reduce(x, -1),
      kept: reduce(x, -1, true),
      middle: reduce(x, 1),
      several: reduce(x, [1, 3]),
      severalKept: reduce(x, [1, 3], true),
      one: reduce(x, 2),
      none: reduce(x, []),
      scalar: reduce(data.uniform([])),
      single: reduce(data.uniform([1])),
      deep: reduce(data.uniform([2, 3, 1, 2, 7]), [0, 2, 4]),
    };
  };
  const overBatch = (data: CaseData) => {
    const x = data.uniform([batchTimes(2), 7]);
    return { first: reduce(x, 0), firstKept: reduce(x, 0, true), all: reduce(x) };
  };
  return [
    { name: `${name} along axes`, exact, build: alongAxes },
    {
      name: `${name} over the batch`,
      exact,
      ...(nonEmpty ? { batches: [3, 1] } : {}),
      build: overBatch,
    },
    { name: `${name} of 997 elements`, exact, build: (data) => reduce(data.uniform([2, 997]), 1) },
    ...dtypes.map((dtype) => ({
      name: `${name} of ${dtype}`,
      exact,
      build: (data: CaseData) => reduce(data.uniform([batch, 13], { dtype }), 1),
    })),
  ];
}

function argumentCases(name: string, pick: (x: Tensor, axis?: number) => Tensor): Case[] {
  return [
    {
      name: `${name} along axes`,
      build: (data) => {
        const x = data.uniform([batch, 3, 1, 5]);
        return {
          last: pick(x),
          middle: pick(x, 1),
          one: pick(x, 2),
          vector: pick(data.uniform([11])),
          single: pick(data.uniform([1])),
        };
      },
    },
    {
      name: `${name} of ties is the first`,
      build: (data) => pick(data.values([3, -1, 3, -1, 3, -1], "float32", [2, 3])),
    },
    {
      name: `${name} with infinities`,
      build: (data) =>
        pick(data.values([0, Infinity, -Infinity, 1, -Infinity, 2, 3, 1], "float32", [2, 4])),
    },
    ...(["float16", "float64", "int64", "int32", "uint8"] as const).map((dtype) => ({
      name: `${name} of ${dtype}`,
      build: (data: CaseData) => pick(data.uniform([batch, 3, 13], { dtype, low: 0, high: 10 })),
    })),
  ];
}

function softmaxCases(name: string, apply: (x: Tensor, axis?: number) => Tensor): Case[] {
  return [
    {
      name: `${name} along axes`,
      build: (data) => {
        const x = data.uniform([batch, 3, 1, 5], { low: -4, high: 4 });
        return {
          last: apply(x),
          middle: apply(x, 1),
          first: apply(data.uniform([3, 7]), 0),
          one: apply(x, 2),
          wide: apply(data.uniform([2, 257])),
          vector: apply(data.uniform([11])),
          single: apply(data.uniform([1])),
          deep: apply(data.uniform([2, 1, 3, 1, 2]), 2),
        };
      },
    },
    {
      name: `${name} of large magnitudes`,
      build: (data) => {
        const x = data.values([1e4, 1e4 + 1, -1e4, 0, -1e4, -1e4 - 2], "float32", [2, 3]);
        return { rows: apply(x), columns: apply(x, 0) };
      },
    },
    {
      name: `${name} with masked elements`,
      build: (data) =>
        apply(data.values([0, -Infinity, 1, -Infinity, -Infinity, 2], "float32", [2, 3])).exp(),
    },
    ...(["float16", "float64"] as const).map((dtype) => ({
      name: `${name} of ${dtype}`,
      build: (data: CaseData) => apply(data.uniform([batch, 13], { dtype })),
    })),
  ];
}

export const reductionCases = {
  sum: reduceCases("sum", (x, ...rest) => x.sum(...rest), [
    "float16",
    "float64",
    "int64",
    "int32",
    "uint8",
  ]),
  mean: reduceCases("mean", (x, ...rest) => x.mean(...rest), ["float16", "float64"], {
    nonEmpty: true,
  }),
  max: [
    ...reduceCases(
      "max",
      (x, ...rest) => x.max(...rest),
      ["float16", "float64", "int64", "int32", "uint8"],
      { exact: true, nonEmpty: true },
    ),
    ...reduceCases("min", (x, ...rest) => x.min(...rest), ["int64"], {
      exact: true,
      nonEmpty: true,
    }),
  ],
  extent: [
    {
      name: "extent with and without the batch",
      build: (data) => {
        const x = data.uniform([batchTimes(2), 7, 3]);
        return {
          all: x.extent(),
          batch: x.extent(0),
          rest: x.extent([1, 2]),
          none: x.extent([]),
          used: x.sum().div(x.extent().add(1)),
        };
      },
    },
    ...(["float16", "float64"] as const).map((dtype) => ({
      name: `extent of ${dtype}`,
      build: (data: CaseData) => data.uniform([batch, 7], { dtype }).extent(),
    })),
  ],
  argmax: argumentCases("argmax", (x, axis) => x.argmax(axis)),
  argmin: argumentCases("argmin", (x, axis) => x.argmin(axis)),
  cumsum: [
    {
      name: "cumsum along axes",
      build: (data) => {
        const x = data.uniform([batch, 3, 1, 5]);
        return {
          last: x.cumsum(3),
          lastReversed: x.cumsum(3, true),
          middle: x.cumsum(1),
          middleReversed: x.cumsum(1, true),
          one: x.cumsum(2),
          vector: data.uniform([11]).cumsum(0),
        };
      },
    },
    {
      name: "cumsum over the batch",
      build: (data) => data.uniform([batch, 7]).cumsum(0),
    },
    ...(["float16", "float64", "int64", "int32", "uint8"] as const).map((dtype) => ({
      name: `cumsum of ${dtype}`,
      build: (data: CaseData) => data.uniform([batch, 7], { dtype }).cumsum(1, true),
    })),
  ],
  softmax: softmaxCases("softmax", (x, axis) => x.softmax(axis)),
  logSoftmax: softmaxCases("logSoftmax", (x, axis) => x.logSoftmax(axis)),
} satisfies { readonly [K in OpName]?: readonly Case[] };
