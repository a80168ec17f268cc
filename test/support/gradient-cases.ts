/**
 * For every op, graphs whose gradients are worth checking: each flag, rank and broadcasting edge.
 * Leaves without a dtype are float, of the precision that the checker chooses.
 */
import { recompute } from "../../src/engine/graph/recompute.ts";
import type { OpName } from "../../src/engine/graph/ops.ts";
import { batch, batchTimes, type Shape } from "../../src/engine/graph/shape.ts";
import {
  attention,
  concat,
  constantOf,
  detach,
  full,
  scatterSum,
  stack,
  where,
} from "../../src/engine/graph/functional.ts";
import { apply, applyMany, type Tensor } from "../../src/engine/graph/tensor.ts";

export interface LeafSpec {
  readonly shape: Shape;
  readonly dtype?: "float32" | "float64" | "int64" | "uint8" | "int8" | "bool";
  readonly low?: number;
  readonly high?: number;
  readonly parameter?: boolean;
}

export interface GradientCase {
  readonly name: string;
  readonly leaves: Readonly<Record<string, LeafSpec>>;
  /** Batch sizes to try; 0, 1 and 3 unless given. */
  readonly batches?: readonly number[];
  readonly build: (
    leaves: Record<"x" | "y" | "z" | "w" | "b" | "i" | "c", Tensor>,
  ) => Tensor | readonly Tensor[];
}

const range = (shape: Shape, low: number, high: number): LeafSpec => ({ shape, low, high });
const positive = (shape: Shape): LeafSpec => range(shape, 0.4, 2);
const indices = (shape: Shape, below: number): LeafSpec => ({
  shape,
  dtype: "int64",
  low: 0,
  high: below,
});
const condition = (shape: Shape): LeafSpec => ({ shape, dtype: "bool", low: 0, high: 2 });

function isSpec(leaf: Shape | LeafSpec): leaf is LeafSpec {
  return "shape" in leaf;
}

function testCase(
  name: string,
  leaves: Readonly<Record<string, Shape | LeafSpec>>,
  build: GradientCase["build"],
  batches?: readonly number[],
): GradientCase {
  const specs = Object.entries(leaves).map(([key, leaf]) => [
    key,
    isSpec(leaf) ? leaf : { shape: leaf },
  ]);
  return { name, leaves: Object.fromEntries(specs), build, ...(batches ? { batches } : {}) };
}

const unary = (build: (x: Tensor) => Tensor, leaf: Shape | LeafSpec = [2, 3]) => [
  testCase("a matrix", { x: leaf }, ({ x }) => build(x)),
];

/** Equal shapes, and an edge that broadcasts on either side, on both, and by rank. */
const binary = (
  build: (x: Tensor, y: Tensor) => Tensor,
  x: (shape: Shape) => Shape | LeafSpec = (shape) => shape,
  y = x,
) =>
  (
    [
      [
        [2, 3],
        [2, 3],
      ],
      [[2, 3], []],
      [[], [2, 3]],
      [
        [2, 1, 3],
        [4, 1],
      ],
      [[3], [2, 1]],
      [[1, 1], [1]],
      [
        [batch, 2],
        [1, 2],
      ],
      [[2], [batch, 1]],
    ] as [Shape, Shape][]
  ).map(([a, b]) =>
    testCase(`${JSON.stringify(a)} and ${JSON.stringify(b)}`, { x: x(a), y: y(b) }, (t) =>
      build(t.x, t.y),
    ),
  );

const reductions = (build: (x: Tensor, axes: number[] | undefined, keep: boolean) => Tensor) =>
  ([undefined, [0], [1], [-1], [0, 2], []] as (number[] | undefined)[]).flatMap((axes) =>
    [false, true].map((keep) =>
      testCase(`axes ${JSON.stringify(axes)}, keepDims ${keep}`, { x: [2, 3, 2] }, ({ x }) =>
        build(x, axes, keep),
      ),
    ),
  );

type ConvOptions = NonNullable<Parameters<Tensor["convTranspose"]>[2]>;

