/** Convolutions in one to three dimensions, and upsampling. */
import type { OpName } from "../../../src/engine/graph/ops.ts";
import { batch } from "../../../src/engine/graph/shape.ts";
import type { Case, CaseData } from "../case.ts";

export const imageCases = {
  conv: [
    {
      name: "conv in one, two and three dimensions",
      build: (data) => ({
        line: data.uniform([batch, 3, 11]).conv(data.uniform([5, 3, 3]), data.uniform([5])),
        image: data.uniform([batch, 3, 7, 5]).conv(data.uniform([2, 3, 3, 3]), data.uniform([2])),
        video: data.uniform([batch, 2, 3, 5, 4]).conv(data.uniform([3, 2, 2, 3, 1])),
      }),
    },
    {
      name: "conv with padding, stride and dilation",
      build: (data) => {
        const [x, weight] = [data.uniform([batch, 3, 9, 8]), data.uniform([4, 3, 3, 3])];
        const asymmetric = [
          [1, 2],
          [0, 3],
        ] as const;
        return {
          padded: x.conv(weight, undefined, { padding: 1 }),
          strided: x.conv(weight, undefined, { stride: 2, padding: 1 }),
          dilated: x.conv(weight, undefined, { dilation: [2, 1] }),
          asymmetric: x.conv(weight, undefined, { padding: asymmetric, stride: [1, 3] }),
          patches: x.conv(data.uniform([5, 3, 3, 2]), undefined, { stride: [3, 2] }),
          pointwise: x.conv(data.uniform([7, 3, 1, 1]), data.uniform([7])),
          line: data.uniform([batch, 1, 13]).conv(data.uniform([1, 1, 4]), undefined, {
            stride: 3,
            dilation: 2,
            padding: [[3, 1]],
          }),
          video: data.uniform([batch, 1, 4, 4, 4]).conv(data.uniform([2, 1, 2, 2, 2]), undefined, {
            stride: 2,
            padding: 1,
          }),
        };
      },
    },
    {
      name: "conv in groups and depthwise",
      build: (data) => {
        const x = data.uniform([batch, 6, 5, 5]);
        return {
          groups: x.conv(data.uniform([4, 3, 3, 3]), data.uniform([4]), { groups: 2 }),
          depthwise: x.conv(data.uniform([6, 1, 3, 3]), data.uniform([6]), {
            groups: 6,
            padding: 1,
          }),
          widened: x.conv(data.uniform([12, 1, 3, 3]), undefined, { groups: 6 }),
        };
      },
    },
    {
      name: "conv with weights inside of the program",
      build: (data) =>
        data
          .uniform([batch, 3, 6, 6])
          .conv(data.weight([4, 3, 3, 3]), data.weight([4]), { padding: 1 }),
    },
    ...(["float16", "float64"] as const).map((dtype) => ({
      name: `conv of ${dtype}`,
      build: (data: CaseData) =>
        data
          .uniform([batch, 3, 5, 5], { dtype })
          .conv(data.uniform([2, 3, 3, 3], { dtype }), data.uniform([2], { dtype })),
    })),
  ],
  convTranspose: [
    {
      name: "convTranspose in one, two and three dimensions",
      build: (data) => ({
        line: data
          .uniform([batch, 3, 5])
          .convTranspose(data.uniform([3, 2, 3]), data.uniform([2]), { stride: 2 }),
        image: data
          .uniform([batch, 3, 4, 3])
          .convTranspose(data.uniform([3, 2, 3, 3]), data.uniform([2])),
        video: data
          .uniform([batch, 2, 2, 3, 2])
          .convTranspose(data.uniform([2, 1, 2, 2, 3]), undefined, { stride: [1, 2, 1] }),
      }),
    },
    {
      name: "convTranspose with padding, stride, dilation and output padding",
      build: (data) => {
        const [x, weight] = [data.uniform([batch, 3, 4, 5]), data.uniform([3, 2, 3, 3])];
        const asymmetric = [
          [1, 0],
          [0, 2],
        ] as const;
        return {
          padded: x.convTranspose(weight, undefined, { padding: 1 }),
          strided: x.convTranspose(weight, undefined, { stride: 2, padding: 1, outputPadding: 1 }),
          dilated: x.convTranspose(weight, undefined, { dilation: [2, 1] }),
          asymmetric: x.convTranspose(weight, undefined, { padding: asymmetric, stride: [3, 2] }),
        };
      },
    },
    {
      name: "convTranspose in groups",
      build: (data) =>
        data
          .uniform([batch, 6, 3, 3])
          .convTranspose(data.uniform([6, 2, 3, 3]), data.uniform([4]), { groups: 2, stride: 2 }),
    },
    ...(["float16", "float64"] as const).map((dtype) => ({
      name: `convTranspose of ${dtype}`,
      build: (data: CaseData) =>
        data
          .uniform([batch, 3, 3, 3], { dtype })
          .convTranspose(data.uniform([3, 2, 2, 2], { dtype }), undefined, { stride: 2 }),
    })),
  ],
  upsampleNearest: [
    {
      name: "upsampleNearest in one, two and three dimensions",
      exact: true,
      build: (data) => ({
        line: data.uniform([batch, 2, 3]).upsampleNearest(3),
        image: data.uniform([batch, 3, 3, 2]).upsampleNearest(2),
        uneven: data.uniform([batch, 1, 3, 5]).upsampleNearest([1, 3]),
        video: data.uniform([batch, 2, 2, 3, 1]).upsampleNearest([1, 2, 2]),
      }),
    },
    ...(["float16", "float64"] as const).map((dtype) => ({
      name: `upsampleNearest of ${dtype}`,
      exact: dtype === "float16",
      build: (data: CaseData) => data.uniform([batch, 2, 3, 3], { dtype }).upsampleNearest(2),
    })),
  ],
} satisfies { readonly [K in OpName]?: readonly Case[] };
