/** Unary, binary, comparing and logical ops: ranks, broadcasting, dtypes and edge values. */
import type { DType } from "../../../src/engine/arrays/ndarray.ts";
import type { BinaryName, CompareName, OpName, UnaryName } from "../../../src/engine/graph/ops.ts";
import { batch, batchTimes } from "../../../src/engine/graph/shape.ts";
import { detach, where } from "../../../src/engine/graph/functional.ts";
import type { Operand, Tensor } from "../../../src/engine/graph/tensor.ts";
import type { Case, CaseData, LeafOptions } from "../case.ts";

interface UnarySpec {
  readonly apply: (x: Tensor) => Tensor;
  /** Where random values come from. */
  readonly range?: LeafOptions;
  /** Values whose result is told by the op's limits, not by its formula. */
  readonly edges: readonly number[];
  /** Values that give NaN or, in a logarithm, −∞. */
  readonly ieee754?: readonly number[];
  readonly exact?: boolean;
  readonly integers?: readonly DType[];
}

const everyFloat = [-Infinity, -1, -0, 0, 1, Infinity];

const unary: { readonly [K in UnaryName]: UnarySpec } = {
  neg: { apply: (x) => x.neg(), edges: everyFloat, exact: true, integers: ["int64", "int32"] },
  abs: { apply: (x) => x.abs(), edges: everyFloat, exact: true, integers: ["int64", "int32"] },
  sign: {
    apply: (x) => x.sign(),
    edges: [-Infinity, -1e-30, -0, 0, 1e-30, Infinity],
    exact: true,
    integers: ["int64", "int32", "uint8"],
  },
  exp: { apply: (x) => x.exp(), edges: [-Infinity, -200, -0, 0, 1, Infinity] },
  log: {
    apply: (x) => x.log(),
    range: { low: 1e-3, high: 20 },
    edges: [1e-30, 1, 1e30, Infinity],
    ieee754: [-1, 0],
  },
  sqrt: {
    apply: (x) => x.sqrt(),
    range: { low: 0, high: 20 },
    edges: [0, 1e-30, 1, 1e30, Infinity],
    ieee754: [-1],
  },
  reciprocal: {
    apply: (x) => x.reciprocal(),
    range: { low: 0.25, high: 4 },
    edges: [-Infinity, -0, 0, 1, 1e30, Infinity],
  },
  sin: { apply: (x) => x.sin(), range: { low: -7, high: 7 }, edges: [-0, 0, 1e-20] },
  cos: { apply: (x) => x.cos(), range: { low: -7, high: 7 }, edges: [-0, 0, 1e-20] },
  tanh: { apply: (x) => x.tanh(), edges: [-Infinity, -100, -0, 0, 100, Infinity] },
  erf: { apply: (x) => x.erf(), edges: [-Infinity, -100, -0, 0, 100, Infinity] },
  sigmoid: { apply: (x) => x.sigmoid(), edges: [-Infinity, -200, -0, 0, 200, Infinity] },
  relu: {
    apply: (x) => x.relu(),
    edges: [-Infinity, -1, 0, 1, Infinity],
    exact: true,
    integers: ["int64", "int32", "uint8"],
  },
  // At −∞ these are −∞ · 0, which is NaN by formula and 0 in the limit: no value is promised there.
  silu: { apply: (x) => x.silu(), edges: [-1e4, -200, -0, 0, 200, 1e30] },
  gelu: { apply: (x) => x.gelu(), edges: [-1e4, -200, -0, 0, 200, 1e30] },
  floor: { apply: (x) => x.floor(), edges: [...everyFloat, -0.5, 2.5], exact: true },
  ceil: { apply: (x) => x.ceil(), edges: [...everyFloat, -0.5, 2.5], exact: true },
  round: {
    apply: (x) => x.round(),
    edges: [...everyFloat, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.5, 8388609],
    exact: true,
  },
  detach: { apply: detach, edges: everyFloat, exact: true },
};

