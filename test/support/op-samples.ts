/** For every op, a way to draw valid inputs and attributes at random. */
import fc from "fast-check";
import { recompute } from "../../src/engine/graph/recompute.ts";
import { type DType, dtypes, zeros } from "../../src/engine/arrays/ndarray.ts";
import { is } from "../../src/engine/graph/graph.ts";
import type { ConvAttributes, OpName, Ops } from "../../src/engine/graph/ops.ts";
import { batch, batchTimes, type Dim, type Shape } from "../../src/engine/graph/shape.ts";
import { input } from "../../src/engine/graph/functional.ts";

export interface SampleInput {
  readonly shape: Shape;
  readonly dtype: DType;
  readonly low?: number;
  readonly high?: number;
}

export interface Sample<Attributes> {
  readonly inputs: readonly SampleInput[];
  readonly attributes: Attributes;
}

export type Draw = ReturnType<typeof drawer>;

/** Choices in plain words over fast-check's generator. */
export function drawer(g: fc.GeneratorValue) {
  const int = (min: number, max: number) => g(fc.integer, { min, max });
  const bool = () => g(fc.boolean);
  const pick = <T>(list: readonly T[]): T => list[int(0, list.length - 1)]!;
  /** Sizes of which at most one is the batch. */
  const shape = (minRank: number, maxRank: number, least = 0): Shape => {
    const sizes: Dim[] = Array.from({ length: int(minRank, maxRank) }, () => int(least, 4));
    if (sizes.length > 0 && bool()) sizes[int(0, sizes.length - 1)] = batchTimes(int(1, 2));
    return sizes;
  };
  /** A shape that broadcasts to another. */
  const smaller = (full: Shape): Shape =>
    full.slice(int(0, full.length)).map((dim) => (int(0, 3) === 0 ? 1 : dim));
  const float = (): DType => pick(["float32", "float64", "float16", "bfloat16"]);
  const number = (): DType => pick([float(), "int64", "int32"]);
  return { int, bool, pick, shape, smaller, float, number };
}

type Sampler<K extends OpName> = (draw: Draw) => Sample<Ops[K]>;

/** Values that every op is defined on, division and logarithm included. */
const ordinary = (shape: Shape, dtype: DType): SampleInput => ({ shape, dtype, low: 1, high: 4 });

const indices = (shape: Shape, below: number): SampleInput => ({
  shape,
  dtype: "int64",
  low: 0,
  high: below,
});

const unary = ({ shape, float }: Draw) => ({
  inputs: [ordinary(shape(0, 4), float())],
  attributes: {},
});

const unaryAny = ({ shape, number }: Draw) => ({
  inputs: [ordinary(shape(0, 4), number())],
  attributes: {},
});

function pair({ shape, smaller }: Draw, dtype: DType) {
  const full = shape(0, 4);
  return { inputs: [ordinary(smaller(full), dtype), ordinary(full, dtype)], attributes: {} };
}

const binary = (draw: Draw) => pair(draw, draw.number());

function logic(draw: Draw): Sample<Ops["and"]> {
  const { inputs } = pair(draw, "bool");
  return { inputs: inputs.map((x) => ({ ...x, low: 0, high: 2 })), attributes: {} };
}

function axesOf({ bool }: Draw, shape: Shape): number[] {
  return shape.flatMap((_, axis) => (bool() ? [axis] : []));
}

const reduce = (draw: Draw) => {
  // Neither the mean nor the largest of no numbers is a number that every dtype has.
  const x = ordinary(draw.shape(0, 4, 1), draw.float());
  return { inputs: [x], attributes: { axes: axesOf(draw, x.shape), keepDims: draw.bool() } };
};

function alongAxis<A>(draw: Draw, dtype: DType, attributes: A) {
  const shape = draw.shape(1, 4, 1);
  return {
    inputs: [ordinary(shape, dtype)],
    attributes: { axis: draw.int(0, shape.length - 1), ...attributes },
  };
}

function convAttributes({ int }: Draw, spatial: number): ConvAttributes {
  const each = <T>(make: () => T) => Array.from({ length: spatial }, make);
  return {
    stride: each(() => int(1, 3)),
    dilation: each(() => int(1, 2)),
    padding: each(() => [int(0, 2), int(0, 2)] as const),
    groups: int(1, 2),
  };
}