/** x, weight, options and whether there is a bias (of the number of outputs given). */
const convCases: [name: string, x: Shape, w: Shape, options: ConvOptions, bias?: number][] = [
  ["1-D", [2, 2, 5], [3, 2, 3], {}, 3],
  ["1-D, one tap", [1, 2, 4], [2, 2, 1], {}],
  ["1-D, stride that leaves pixels over", [1, 1, 8], [1, 1, 3], { stride: 3 }],
  ["1-D, dilated, padded on one side", [1, 2, 6], [2, 2, 3], { dilation: 2, padding: [[3, 0]] }, 2],
  ["1-D, stride and dilation", [1, 1, 9], [2, 1, 2], { stride: 2, dilation: 3, padding: 1 }],
  ["2-D", [2, 2, 4, 3], [2, 2, 3, 2], {}, 2],
  ["2-D, patches", [1, 2, 4, 4], [3, 2, 2, 2], { stride: 2 }, 3],
  [
    "2-D, all different",
    [1, 2, 6, 5],
    [2, 2, 3, 2],
    {
      stride: [2, 1],
      dilation: [1, 2],
      padding: [
        [1, 0],
        [0, 2],
      ],
    },
    2,
  ],
  ["2-D, 2 groups", [2, 4, 3, 3], [2, 2, 2, 2], { groups: 2, padding: 1 }, 2],
  ["2-D, 2 groups of more outputs", [1, 4, 3, 3], [6, 2, 2, 2], { groups: 2, stride: 2 }, 6],
  ["2-D, depthwise", [2, 3, 4, 4], [3, 1, 3, 3], { groups: 3, padding: 1, stride: 2 }, 3],
  ["2-D, window as large as the image", [2, 1, 3, 3], [2, 1, 3, 3], {}],
  ["3-D", [1, 2, 3, 3, 2], [2, 2, 2, 2, 2], { padding: [1, 0, [0, 1]], stride: [2, 1, 1] }, 2],
  ["symbolic batch", [batch, 2, 4], [2, 1, 3], { groups: 2, padding: 1, stride: 2 }, 2],
];

/** Weights are [C, O/groups, ...]. */
const convTransposeCases: typeof convCases = [
  ["1-D", [2, 2, 3], [2, 3, 3], {}, 3],
  ["1-D, stride", [1, 2, 3], [2, 1, 2], { stride: 2 }],
  ["1-D, output padding", [1, 1, 3], [1, 2, 3], { stride: 3, padding: 1, outputPadding: 2 }, 2],
  [
    "1-D, output padding up to the dilation",
    [1, 1, 3],
    [1, 2, 2],
    { dilation: 3, outputPadding: 2 },
  ],
  [
    "2-D",
    [2, 2, 3, 2],
    [2, 2, 2, 3],
    {
      padding: [
        [1, 0],
        [1, 1],
      ],
    },
    2,
  ],
  ["2-D, upsampling", [1, 2, 3, 3], [2, 2, 4, 4], { stride: 2, padding: 1 }, 2],
  [
    "2-D, all different",
    [1, 4, 3, 2],
    [4, 2, 3, 2],
    {
      stride: [2, 3],
      dilation: [1, 2],
      padding: [
        [1, 0],
        [0, 2],
      ],
      outputPadding: [1, 0],
      groups: 2,
    },
    4,
  ],
  ["3-D", [1, 1, 2, 2, 2], [1, 2, 2, 1, 2], { stride: 2, outputPadding: [0, 1, 0] }, 2],
  ["symbolic batch", [batch, 2, 3], [2, 1, 2], { stride: 2, groups: 2 }, 2],
];

const conv = (cases: typeof convCases, transposed: boolean) =>
  cases.map(([name, x, w, options, bias]) =>
    testCase(name, bias ? { x, w, b: [bias] } : { x, w }, (t) =>
      transposed
        ? t.x.convTranspose(t.w, bias ? t.b : undefined, options)
        : t.x.conv(t.w, bias ? t.b : undefined, options),
    ),
  );

const matmulCases = (
  [
    [
      [2, 3],
      [3, 4],
    ],
    [
      [2, 2, 3],
      [2, 3, 2],
    ],
    [
      [2, 2, 3],
      [3, 2],
    ],
    [
      [2, 3],
      [2, 3, 2],
    ],
    [
      [2, 1, 2, 3],
      [3, 3, 2],
    ],
    [
      [batch, 2, 3],
      [3, 2],
    ],
    [
      [batch, 2, 3],
      [1, 3, 2],
    ],
  ] as [Shape, Shape][]
).flatMap(([a, b]) =>
  [false, true].flatMap((transposeA) =>
    [false, true].map((transposeB) => {
      const swap = (shape: Shape, yes: boolean) =>
        yes ? [...shape.slice(0, -2), shape.at(-1)!, shape.at(-2)!] : shape;
      return testCase(
        `${JSON.stringify(a)} × ${JSON.stringify(b)}, transposed ${transposeA} ${transposeB}`,
        { x: swap(a, transposeA), y: swap(b, transposeB) },
        ({ x, y }) => x.matmul(y, { transposeA, transposeB }),
      );
    }),
  ),
);