function unaryCases([name, spec]: readonly [string, UnarySpec]): Case[] {
  const { apply, range = { low: -3, high: 3 }, exact = false } = spec;
  return [
    {
      name: `${name} of rank 0 to 5`,
      exact,
      build: (data) => ({
        scalar: apply(data.uniform([], range)),
        vector: apply(data.uniform([1], range)),
        matrix: apply(data.uniform([batch, 7], range)),
        tall: apply(data.uniform([batchTimes(2), 3, 1, 5], range)),
        deep: apply(data.uniform([2, 1, 3, 1, 2], range)),
      }),
    },
    { name: `${name} at the edges`, exact, build: (data) => apply(data.values(spec.edges)) },
    {
      name: `${name} by IEEE 754`,
      ieee754: true,
      build: (data) => apply(data.values([NaN, ...(spec.ieee754 ?? [])])),
    },
    ...(["float16", "float64", ...(spec.integers ?? [])] as const).map((dtype) => ({
      name: `${name} of ${dtype}`,
      exact,
      build: (data: CaseData) => apply(data.uniform([batch, 13], { ...range, dtype })),
    })),
  ];
}

const geluTanh: Case[] = unaryCases([
  "gelu (tanh)",
  { apply: (x) => x.gelu("tanh"), edges: [-1e4, -200, -0, 0, 200, 1e6] },
]);

interface BinarySpec {
  readonly apply: (a: Tensor, b: Operand) => Tensor;
  readonly left?: LeafOptions;
  readonly right?: LeafOptions;
  readonly edges: readonly (readonly [number, number])[];
  /** Pairs that hold NaN or give it. */
  readonly ieee754: readonly (readonly [number, number])[];
  readonly exact?: boolean;
  readonly integers: readonly DType[];
}

const large = [
  [0, 0],
  [-1, 1],
  [Infinity, 1],
] as const;

const binary: { readonly [K in BinaryName]: BinarySpec } = {
  add: {
    apply: (a, b) => a.add(b),
    edges: [...large, [-Infinity, -Infinity], [1e38, 1e37], [1, 1e-10]],
    ieee754: [
      [NaN, 1],
      [Infinity, -Infinity],
    ],
    integers: ["int64", "int32", "uint8"],
  },
  sub: {
    apply: (a, b) => a.sub(b),
    edges: [...large, [-Infinity, Infinity], [1e38, 1e37], [1, 1e-10]],
    ieee754: [
      [NaN, 1],
      [Infinity, Infinity],
    ],
    integers: ["int64", "int32", "uint8"],
  },
  mul: {
    apply: (a, b) => a.mul(b),
    edges: [
      [0, -1],
      [Infinity, -2],
      [1e20, 1e20],
    ],
    ieee754: [
      [Infinity, 0],
      [NaN, 0],
    ],
    integers: ["int64", "int32", "uint8"],
  },
  div: {
    apply: (a, b) => a.div(b),
    right: { low: 1, high: 4 },
    edges: [
      [1, 0],
      [-1, 0],
      [1, Infinity],
    ],
    ieee754: [
      [0, 0],
      [Infinity, Infinity],
      [NaN, 1],
    ],
    integers: ["int64", "int32", "uint8"],
  },
  pow: {
    apply: (a, b) => a.pow(b),
    left: { low: 0.25, high: 4 },
    right: { low: -3, high: 3 },
    edges: [
      [0, 0],
      [0, 2],
      [2, -1],
      [4, 0.5],
      [-2, 2],
      [-2, 3],
      [1e30, 0],
    ],
    ieee754: [[NaN, 1]],
    integers: [],
  },
  minimum: {
    apply: (a, b) => a.minimum(b),
    edges: [...large, [-Infinity, Infinity], [-Infinity, -Infinity]],
    ieee754: [],
    exact: true,
    integers: ["int64", "int32", "uint8"],
  },
  maximum: {
    apply: (a, b) => a.maximum(b),
    edges: [...large, [-Infinity, Infinity], [-Infinity, -Infinity]],
    ieee754: [],
    exact: true,
    integers: ["int64", "int32", "uint8"],
  },
};

const compare: { readonly [K in CompareName]: BinarySpec } = {
  equal: comparison((a, b) => a.equal(b)),
  less: comparison((a, b) => a.less(b)),
  lessEqual: comparison((a, b) => a.lessEqual(b)),
};

/** Whole numbers from a few, so that equal pairs come up. */
function comparison(apply: BinarySpec["apply"]): BinarySpec {
  return {
    apply,
    left: { whole: true },
    right: { whole: true },
    edges: [...large, [-Infinity, Infinity], [-Infinity, -Infinity]],
    ieee754: [
      [NaN, NaN],
      [NaN, 1],
      [1, NaN],
    ],
    integers: ["int64", "int32", "uint8"],
  };
}

