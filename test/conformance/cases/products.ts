/** Matrix products: transposes, leading axes, thin and prime sizes. */
import type { OpName } from "../../../src/engine/graph/ops.ts";
import { concat, full } from "../../../src/engine/graph/functional.ts";
import { apply, applyMany, type Tensor } from "../../../src/engine/graph/tensor.ts";
import { batch, batchTimes, type Shape } from "../../../src/engine/graph/shape.ts";
import type { Case, CaseData } from "../case.ts";

const orientations = [
  { transposeA: false, transposeB: false },
  { transposeA: true, transposeB: false },
  { transposeA: false, transposeB: true },
  { transposeA: true, transposeB: true },
];

/** [name, leading axes of a, leading axes of b] */
const leading: readonly (readonly [string, Shape, Shape])[] = [
  ["two matrices", [], []],
  ["stacks", [batch], [batch]],
  ["a stack and a matrix", [batch, 3], []],
  ["a matrix and a stack", [], [batch]],
  ["stacks that broadcast", [batch, 1], [1, 3]],
  ["stacks of stacks", [2, batch], [2, batch]],
];

function matmulCases(): Case[] {
  return leading.map(([name, leadingA, leadingB]) => ({
    name: `matmul of ${name}, all orientations`,
    build: (data) =>
      Object.fromEntries(
        orientations.map((orientation) => {
          const { transposeA, transposeB } = orientation;
          const a = data.uniform([...leadingA, ...(transposeA ? [7, 5] : [5, 7])]);
          const b = data.uniform([...leadingB, ...(transposeB ? [3, 7] : [7, 3])]);
          return [`a${Number(transposeA)}b${Number(transposeB)}`, a.matmul(b, orientation)];
        }),
      ),
  }));
}

export const productCases = {
  matmul: [
    ...matmulCases(),
    {
      name: "matmul with sizes of 1",
      build: (data) => ({
        dot: data.uniform([1, 11]).matmul(data.uniform([11, 1])),
        outer: data.uniform([11, 1]).matmul(data.uniform([1, 13])),
        number: data.uniform([1, 1]).matmul(data.uniform([1, 1])),
        stack: data.uniform([batch, 1, 11]).matmul(data.uniform([11, 1])),
      }),
    },
    {
      name: "matmul with the batch as rows and as the inner size",
      build: (data) => {
        const x = data.uniform([batchTimes(2), 7]);
        return {
          rows: x.matmul(data.uniform([7, 5])),
          gram: x.matmul(x, { transposeA: true }),
          outer: x.matmul(data.uniform([4, 7]), { transposeB: true }),
        };
      },
    },
    {
      name: "matmul of larger matrices",
      build: (data) => data.uniform([67, 131]).matmul(data.uniform([131, 37])),
    },
    ...(["float16", "float64"] as const).map((dtype) => ({
      name: `matmul of ${dtype}`,
      build: (data: CaseData) => ({
        matrices: data.uniform([5, 7], { dtype }).matmul(data.uniform([7, 3], { dtype })),
        stacks: data
          .uniform([batch, 5, 7], { dtype })
          .matmul(data.uniform([batch, 3, 7], { dtype }), { transposeB: true }),
      }),
    })),
  ],
  linear: [
    {
      name: "linear of rank 1 to 4",
      build: (data) => {
        const [weight, bias] = [data.uniform([3, 7]), data.uniform([3])];
        return {
          vector: data.uniform([7]).linear(weight, bias),
          matrix: data.uniform([batch, 7]).linear(weight, bias),
          tokens: data.uniform([batch, 5, 7]).linear(weight, bias),
          plain: data.uniform([batch, 5, 7]).linear(weight),
          image: data.uniform([batchTimes(2), 2, 1, 7]).linear(weight),
          narrow: data.uniform([batch, 1]).linear(data.uniform([1, 1]), data.uniform([1])),
        };
      },
    },
    {
      name: "linear with weights inside of the program",
      build: (data) => data.uniform([batch, 5, 7]).linear(data.weight([13, 7]), data.weight([13])),
    },
    ...(["float16", "float64"] as const).map((dtype) => ({
      name: `linear of ${dtype}`,
      build: (data: CaseData) =>
        data
          .uniform([batch, 5, 7], { dtype })
          .linear(data.uniform([3, 7], { dtype }), data.uniform([3], { dtype })),
    })),
  ],
  quantizeRows: [
    {
      name: "quantizeRows of whole multiples",
      // A row whose largest magnitude is 127 has a scale of exactly 1, so nothing depends on how a device rounds.
      build: (data) => {
        const rows = (outer: Shape, width: number) => {
          const whole = data.uniform([...outer, width - 1], {
            low: -127,
            high: 128,
            whole: true,
          });
          return concat([whole, full([...outer, 1], -127)], -1);
        };
        const parts = {
          matrix: rows([batch], 7),
          tokens: rows([batch, 5], 33),
          vector: rows([], 4),
        };
        const zeros = data.uniform([2, 5]).mul(0);
        return Object.fromEntries(
          Object.entries({ ...parts, zeros }).flatMap(([name, x]) => {
            const [q, scale] = applyMany("quantizeRows", [x], {}) as [Tensor, Tensor];
            return [
              [name, q],
              [`${name} scale`, scale],
            ];
          }),
        );
      },
    },
  ],
  quantizedLinear: [
    {
      name: "quantizedLinear of rank 1 to 4",
      build: (data) => {
        const q = (shape: Shape) => data.uniform(shape, { dtype: "uint8", high: 256 });
        const w = data.uniform([7, 3], { dtype: "int8", low: -127, high: 128 });
        const [scale, bias] = [data.uniform([3]), data.uniform([3])];
        const of = (shape: Shape, ...rest: Tensor[]) =>
          apply(
            "quantizedLinear",
            [q([...shape, 7]), data.uniform([...shape, 1]), w, scale, ...rest],
            {},
          );
        return {
          vector: of([], bias),
          matrix: of([batch], bias),
          tokens: of([batch, 5], bias),
          plain: of([batchTimes(2), 2, 1]),
        };
      },
    },
    {
      name: "quantizedLinear with weights inside of the program",
      build: (data) =>
        apply(
          "quantizedLinear",
          [
            data.uniform([batch, 5, 64], { dtype: "uint8", high: 256 }),
            data.uniform([batch, 5, 1]),
            data.weight([64, 48], { dtype: "int8", low: -127, high: 128 }),
            data.weight([48]),
            data.weight([48]),
          ],
          {},
        ),
    },
  ],
} satisfies { readonly [K in OpName]?: readonly Case[] };
