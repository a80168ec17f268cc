/** Ops that only move values: every bit has to arrive, in every dtype. */
import type { DType } from "../../../src/engine/arrays/ndarray.ts";
import type { OpName } from "../../../src/engine/graph/ops.ts";
import { batch, batchTimes } from "../../../src/engine/graph/shape.ts";
import { concat, stack } from "../../../src/engine/graph/functional.ts";
import type { Tensor } from "../../../src/engine/graph/tensor.ts";
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

/** One case a dtype for an op that takes any. */
function everyDtype(
  name: string,
  build: (
    uniform: (...shape: Parameters<CaseData["uniform"]>[0][number][]) => Tensor,
  ) => ReturnType<Case["build"]>,
): Case[] {
  return dtypes.map((dtype) => ({
    name: `${name} of ${dtype}`,
    exact: true,
    build: (data) => build((...shape) => data.uniform(shape, { dtype })),
  }));
}

export const shapeCases = {
  reshape: [
    ...everyDtype("reshape", (uniform) => ({
      split: uniform(batch, 6).reshape([batch, 2, 3]),
      merge: uniform(batch, 2, 3).reshape([batchTimes(6)]),
    })),
    {
      name: "reshape with sizes of 1, of nothing, and around the batch",
      exact: true,
      build: (data) => {
        const x = data.uniform([batch, 4, 6]);
        return {
          fold: x.reshape([batchTimes(4), 6]),
          unfold: x.reshape([batchTimes(4), 6]).reshape([batch, 2, 2, 6]),
          moved: x.reshape([4, batch, 6]),
          ones: x.reshape([1, batch, 1, 24, 1]),
          toVector: data.uniform([]).reshape([1]),
          toScalar: data.uniform([1, 1]).reshape([]),
          empty: data.uniform([0, 3]).reshape([3, 0]),
          emptyWithBatch: data.uniform([batch, 0, 3]).reshape([batch, 3, 0]),
        };
      },
    },
  ],
  transpose: [
    ...everyDtype("transpose", (uniform) => uniform(batch, 3, 5).transpose([2, 0, 1])),
    {
      name: "transpose of rank 2 to 5",
      exact: true,
      build: (data) => ({
        matrix: data.uniform([batch, 7]).transpose([1, 0]),
        lastTwo: data.uniform([batch, 2, 3, 5]).transpose([0, 1, 3, 2]),
        heads: data.uniform([batch, 5, 2, 3]).transpose([0, 2, 1, 3]),
        ones: data.uniform([1, 3, 1, 2]).transpose([3, 2, 1, 0]),
        deep: data.uniform([2, 1, 3, 2, 5]).transpose([4, 1, 0, 3, 2]),
        patches: data
          .uniform([batch, 4, 6, 3])
          .rearrange("b (h p) (w q) c -> b (h w) (p q c)", { p: 2, q: 2 }),
      }),
    },
  ],
  expand: [
    ...everyDtype("expand", (uniform) => uniform(batch, 1, 5).expand([batch, 3, 5])),
    {
      name: "expand of new axes and to the batch",
      exact: true,
      build: (data) => {
        const x = data.uniform([batch, 2]);
        return {
          leading: x.expand([3, batch, 2]),
          toBatch: data.uniform([1, 7]).expand([batchTimes(2), 7]),
          scalar: data.uniform([]).expand([2, 3]),
          scalarToBatch: data.uniform([]).expand([batch, 2]),
          toNothing: data.uniform([1, 2]).expand([0, 2]),
        };
      },
    },
  ],
  concat: [
    ...everyDtype("concat", (uniform) =>
      concat([uniform(batch, 2), uniform(batch, 1), uniform(batch, 5)], 1),
    ),
    {
      name: "concat along each axis, also the batch, also of nothing",
      exact: true,
      build: (data) => {
        const [a, b] = [data.uniform([batch, 3, 2]), data.uniform([batch, 3, 2])];
        return {
          batch: concat([a, b, a], 0),
          middle: concat([a, b], 1),
          last: concat([a, b], -1),
          stacked: stack([a, b], 1),
          empty: concat([data.uniform([0, 2]), data.uniform([3, 2]), data.uniform([0, 2])], 0),
        };
      },
    },
  ],
  slice: [
    ...everyDtype("slice", (uniform) => uniform(batch, 11).slice(1, 2, 9, 3)),
    {
      name: "slice along each axis, from both ends, of nothing",
      exact: true,
      build: (data) => {
        const x = data.uniform([batch, 7, 5]);
        return {
          front: x.slice(1, 0, 3),
          back: x.slice(-1, -2),
          steps: x.slice(1, 1, 7, 2),
          two: x.slice(1, 2, 5).slice(2, 1, 4, 2),
          one: x.slice(1, 6),
          nothing: x.slice(1, 3, 3),
          vector: data.uniform([13]).slice(0, 0, 13, 5),
        };
      },
    },
  ],
  split: [
    ...everyDtype("split", (uniform) =>
      Object.fromEntries(uniform(batch, 7).split([1, 4, 2], 1).entries()),
    ),
    {
      name: "split along each axis, also the batch",
      exact: true,
      build: (data) => {
        const x = data.uniform([batchTimes(3), 6, 2]);
        const [first, , third] = x.split(3, 0) as [Tensor, Tensor, Tensor];
        const [wide, narrow] = x.split([batchTimes(2), batch], 0) as [Tensor, Tensor];
        const [left, right] = x.split(2, 1) as [Tensor, Tensor];
        const [whole] = x.split(1, 2) as [Tensor];
        return { first, third, wide, narrow, left, right, whole };
      },
    },
  ],
  pad: [
    ...(["float32", "float16", "float64", "int64", "int32", "uint8"] as const).map((dtype) => ({
      name: `pad of ${dtype}`,
      exact: true,
      build: (data: CaseData) =>
        data.uniform([batch, 3, 5], { dtype }).pad(
          [
            [0, 0],
            [2, 0],
            [1, 3],
          ],
          1,
        ),
    })),
    {
      name: "pad of rank 1 to 5, with zero and with infinity",
      exact: true,
      build: (data) => ({
        vector: data.uniform([1]).pad([[3, 2]]),
        mask: data.uniform([batch, 2]).pad(
          [
            [0, 0],
            [0, 3],
          ],
          -Infinity,
        ),
        image: data.uniform([batch, 2, 3, 3]).pad([
          [0, 0],
          [0, 0],
          [1, 1],
          [1, 1],
        ]),
        deep: data.uniform([2, 1, 3, 1, 2]).pad([
          [0, 1],
          [1, 0],
          [0, 0],
          [2, 0],
          [0, 0],
        ]),
        fromNothing: data.uniform([0, 2]).pad(
          [
            [1, 1],
            [0, 0],
          ],
          4,
        ),
      }),
    },
  ],
  flip: [
    ...everyDtype("flip", (uniform) => uniform(batch, 7).flip(1)),
    {
      name: "flip of several axes and of the batch",
      exact: true,
      build: (data) => {
        const x = data.uniform([batch, 3, 1, 5]);
        return {
          batch: x.flip(0),
          two: x.flip([1, 3]),
          all: x.flip([0, 1, 2, 3]),
          none: x.flip([]),
          vector: data.uniform([7]).flip(0),
        };
      },
    },
  ],
} satisfies { readonly [K in OpName]?: readonly Case[] };