function binaryCases([name, spec]: readonly [string, BinarySpec]): Case[] {
  const { apply, left = {}, right = {}, exact = false } = spec;
  const pairs = (list: BinarySpec["edges"]) => (data: CaseData) =>
    apply(data.values(list.map(([a]) => a)), data.values(list.map(([, b]) => b)));
  return [
    {
      name: `${name} with broadcasting`,
      exact,
      build: (data) => {
        const image = data.uniform([batch, 3, 1, 5], left);
        const scalar = data.uniform([], right);
        return {
          same: apply(data.uniform([batch, 7], left), data.uniform([batch, 7], right)),
          trailing: apply(data.uniform([batch, 2, 7], left), data.uniform([7], right)),
          both: apply(image, data.uniform([2, 1], right)),
          batchLater: apply(data.uniform([5], left), data.uniform([batch, 1], right)),
          scalarRight: apply(image, scalar),
          scalarLeft: apply(data.uniform([], left), data.uniform([batch, 11], right)),
          scalars: apply(data.uniform([], left), scalar),
          deep: apply(data.uniform([2, 1, 3, 1, 2], left), data.uniform([1, 5, 1, 2, 1], right)),
        };
      },
    },
    { name: `${name} at the edges`, exact, build: pairs(spec.edges) },
    ...(spec.ieee754.length > 0
      ? [{ name: `${name} by IEEE 754`, ieee754: true, build: pairs(spec.ieee754) }]
      : []),
    {
      name: `${name} with a number`,
      exact,
      build: (data) => apply(data.uniform([batch, 4], left), 2),
    },
    ...(["float16", "float64", ...spec.integers] as const).map((dtype) => ({
      name: `${name} of ${dtype}`,
      exact,
      build: (data: CaseData) =>
        apply(
          data.uniform([batch, 1, 13], { ...left, dtype }),
          data.uniform([3, 13], { ...right, dtype }),
        ),
    })),
  ];
}

function logicCases(name: "and" | "or", apply: (a: Tensor, b: Tensor) => Tensor): Case {
  return {
    name: `${name} with broadcasting`,
    build: (data) => {
      const row = data.uniform([5], { dtype: "bool" });
      return {
        same: apply(row, data.uniform([5], { dtype: "bool" })),
        broadcast: apply(data.uniform([batch, 3, 1], { dtype: "bool" }), row),
        scalar: apply(data.uniform([batch], { dtype: "bool" }), data.values([1], "bool", [])),
      };
    },
  };
}

const whereDtypes: readonly DType[] = [
  "float32",
  "float16",
  "float64",
  "int64",
  "int32",
  "uint8",
  "bool",
];

function entries<K extends string, V>(table: { readonly [N in K]: V }): [K, V][] {
  return Object.entries(table) as [K, V][];
}

const unaryTable = Object.fromEntries(
  entries(unary).map(([name, spec]) => [name, unaryCases([name, spec])]),
) as Record<UnaryName, Case[]>;

const binaryTable = Object.fromEntries(
  entries({ ...binary, ...compare }).map(([name, spec]) => [name, binaryCases([name, spec])]),
) as Record<BinaryName | CompareName, Case[]>;

export const elementwiseCases = {
  ...unaryTable,
  gelu: [...unaryTable.gelu, ...geluTanh],
  ...binaryTable,
  pow: [
    ...binaryTable.pow,
    ...(["int64", "int32"] as const).map((dtype) => ({
      name: `pow of ${dtype}`,
      build: (data: CaseData) =>
        data
          .uniform([batch, 5], { dtype, low: -3, high: 4 })
          .pow(data.uniform([5], { dtype, low: 0, high: 5 })),
    })),
  ],
  not: [
    {
      name: "not of rank 0 to 3",
      build: (data) => ({
        scalar: data.values([0], "bool", []).not(),
        block: data.uniform([batch, 2, 3], { dtype: "bool" }).not(),
      }),
    },
  ],
  and: [logicCases("and", (a, b) => a.and(b))],
  or: [logicCases("or", (a, b) => a.or(b))],
  where: whereDtypes.map((dtype) => ({
    name: `where of ${dtype}`,
    exact: true,
    build: (data) => {
      const condition = data.uniform([batch, 1, 5], { dtype: "bool" });
      const row = data.uniform([5], { dtype });
      return {
        broadcast: where(condition, data.uniform([3, 1], { dtype }), row),
        scalars: where(data.values([0], "bool", []), row, data.uniform([], { dtype })),
      };
    },
  })),
} satisfies { readonly [K in OpName]?: readonly Case[] };