const whereCases = (
  [
    [
      [2, 3],
      [2, 3],
      [2, 3],
    ],
    [[2, 1], [3], [2, 3]],
    [[2, 3], [], [1, 3]],
    [[], [2, 1], [1, 3]],
    [[batch, 1], [3], [batch, 3]],
  ] as [Shape, Shape, Shape][]
).map(([c, x, y]) =>
  testCase(JSON.stringify([c, x, y]), { c: condition(c), x, y }, (t) => where(t.c, t.x, t.y)),
);

const attentionCases = (
  [
    ["without bias", undefined],
    ["full bias", [2, 2, 3, 4]],
    ["bias over keys", [4]],
    ["bias over heads", [2, 1, 1]],
    ["bias over queries and batch", [2, 1, 3, 1]],
  ] as [string, Shape | undefined][]
).map(([name, bias]) =>
  testCase(
    name,
    { x: [2, 3, 4], y: [2, 4, 4], z: [2, 4, 6], ...(bias ? { b: bias } : {}) },
    ({ x, y, z, b }) => attention(x, y, z, { heads: 2, ...(bias ? { bias: b } : {}) }),
  ),
);

const norm = (op: "layerNorm" | "rmsNorm", names: readonly ("x" | "w" | "b")[]) => {
  const x: Shape = [2, 2, 4];
  const leaves = Object.fromEntries(names.map((name) => [name, name === "x" ? x : [4]]));
  return [
    testCase(`${names.join(", ")}: y alone`, leaves, (t) =>
      apply(
        op,
        names.map((name) => t[name]),
        { epsilon: 0.1 },
      ),
    ),
    testCase(`${names.join(", ")}: y and its statistics`, leaves, (t) =>
      applyMany(
        op,
        names.map((name) => t[name]),
        { epsilon: 0.1 },
      ),
    ),
    testCase(`${names.join(", ")}: statistics alone`, leaves, (t) =>
      applyMany(
        op,
        names.map((name) => t[name]),
        { epsilon: 0.1 },
      ).slice(1),
    ),
  ];
};

const slices: [start: number, end: number | undefined, step: number][] = [
  [1, 4, 1],
  [0, undefined, 2],
  [1, undefined, 3],
  [2, 7, 2],
  [0, 1, 4],
  [-3, -1, 1],
  [3, 3, 1],
];

