/** Rows by index, and back: index dtypes, ranks, repeats. */
import type { DType } from "../../../src/engine/arrays/ndarray.ts";
import type { OpName } from "../../../src/engine/graph/ops.ts";
import { batch, batchTimes } from "../../../src/engine/graph/shape.ts";
import { scatterSum } from "../../../src/engine/graph/functional.ts";
import type { Case, CaseData } from "../case.ts";

const indexDtypes: readonly DType[] = ["int64", "int32"];

const upTo = (size: number, dtype: DType = "int64") => ({ dtype, low: 0, high: size });

export const indexingCases = {
  gather: [
    ...indexDtypes.map((dtype) => ({
      name: `gather by ${dtype}`,
      exact: true,
      build: (data: CaseData) => {
        const [table, x] = [data.uniform([7, 5]), data.uniform([batch, 7, 2, 3])];
        return {
          rows: table.gather(data.uniform([batch], upTo(7, dtype))),
          tokens: table.gather(data.uniform([batch, 3], upTo(7, dtype))),
          one: table.gather(data.values([6], dtype, [])),
          columns: table.gather(data.uniform([4], upTo(5, dtype)), 1),
          middle: x.gather(data.uniform([2, 3], upTo(7, dtype)), 1),
          last: x.gather(data.uniform([5], upTo(3, dtype)), -1),
          single: data.uniform([1]).gather(data.values([0, 0], dtype)),
        };
      },
    })),
    ...(["float16", "float64", "int64", "int32", "uint8", "bool"] as const).map((dtype) => ({
      name: `gather of ${dtype}`,
      exact: true,
      build: (data: CaseData) =>
        data.uniform([7, 5], { dtype }).gather(data.uniform([batch, 2], upTo(7))),
    })),
    {
      name: "gather from a weight inside of the program",
      exact: true,
      build: (data) => data.weight([11, 3]).gather(data.uniform([batch, 2], upTo(11))),
    },
  ],
  scatterSum: [
    ...indexDtypes.map((dtype) => ({
      name: `scatterSum by ${dtype}, with repeated and missing rows`,
      build: (data: CaseData) => ({
        matrix: scatterSum(
          data.uniform([batchTimes(2), 5]),
          data.uniform([batchTimes(2)], upTo(3, dtype)),
          7,
        ),
        vector: scatterSum(data.uniform([4]), data.values([1, 1, 1, 0], dtype), 3),
        block: scatterSum(data.uniform([4, 2, 1, 3]), data.values([2, 0, 2, 1], dtype), 3),
        single: scatterSum(data.uniform([3, 2]), data.values([0, 0, 0], dtype), 1),
      }),
    })),
    ...(["float16", "float64"] as const).map((dtype) => ({
      name: `scatterSum of ${dtype}`,
      build: (data: CaseData) =>
        scatterSum(data.uniform([batch, 5], { dtype }), data.uniform([batch], upTo(3)), 3),
    })),
  ],
  oneHot: [
    ...indexDtypes.map((dtype) => ({
      name: `oneHot of ${dtype}`,
      exact: true,
      build: (data: CaseData) => ({
        scalar: data.values([2], dtype, []).oneHot(3),
        rows: data.uniform([batch], upTo(5, dtype)).oneHot(5),
        block: data.uniform([batch, 2, 3], upTo(7, dtype)).oneHot(7),
        single: data.values([0, 0], dtype).oneHot(1),
      }),
    })),
    ...(["float16", "float64", "int64", "int32", "uint8", "bool"] as const).map((dtype) => ({
      name: `oneHot to ${dtype}`,
      exact: true,
      build: (data: CaseData) => data.uniform([batch, 2], upTo(3)).oneHot(3, dtype),
    })),
  ],
} satisfies { readonly [K in OpName]?: readonly Case[] };