/** x [N, C, ...], weight [first, second, ...kernel] and perhaps a bias, of ranks that fit. */
function convInputs(
  { int, bool, float, pick }: Draw,
  spatial: number,
  channels: number,
  weight: readonly [number, number],
  outputs: number,
): SampleInput[] {
  const dtype = float();
  const size = Array.from({ length: spatial }, () => int(5, 6));
  const kernel = Array.from({ length: spatial }, () => int(1, 3));
  return [
    ordinary([pick<Dim>([0, 1, 2, batch]), channels, ...size], dtype),
    ordinary([...weight, ...kernel], dtype),
    ...(bool() ? [ordinary([outputs], dtype)] : []),
  ];
}

const conv: Sampler<"conv"> = (draw) => {
  const spatial = draw.int(1, 3);
  const attributes = convAttributes(draw, spatial);
  const [perGroup, outputs] = [draw.int(1, 2), draw.int(1, 2) * attributes.groups];
  const channels = perGroup * attributes.groups;
  return {
    inputs: convInputs(draw, spatial, channels, [outputs, perGroup], outputs),
    attributes,
  };
};

const convTranspose: Sampler<"convTranspose"> = (draw) => {
  const spatial = draw.int(1, 3);
  const attributes = convAttributes(draw, spatial);
  const { groups, stride, dilation } = attributes;
  const [perGroup, channels] = [draw.int(1, 2), draw.int(1, 2) * groups];
  const outputPadding = stride.map((step, i) => draw.int(0, Math.max(step, dilation[i]!) - 1));
  return {
    inputs: convInputs(draw, spatial, channels, [channels, perGroup], perGroup * groups),
    attributes: { ...attributes, outputPadding },
  };
};

const matmul: Sampler<"matmul"> = (draw) => {
  const { int, bool, shape, smaller, float } = draw;
  const [leading, dtype] = [shape(0, 2), float()];
  const [m, k, n] = [int(0, 3), int(0, 3), int(0, 3)];
  const [transposeA, transposeB] = [bool(), bool()];
  return {
    inputs: [
      ordinary([...smaller(leading), ...(transposeA ? [k, m] : [m, k])], dtype),
      ordinary([...leading, ...(transposeB ? [n, k] : [k, n])], dtype),
    ],
    attributes: { transposeA, transposeB },
  };
};

const slice: Sampler<"slice"> = (draw) => {
  const shape = draw.shape(0, 4);
  const parts = shape.map((dim) => {
    if (typeof dim !== "number") return { start: 0, end: dim, step: 1 };
    const start = draw.int(0, dim);
    return { start, end: draw.int(start, dim), step: draw.int(1, 3) };
  });
  return {
    inputs: [ordinary(shape, draw.number())],
    attributes: {
      starts: parts.map(({ start }) => start),
      ends: parts.map(({ end }) => end),
      steps: parts.map(({ step }) => step),
    },
  };
};

/** Several inputs or outputs that differ along one axis only, and their sizes there. */
function pieces({ int, shape, pick }: Draw) {
  const rest = shape(1, 3);
  const axis = int(0, rest.length - 1);
  const others = rest.map((dim, i) => (i === axis ? 0 : dim));
  const symbolic = others.every((dim) => typeof dim === "number") && pick([true, false]);
  const sizes: Dim[] = Array.from({ length: int(1, 3) }, () =>
    symbolic ? batchTimes(int(1, 2)) : int(0, 3),
  );
  return { axis, sizes, shapeOf: (size: Dim) => others.map((dim, i) => (i === axis ? size : dim)) };
}

const attention: Sampler<"attention"> = ({ int, bool, float, pick, smaller }) => {
  const [images, heads, dtype] = [pick<Dim>([1, 2, batch]), int(1, 2), float()];
  const [queries, keys] = [int(1, 3), int(1, 3)];
  const [size, width] = [int(1, 2) * heads, int(1, 2) * heads];
  const bias = ordinary(smaller([images, heads, queries, keys]), dtype);
  return {
    inputs: [
      ordinary([images, queries, size], dtype),
      ordinary([images, keys, size], dtype),
      ordinary([images, keys, width], dtype),
      ...(bool() ? [bias] : []),
    ],
    attributes: { heads, scale: 0.5 },
  };
};