export const gradientCases: { readonly [K in OpName]: readonly GradientCase[] } = {
  input: unary((x) => x.mul(x)),
  parameter: [
    testCase("a parameter", { x: { shape: [2, 3], parameter: true } }, ({ x }) => x.mul(x)),
  ],
  constant: unary((x) => x.mul(constantOf([1, 2, 3], [3], x.dtype))),
  full: unary((x) => x.mul(full([2, 1], 3, x.dtype))),

  neg: unary((x) => x.neg()),
  abs: unary((x) => x.abs()),
  sign: unary((x) => x.sign()),
  exp: unary((x) => x.exp()),
  log: unary((x) => x.log(), positive([2, 3])),
  sqrt: unary((x) => x.sqrt(), positive([2, 3])),
  reciprocal: [
    ...unary((x) => x.reciprocal(), positive([2, 3])),
    ...unary((x) => x.reciprocal(), range([2, 3], -2, -0.5)),
  ],
  sin: unary((x) => x.sin()),
  cos: unary((x) => x.cos()),
  tanh: unary((x) => x.tanh()),
  erf: unary((x) => x.erf()),
  sigmoid: unary((x) => x.sigmoid()),
  relu: unary((x) => x.relu()),
  silu: unary((x) => x.silu()),
  gelu: [
    ...unary((x) => x.gelu(), range([3, 4], -4, 4)),
    ...unary((x) => x.gelu("tanh"), range([3, 4], -4, 4)),
  ],
  floor: unary((x) => x.floor()),
  ceil: unary((x) => x.ceil()),
  round: unary((x) => x.round()),
  // Finite differences see through it: only what is flat anyway agrees with them.
  detach: unary((x) => detach(x.sign())),

  add: binary((x, y) => x.add(y)),
  sub: binary((x, y) => x.sub(y)),
  mul: [
    ...binary((x, y) => x.mul(y)),
    testCase("a tensor by itself", { x: [2, 3] }, ({ x }) => x.mul(x).mul(x)),
  ],
  div: binary(
    (x, y) => x.div(y),
    (shape) => shape,
    positive,
  ),
  pow: [
    ...binary(
      (x, y) => x.pow(y),
      positive,
      (shape) => range(shape, -2, 3),
    ),
    ...unary((x) => x.pow(3)),
    ...unary((x) => x.pow(2)),
    ...unary((x) => x.pow(1)),
    ...unary((x) => x.pow(-0.5), positive([4])),
  ],
  minimum: binary((x, y) => x.minimum(y)),
  maximum: binary((x, y) => x.maximum(y)),

  equal: [
    testCase("a choice", { x: [2, 3], i: indices([3], 3) }, ({ x, i }) =>
      where(i.equal(constantOf([1], [1], "int64")), x, x.mul(x)),
    ),
  ],
  less: [testCase("a choice", { x: [2, 3], y: [3] }, ({ x, y }) => where(x.less(y), x.mul(2), y))],
  lessEqual: [
    testCase("a choice", { x: [2, 3], y: [3] }, ({ x, y }) => where(x.lessEqual(y), x.mul(2), y)),
  ],
  not: [
    testCase("a choice", { x: [2, 3], c: condition([2, 3]) }, ({ x, c }) =>
      where(c.not(), x, x.mul(3)),
    ),
  ],
  and: [
    testCase("a choice", { x: [2, 3], y: [2, 3] }, ({ x, y }) =>
      where(x.less(0.5).and(y.less(0.5)), x, y),
    ),
  ],
  or: [
    testCase("a choice", { x: [2, 3], y: [2, 3] }, ({ x, y }) =>
      where(x.less(-0.5).or(y.less(-0.5)), x, y),
    ),
  ],
  where: whereCases,
  cast: [
    testCase("to an integer and back: no gradient", { x: [2, 3] }, ({ x }) =>
      x.cast("int64").cast(x.dtype).add(x),
    ),
    testCase("to a wider float", { x: { shape: [2, 3], dtype: "float32" } }, ({ x }) =>
      x.mul(x).cast("float64").exp(),
    ),
    testCase("to a narrower float", { x: { shape: [2, 3], dtype: "float64" } }, ({ x }) =>
      x.mul(x).cast("float32").exp(),
    ),
  ],

  sum: reductions((x, axes, keep) => x.sum(axes, keep)),
  mean: [
    ...reductions((x, axes, keep) => x.mean(axes, keep)),
    // The mean of no numbers is NaN.
    testCase("over the batch", { x: [batch, 2, 3] }, ({ x }) => x.mul(x).mean([0, 2]), [1, 3]),
    testCase("variance", { x: [2, 4] }, ({ x }) => x.variance(-1)),
  ],
  max: reductions((x, axes, keep) => x.max(axes, keep)),
  extent: [testCase("as a factor", { x: [batch, 3] }, ({ x }) => x.mul(x.extent([0, 1])).mul(x))],
  argmax: [
    testCase("as an index", { x: [3, 4], y: [4, 2] }, ({ x, y }) => [
      y.gather(x.argmax(-1)),
      x.mul(x),
    ]),
  ],
  argmin: [testCase("as an index", { x: [3, 4], y: [3, 2] }, ({ x, y }) => y.gather(x.argmin(0)))],
  cumsum: [0, 1, 2].flatMap((axis) =>
    [false, true].map((reverse) =>
      testCase(`axis ${axis}, reverse ${reverse}`, { x: [2, 3, 2] }, ({ x }) =>
        x.mul(x).cumsum(axis, reverse),
      ),
    ),
  ),
  softmax: [0, 1, 2].map((axis) =>
    testCase(`axis ${axis}`, { x: [2, 3, 2] }, ({ x }) => x.softmax(axis)),
  ),
  logSoftmax: [0, 1, 2].map((axis) =>
    testCase(`axis ${axis}`, { x: [2, 3, 2] }, ({ x }) => x.logSoftmax(axis)),
  ),

  matmul: matmulCases,
  linear: (
    [
      [[2, 3], false],
      [[2, 3], true],
      [[3], true],
      [[2, 2, 3], true],
      [[batch, 2, 3], true],
    ] as [Shape, boolean][]
  ).map(([x, bias]) =>
    testCase(
      `${JSON.stringify(x)}, bias ${bias}`,
      bias ? { x, w: [4, 3], b: [4] } : { x, w: [4, 3] },
      (t) => t.x.linear(t.w, bias ? t.b : undefined),
    ),
  ),
  quantizeRows: [
    testCase("integers without a gradient", { x: { shape: [2, 3], dtype: "float32" } }, ({ x }) => [
      applyMany("quantizeRows", [x], {})[0]!.cast("float32"),
      x.mul(x),
    ]),
  ],
  quantizedLinear: [false, true].map((bias) =>
    testCase(
      `its scales, bias ${bias}`,
      {
        x: { shape: [batch, 2, 3], dtype: "uint8", low: 0, high: 256 },
        y: { shape: [batch, 2, 1], dtype: "float32", low: 1, high: 2 },
        w: { shape: [3, 4], dtype: "int8", low: -127, high: 128 },
        z: { shape: [4], dtype: "float32", low: 1, high: 2 },
        ...(bias && { b: { shape: [4], dtype: "float32" } as const }),
      },
      ({ x, y, w, z, b }) => apply("quantizedLinear", [x, y, w, z, ...(bias ? [b] : [])], {}),
    ),
  ),

  reshape: [
    testCase("2-D to 3-D", { x: [4, 3] }, ({ x }) => x.mul(x).reshape([2, 3, 2])),
    testCase("batch folded in", { x: [batch, 2, 3] }, ({ x }) =>
      x
        .mul(x)
        .reshape([batchTimes(2), 3])
        .softmax(0),
    ),
    testCase("to a scalar", { x: [1, 1] }, ({ x }) => x.mul(x).reshape([])),
  ],
  transpose: [
    testCase("cycle of three axes", { x: [2, 3, 4] }, ({ x }) => x.mul(x).transpose([2, 0, 1])),
    testCase("einops", { x: [batch, 4, 6] }, ({ x }) =>
      x.rearrange("b (h p) (w q) -> b (h w) (p q)", { p: 2, q: 3 }).softmax(),
    ),
  ],
  expand: [
    testCase("axes of 1", { x: [2, 1, 3] }, ({ x }) => x.mul(x).expand([2, 4, 3])),
    testCase("new axes", { x: [3, 1] }, ({ x }) => x.mul(x).expand([2, 3, 2])),
    testCase("to the batch", { x: [1, 2], y: [batch, 2] }, ({ x, y }) =>
      x.mul(x).expand([batch, 2]).mul(y),
    ),
  ],
  concat: [
    testCase("three along axis 1", { x: [2, 1], y: [2, 3], z: [2, 2] }, ({ x, y, z }) =>
      concat([x, y.mul(y), z], 1),
    ),
    testCase("a tensor with itself", { x: [batch, 2] }, ({ x }) => concat([x, x.mul(x)], 0)),
    testCase("stack", { x: [2, 3], y: [2, 3] }, ({ x, y }) => stack([x, y, x.mul(y)], 1)),
  ],
  slice: [
    ...slices.map(([start, end, step]) =>
      testCase(`${start}:${end}:${step}`, { x: [2, 7] }, ({ x }) =>
        x.mul(x).slice(1, start, end, step),
      ),
    ),
    testCase("of two axes", { x: [batch, 4, 5] }, ({ x }) =>
      x.slice(1, 1, 4, 2).mul(2).slice(2, 0, 3),
    ),
    testCase("of two axes at once", { x: [5, 4] }, ({ x }) =>
      apply("slice", [x.mul(x)], { starts: [1, 0], ends: [5, 3], steps: [3, 2] }),
    ),
  ],
  split: [
    testCase("all parts", { x: [2, 6] }, ({ x }) => x.mul(x).split([1, 3, 2], 1)),
    testCase("only the second part", { x: [2, 6] }, ({ x }) => x.mul(x).split(3, 1)[1]!),
    testCase("of the batch", { x: [batchTimes(2), 3] }, ({ x }) => {
      const [a, b] = x.split(2, 0) as [Tensor, Tensor];
      return a.mul(b);
    }),
  ],
  pad: [
    testCase("zeros", { x: [2, 3] }, ({ x }) =>
      x.mul(x).pad([
        [1, 0],
        [0, 2],
      ]),
    ),
    testCase("another number", { x: [batch, 2] }, ({ x }) =>
      x
        .pad(
          [
            [0, 0],
            [2, 1],
          ],
          3,
        )
        .exp(),
    ),
  ],
  flip: [
    testCase("one axis", { x: [2, 3] }, ({ x }) => x.mul(x).flip(1)),
    testCase("two axes", { x: [2, 3, 2] }, ({ x }) => x.mul(x).flip([0, 2])),
  ],

  gather: [
    testCase("rows by a vector", { x: [4, 3], i: indices([5], 4) }, ({ x, i }) => x.gather(i)),
    testCase("rows by a matrix", { x: [4, 3], i: indices([2, 3], 4) }, ({ x, i }) => x.gather(i)),
    testCase("by a scalar", { x: [4, 3], i: indices([], 4) }, ({ x, i }) => x.gather(i)),
    testCase("axis 1", { x: [2, 4, 3], i: indices([5], 4) }, ({ x, i }) => x.gather(i, 1)),
    testCase("the last axis by a matrix", { x: [2, 3, 4], i: indices([2, 2], 4) }, ({ x, i }) =>
      x.mul(x).gather(i, -1),
    ),
    testCase("a table by a batch", { x: [4, 2], i: indices([batch], 4) }, ({ x, i }) =>
      x.mul(x).gather(i),
    ),
    testCase("a table by a batch of rows", { x: [4, 2], i: indices([batch, 3], 4) }, ({ x, i }) =>
      x.mul(x).gather(i),
    ),
  ],
  scatterSum: [
    testCase("rows that meet", { x: [6, 2], i: indices([6], 3) }, ({ x, i }) =>
      scatterSum(x.mul(x), i, 4),
    ),
    testCase("a batch of scalars", { x: [batch], i: indices([batch], 3) }, ({ x, i }) =>
      scatterSum(x.mul(x), i, 3),
    ),
  ],
  oneHot: [
    testCase("as a mask", { x: [2, 4], i: indices([2], 4) }, ({ x, i }) =>
      x.mul(x).mul(i.oneHot(4, x.dtype)),
    ),
  ],

  conv: conv(convCases, false),
  convTranspose: conv(convTransposeCases, true),
  upsampleNearest: [
    testCase("1-D", { x: [2, 1, 3] }, ({ x }) => x.mul(x).upsampleNearest(2)),
    testCase("2-D", { x: [batch, 2, 2, 3] }, ({ x }) => x.mul(x).upsampleNearest([3, 1])),
    testCase("3-D", { x: [1, 1, 2, 1, 2] }, ({ x }) => x.mul(x).upsampleNearest([1, 2, 2])),
  ],

  layerNorm: [
    ...norm("layerNorm", ["x"]),
    ...norm("layerNorm", ["x", "w"]),
    ...norm("layerNorm", ["x", "w", "b"]),
    testCase("a symbolic batch", { x: [batch, 2, 3], w: [3] }, ({ x, w }) =>
      x.layerNorm({ weight: w }),
    ),
  ],
  rmsNorm: [
    ...norm("rmsNorm", ["x"]),
    ...norm("rmsNorm", ["x", "w"]),
    testCase("a symbolic batch", { x: [batch, 2, 3], w: [3] }, ({ x, w }) =>
      x.rmsNorm({ weight: w }),
    ),
  ],
  groupNorm: [
    testCase("1 group, 1-D", { x: [2, 2, 3] }, ({ x }) => x.groupNorm(1)),
    testCase("2 groups, 2-D", { x: [2, 4, 2, 2] }, ({ x }) => x.groupNorm(2, 0.1)),
    testCase("a symbolic batch", { x: [batch, 2, 3] }, ({ x }) => x.groupNorm(2, 0.1)),
  ],

  attention: [
    ...attentionCases,
    testCase("a symbolic batch", { x: [batch, 2, 4], y: [batch, 3, 4] }, ({ x, y }) =>
      attention(x, y, y, { heads: 2, scale: 0.7 }),
    ),
  ],

  recompute: [
    testCase("a block with a weight from outside", { x: [2, 3], w: [3, 3] }, ({ x, w }) =>
      recompute([x], (inside) => inside.linear(w).tanh().mul(inside)),
    ),
    testCase("a block in a block", { x: [2, 3], w: [3, 3] }, ({ x, w }) =>
      recompute([x.mul(2)], (outside) => {
        const scaled = w.mul(outside.sum(0));
        return recompute([outside.exp()], (inside) => inside.linear(scaled).tanh()).mul(outside);
      }),
    ),
    testCase("integers among the inputs", { x: [4, 3], i: indices([batch], 4) }, ({ x, i }) =>
      recompute([x, i], (table, rows) => table.gather(rows).tanh()),
    ),
  ],
  barrier: [
    testCase("waits for a tensor", { x: [2, 3], y: [2] }, ({ x, y }) =>
      apply("barrier", [x.mul(x), y.mul(y)], {}),
    ),
  ],
};