const recomputeSample: Sampler<"recompute"> = ({ shape, float }) => {
  const x = ordinary(shape(0, 3), float());
  const { node } = recompute([input("x", x.shape, x.dtype)], (inside) => inside.exp().sum());
  if (!is(node, "recompute")) throw new Error("recompute made another node.");
  return { inputs: [x], attributes: node.attributes };
};

const leaf = <K extends "input" | "parameter">({ shape, pick }: Draw): Sample<Ops[K]> => ({
  inputs: [],
  attributes: { name: "leaf", shape: shape(0, 3), dtype: pick(dtypes) },
});

export const opSamples: { readonly [K in OpName]: Sampler<K> } = {
  input: leaf,
  parameter: leaf,
  constant: ({ pick, int }) => ({
    inputs: [],
    attributes: { value: zeros(pick(dtypes), [int(0, 3), int(0, 3)]) },
  }),
  full: ({ shape, pick, int }) => ({
    inputs: [],
    attributes: { shape: shape(0, 3), dtype: pick(dtypes), value: int(0, 1) },
  }),

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
  gelu: (draw) => ({ ...unary(draw), attributes: { approximate: draw.pick(["none", "tanh"]) } }),
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
  equal: binary,
  less: binary,
  lessEqual: binary,
  not: ({ shape }) => ({
    inputs: [{ shape: shape(0, 3), dtype: "bool", low: 0, high: 2 }],
    attributes: {},
  }),
  and: logic,
  or: logic,

  where: ({ shape, smaller, number }) => {
    const [full, dtype] = [shape(0, 4), number()];
    const condition: SampleInput = { shape: smaller(full), dtype: "bool", low: 0, high: 2 };
    return {
      inputs: [condition, ordinary(smaller(full), dtype), ordinary(full, dtype)],
      attributes: {},
    };
  },
  cast: ({ shape, pick }) => ({
    inputs: [ordinary(shape(0, 3), pick(dtypes))],
    attributes: { to: pick(dtypes) },
  }),

  sum: reduce,
  mean: reduce,
  max: reduce,
  extent: (draw) => {
    const x = ordinary(draw.shape(0, 3), draw.float());
    return { inputs: [x], attributes: { axes: axesOf(draw, x.shape) } };
  },
  argmax: (draw) => alongAxis(draw, draw.number(), {}),
  argmin: (draw) => alongAxis(draw, draw.number(), {}),
  cumsum: (draw) => alongAxis(draw, draw.number(), { reverse: draw.bool() }),
  softmax: (draw) => alongAxis(draw, draw.float(), {}),
  logSoftmax: (draw) => alongAxis(draw, draw.float(), {}),

  matmul,
  linear: ({ shape, int, bool, float }) => {
    const [inner, outputs, dtype] = [int(0, 3), int(1, 3), float()];
    const bias = bool() ? [ordinary([outputs], dtype)] : [];
    return {
      inputs: [
        ordinary([...shape(0, 3), inner], dtype),
        ordinary([outputs, inner], dtype),
        ...bias,
      ],
      attributes: {},
    };
  },
  quantizeRows: ({ shape, int }) => ({
    inputs: [ordinary([...shape(0, 3), int(1, 3)], "float32")],
    attributes: {},
  }),
  quantizedLinear: ({ shape, int, bool }) => {
    const [leading, inner, outputs] = [shape(0, 3), int(0, 3), int(1, 3)];
    return {
      inputs: [
        { shape: [...leading, inner], dtype: "uint8", low: 0, high: 256 },
        ordinary([...leading, 1], "float32"),
        { shape: [inner, outputs], dtype: "int8", low: -127, high: 128 },
        ordinary([outputs], "float32"),
        ...(bool() ? [ordinary([outputs], "float32")] : []),
      ],
      attributes: {},
    };
  },

  reshape: ({ shape, number, bool }) => {
    const [outer, inner] = [shape(0, 2), [2, 6]];
    return {
      inputs: [ordinary([...outer, ...inner], number())],
      attributes: { shape: bool() ? [...outer, 3, 4] : [12, ...outer] },
    };
  },
  transpose: ({ shape, number, int }) => {
    const x = ordinary(shape(0, 4), number());
    const rest = x.shape.map((_, axis) => axis);
    const permutation = x.shape.map(() => rest.splice(int(0, rest.length - 1), 1)[0]!);
    return { inputs: [x], attributes: { permutation } };
  },
  expand: ({ shape, smaller, number }) => {
    const full = shape(0, 4);
    return { inputs: [ordinary(smaller(full), number())], attributes: { shape: full } };
  },
  concat: (draw) => {
    const { axis, sizes, shapeOf } = pieces(draw);
    const dtype = draw.number();
    return { inputs: sizes.map((size) => ordinary(shapeOf(size), dtype)), attributes: { axis } };
  },
  slice,
  split: (draw) => {
    const { axis, sizes, shapeOf } = pieces(draw);
    const factors = sizes.map((size) => (typeof size === "number" ? size : size.batch));
    const total = factors.reduce((a, b) => a + b, 0);
    const whole = typeof sizes[0] === "number" ? total : batchTimes(total);
    return { inputs: [ordinary(shapeOf(whole), draw.number())], attributes: { axis, sizes } };
  },
  pad: ({ shape, number, int }) => {
    const x = ordinary(shape(0, 3), number());
    const padding = x.shape.map((dim) =>
      typeof dim === "number" ? ([int(0, 2), int(0, 2)] as const) : ([0, 0] as const),
    );
    return { inputs: [x], attributes: { padding, value: int(0, 2) } };
  },
  flip: (draw) => {
    const x = ordinary(draw.shape(0, 3), draw.number());
    return { inputs: [x], attributes: { axes: axesOf(draw, x.shape) } };
  },

  gather: ({ shape, smaller, number, int }) => {
    const x = shape(0, 2);
    const [axis, size] = [int(0, x.length), int(1, 4)];
    return {
      inputs: [
        ordinary([...x.slice(0, axis), size, ...x.slice(axis)], number()),
        indices(smaller([2, 3]), size),
      ],
      attributes: { axis },
    };
  },
  scatterSum: ({ shape, float, int }) => {
    const updates = shape(1, 3);
    const size = int(1, 4);
    return {
      inputs: [ordinary(updates, float()), indices(updates.slice(0, 1), size)],
      attributes: { size },
    };
  },
  oneHot: ({ shape, number, int }) => {
    const depth = int(1, 4);
    return { inputs: [indices(shape(0, 2), depth)], attributes: { depth, dtype: number() } };
  },

  conv,
  convTranspose,
  upsampleNearest: ({ int, number, pick }) => {
    const size = Array.from({ length: int(1, 3) }, () => int(0, 3));
    return {
      inputs: [ordinary([pick<Dim>([0, 2, batch]), int(0, 2), ...size], number())],
      attributes: { scale: size.map(() => int(1, 3)) },
    };
  },

  layerNorm: ({ shape, int, float }) => {
    const [width, dtype, affine] = [int(1, 4), float(), int(0, 2)];
    const row = ordinary([width], dtype);
    return {
      inputs: [ordinary([...shape(0, 3), width], dtype), ...[row, row].slice(0, affine)],
      attributes: { epsilon: 1e-5 },
    };
  },
  rmsNorm: ({ shape, int, float }) => {
    const [width, dtype, affine] = [int(1, 4), float(), int(0, 1)];
    const row = ordinary([width], dtype);
    return {
      inputs: [ordinary([...shape(0, 3), width], dtype), ...[row].slice(0, affine)],
      attributes: { epsilon: 1e-5 },
    };
  },
  groupNorm: ({ int, float, pick }) => {
    const groups = int(1, 2);
    const size = Array.from({ length: int(1, 3) }, () => int(1, 3));
    return {
      inputs: [ordinary([pick<Dim>([0, 2, batch]), groups * int(1, 2), ...size], float())],
      attributes: { groups, epsilon: 1e-5 },
    };
  },

  attention,
  recompute: recomputeSample,
  barrier: ({ shape, number, float }) => ({
    inputs: [ordinary(shape(0, 3), number()), ordinary([], float())],
    attributes: {},
  }),
};
