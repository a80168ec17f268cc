import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { recompute } from "../../src/engine/graph/recompute.ts";
import { erf, erfc } from "../../src/engine/reference/erf.ts";
import { ShapeError } from "../../src/engine/errors.ts";
import { evaluate, evaluateFloat64, evaluateNode } from "../../src/engine/reference/evaluate.ts";
import {
  attention,
  concat,
  constantOf,
  detach,
  full,
  input,
  parameter,
  scatterSum,
  where,
} from "../../src/engine/graph/functional.ts";
import { graphOf } from "../../src/engine/graph/graph.ts";
import { ndarray, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import type { OpName } from "../../src/engine/graph/ops.ts";
import { batch, batchTimes } from "../../src/engine/graph/shape.ts";
import { apply, applyMany, type Tensor } from "../../src/engine/graph/tensor.ts";
import { randomArray } from "../support/arrays.ts";

type Nested = number | readonly Nested[];
/** Nested lists that a formatter leaves on one line. */
const rows = (...lists: Nested[]): Nested => lists;
function shapeOf(nested: Nested): number[] {
  return typeof nested === "number" ? [] : [nested.length, ...shapeOf(nested[0] ?? 0)];
}
const flatten = (nested: Nested): number[] =>
  typeof nested === "number" ? [nested] : nested.flatMap(flatten);
/** A constant from nested lists. */
const array = (nested: Nested, dtype: "float64" | "int64" | "bool" = "float64") =>
  constantOf(flatten(nested), shapeOf(nested), dtype);
const ints = (nested: Nested) => array(nested, "int64");
const bools = (nested: Nested) => array(nested, "bool");

function valueOf(y: Tensor) {
  return evaluate(graphOf({ y }), {})["y"]!;
}

const x = array(rows([1, -2, 3], [-4, 5, -6]));
const near = array([-1.5, -0.5, 0, 0.5, 1.5, 2.5]);
const image = array([[rows([1, 2], [3, 4])]]);
const [quantizedRows, rowScale] = applyMany(
  "quantizeRows",
  [constantOf([127, 2.5, -0.5, -254, 0, 1], [2, 3])],
  {},
);
const quantized = { rows: quantizedRows!, scale: rowScale! };
const [below, left] = [[0, 1] as const, [2, 0] as const];
const { E, LN2, SQRT2 } = Math;
const phi1 = 0.8413447460685429;

/** One op, what it is asked, what a person works out. */
const known: {
  readonly [K in Exclude<OpName, "input" | "parameter">]: readonly [Tensor, Nested][];
} = {
  constant: [[x, rows([1, -2, 3], [-4, 5, -6])]],
  full: [[full([2, 1], 7, "float64"), rows([7], [7])]],
  neg: [[x.neg(), rows([-1, 2, -3], [4, -5, 6])]],
  abs: [[x.abs(), rows([1, 2, 3], [4, 5, 6])]],
  sign: [[array([-3, 0, 0.1]).sign(), [-1, 0, 1]]],
  exp: [[array([0, 1, -Infinity]).exp(), [1, E, 0]]],
  log: [[array([1, E, 0]).log(), [0, 1, -Infinity]]],
  sqrt: [[array([0, 4, 2]).sqrt(), [0, 2, SQRT2]]],
  reciprocal: [[array([4, -0.5]).reciprocal(), [0.25, -2]]],
  sin: [[array([0, Math.PI / 6]).sin(), [0, 0.5]]],
  cos: [[array([0, Math.PI / 3]).cos(), [1, 0.5]]],
  tanh: [[array([0, LN2]).tanh(), [0, 0.6]]],
  erf: [[array([0, 1, -Infinity]).erf(), [0, 0.8427007929497149, -1]]],
  sigmoid: [[array([0, Math.log(3), -800, 800]).sigmoid(), [0.5, 0.75, 0, 1]]],
  relu: [[near.relu(), [0, 0, 0, 0.5, 1.5, 2.5]]],
  silu: [[array([0, Math.log(3)]).silu(), [0, 0.75 * Math.log(3)]]],
  gelu: [
    [array([0, 1, -1, 40, -40]).gelu(), [0, phi1, phi1 - 1, 40, 0]],
    // As PyTorch gives them.
    [array([1, -1]).gelu("tanh"), [0.8411919906082768, -0.15880800939172324]],
  ],
  floor: [[near.floor(), [-2, -1, 0, 0, 1, 2]]],
  ceil: [[near.ceil(), [-1, 0, 0, 1, 2, 3]]],
  round: [[near.round(), [-2, 0, 0, 0, 2, 2]]],
  detach: [[detach(array([1.5, -0.5])), [1.5, -0.5]]],
  add: [[x.add(array([10, 20, 30])), rows([11, 18, 33], [6, 25, 24])]],
  sub: [[x.sub(array(rows([1], [2]))), rows([0, -3, 2], [-6, 3, -8])]],
  mul: [[array(rows([1], [2])).mul(array([3, 4])), rows([3, 4], [6, 8])]],
  div: [
    [array([1, -3]).div(2), [0.5, -1.5]],
    [ints([7, -7]).div(ints([2])), [3, -3]],
  ],
  pow: [[array([2, 9, 0]).pow(array([3, 0.5, 0])), [8, 3, 1]]],
  minimum: [[near.minimum(0), [-1.5, -0.5, 0, 0, 0, 0]]],
  maximum: [[near.maximum(0), [0, 0, 0, 0.5, 1.5, 2.5]]],
  equal: [[ints([1, 2]).equal(ints(rows([2], [1]))), rows([0, 1], [1, 0])]],
  less: [[array([1, 2, 3, NaN]).less(2), [1, 0, 0, 0]]],
  lessEqual: [[array([1, 2, 3, NaN]).lessEqual(2), [1, 1, 0, 0]]],
  not: [[bools([0, 1]).not(), [1, 0]]],
  and: [[bools([0, 1]).and(bools(rows([0], [1]))), rows([0, 0], [0, 1])]],
  or: [[bools([0, 1]).or(bools(rows([0], [1]))), rows([0, 1], [1, 1])]],
  where: [[where(bools([1, 0]), array(rows([1], [2])), array(NaN)), rows([1, NaN], [2, NaN])]],
  cast: [
    [array([1.9, -1.9, NaN, 3e9]).cast("int64"), [1, -1, 0, 3e9]],
    [array([300, -1]).cast("uint8"), [44, 255]],
    [array([2 ** 31]).cast("int32"), [-(2 ** 31)]],
    [array([0, -0, 0.1, NaN]).cast("bool"), [0, 0, 1, 1]],
    [array([2049, 70000]).cast("float16").cast("float64"), [2048, Infinity]],
    [array([257, -0.1]).cast("bfloat16").cast("float64"), [256, -0.10009765625]],
    [
      array([1 + 2 ** -40])
        .cast("float32")
        .cast("float64"),
      [1 + 2 ** -40],
    ],
  ],
  sum: [
    [x.sum(), -3],
    [x.sum(0), [-3, 3, -3]],
    [x.sum(1, true), rows([2], [-5])],
    [x.sum([]), rows([1, -2, 3], [-4, 5, -6])],
    [full([0, 2], 1, "float64").sum(0), [0, 0]],
  ],
  mean: [
    [x.mean(-1), [2 / 3, -5 / 3]],
    [full([0], 1, "float64").mean(), NaN],
  ],
  max: [
    [x.max(1), [3, 5]],
    [x.max(), 5],
    [array([1, NaN, 2]).max(), NaN],
  ],
  extent: [
    [x.extent(), 6],
    [x.extent(1), 3],
    [x.extent([]), 1],
  ],
  argmax: [
    [array(rows([1, 3, 3], [2, 0, 1])).argmax(), [1, 0]],
    [x.argmax(0), [0, 1, 0]],
  ],
  argmin: [[array(rows([1, 3, 1], [2, 0, 0])).argmin(), [0, 1]]],
  cumsum: [
    [array(rows([1, 2], [3, 4])).cumsum(0), rows([1, 2], [4, 6])],
    [array([1, 2, 3]).cumsum(0, true), [6, 5, 3]],
  ],
  softmax: [
    [array(rows([0, Math.log(3)], [1000, 1000])).softmax(), rows([0.25, 0.75], [0.5, 0.5])],
    [array(rows([0, 5], [-Infinity, 5])).softmax(0), rows([1, 0.5], [0, 0.5])],
  ],
  logSoftmax: [[array([0, Math.log(3)]).logSoftmax(), [Math.log(0.25), Math.log(0.75)]]],
  matmul: [
    [array(rows([1, 2], [3, 4])).matmul(array(rows([5], [6]))), rows([17], [39])],
    [
      array(rows([1, 3], [2, 4])).matmul(array([[5, 6]]), { transposeA: true, transposeB: true }),
      rows([17], [39]),
    ],
    [array(rows([[1, 2]], [[3, 4]])).matmul(array(rows([1], [10]))), rows([[21]], [[43]])],
    [full([2, 0], 1, "float64").matmul(full([0, 1], 1, "float64")), rows([0], [0])],
  ],
  linear: [
    [array([1, 2]).linear(array(rows([3, 4], [5, 6], [7, 8])), array([1, 0, -1])), [12, 17, 22]],
  ],
  quantizeRows: [
    // The scales are 1 and 2; 2.5 and −0.5 are halves, which go to the even integer.
    [quantized.rows, rows([255, 130, 128], [1, 128, 128])],
    [quantized.scale, rows([1], [2])],
  ],
  // (1, 2) · 0.5 · [[3, −4], [5, 6]] · (2, 1) + (1, 0)
  quantizedLinear: [
    [
      apply(
        "quantizedLinear",
        [
          constantOf([129, 130], [2], "uint8"),
          constantOf([0.5], [1]),
          constantOf([3, -4, 5, 6], [2, 2], "int8"),
          constantOf([2, 1], [2]),
          constantOf([1, 0], [2]),
        ],
        {},
      ),
      [14, 4],
    ],
  ],
  reshape: [[x.reshape([3, -1]), rows([1, -2], [3, -4], [5, -6])]],
  transpose: [[x.transpose([1, 0]), rows([1, -4], [-2, 5], [3, -6])]],
  expand: [[array(rows([1], [2])).expand([2, 2]), rows([1, 1], [2, 2])]],
  concat: [
    [concat([array(rows([1], [2])), array(rows([3, 4], [5, 6]))], 1), rows([1, 3, 4], [2, 5, 6])],
  ],
  slice: [
    [array([0, 1, 2, 3, 4, 5, 6]).slice(0, 1, 6, 2), [1, 3, 5]],
    [x.slice(1, -1), rows([3], [-6])],
    [array([0, 1, 2]).slice(0, 2, 2), []],
  ],
  split: [[x.split([1, 2], 1)[1]!, rows([-2, 3], [5, -6])]],
  pad: [[array([[1, 2]]).pad([below, left], 9), rows([9, 9, 1, 2], [9, 9, 9, 9])]],
  flip: [[x.flip([0, 1]), rows([-6, 5, -4], [3, -2, 1])]],
  gather: [
    [x.gather(ints([1, 0, 1])), rows([-4, 5, -6], [1, -2, 3], [-4, 5, -6])],
    [x.gather(ints(rows([2], [0])), 1), rows(rows([3], [1]), rows([-6], [-4]))],
    [x.gather(ints(1), 1), [-2, 5]],
  ],
  scatterSum: [
    [
      scatterSum(array(rows([1, 2], [3, 4], [5, 6])), ints([2, 0, 2]), 3),
      rows([3, 4], [0, 0], [6, 8]),
    ],
  ],
  oneHot: [[ints([2, 0]).oneHot(3), rows([0, 0, 1], [1, 0, 0])]],
  conv: [
    [array([[[1, 2, 3]]]).conv(array([[[1, 10]]]), array([100])), [[[121, 132]]]],
    [
      array([[[1, 2, 3]]]).conv(array([[[1, 10]]]), undefined, { padding: [[2, 0]], dilation: 2 }),
      [[[10, 20, 31]]],
    ],
    [
      image.conv(array([[rows([1, 10], [100, 1000])]]), undefined, { padding: 1, stride: 2 }),
      [[rows([1000, 200], [30, 4])]],
    ],
    [
      array([rows([1, 2], [3, 4])]).conv(array(rows([[1]], [[10]])), undefined, { groups: 2 }),
      [rows([1, 2], [30, 40])],
    ],
  ],
  convTranspose: [
    [
      array([[[1, 2]]]).convTranspose(array([[[1, 10, 100]]]), array([1000])),
      [[[1001, 1012, 1120, 1200]]],
    ],
    [
      array([[[1, 2]]]).convTranspose(array([[[1, 10]]]), undefined, {
        stride: 2,
        outputPadding: 1,
      }),
      [[[1, 10, 2, 20, 0]]],
    ],
    [
      image.convTranspose(array([[[[1, 10]]]]), undefined, { padding: [0, 1] }),
      [[rows([12], [34])]],
    ],
  ],
  upsampleNearest: [
    [image.upsampleNearest([1, 2]), [[rows([1, 1, 2, 2], [3, 3, 4, 4])]]],
    [image.upsampleNearest([2, 1]), [[rows([1, 2], [1, 2], [3, 4], [3, 4])]]],
  ],
  layerNorm: [
    [
      array([1, 3]).layerNorm({ weight: array([2, 3]), bias: array([10, 20]), epsilon: 3 }),
      [9, 21.5],
    ],
    [applyMany("layerNorm", [array([[1, 3]])], { epsilon: 3 })[1]!, [[2]]],
    [applyMany("layerNorm", [array([[1, 3]])], { epsilon: 3 })[2]!, [[0.5]]],
  ],
  rmsNorm: [
    [array([1, 7]).rmsNorm({ weight: array([2, 3]), epsilon: 75 }), [0.2, 2.1]],
    [applyMany("rmsNorm", [array([1, 7])], { epsilon: 75 })[1]!, [0.1]],
  ],
  groupNorm: [[array([rows([1, 3], [5, 7])]).groupNorm(2, 3), [rows([-0.5, 0.5], [-0.5, 0.5])]]],
  attention: [
    [
      attention(
        array([[[1, 0]]]),
        array([rows([Math.log(3), 9], [0, 9])]),
        array([rows([4, 1], [8, 3])]),
        { heads: 2, scale: 1 },
      ),
      [[[5, 2]]],
    ],
    [
      attention(array([[[0]]]), array([rows([1], [2])]), array([rows([4], [8])]), {
        heads: 1,
        bias: array([Math.log(3), 0]),
      }),
      [[[5]]],
    ],
  ],
  recompute: [
    [recompute([x], (inside) => inside.mul(inside).add(x)), rows([2, 2, 12], [12, 30, 30])],
  ],
  barrier: [[apply("barrier", [x, array(1)], {}), rows([1, -2, 3], [-4, 5, -6])]],
};

describe.each(Object.entries(known))("%s", (op, cases) => {
  it.each(cases.map((c, i) => [i, ...c] as const))(
    "gives what was worked out by hand (%d)",
    (_, y, expected) => {
      expect(graphOf({ y }).nodes.map((node) => node.op)).toContain(op);
      const found = valueOf(y);
      expect(found.shape).toEqual(shapeOf(expected));
      expect(found.dtype).toBe(y.dtype);
      const wanted = flatten(expected);
      for (const [i, value] of toNumbers(found).entries()) {
        if (Math.abs(value - wanted[i]!) < 1e-14 * (1 + Math.abs(value))) continue;
        expect(value).toBe(wanted[i]);
      }
    },
  );
});

describe("erf", () => {
  // Rounded from 40 digits that mpmath gives.
  it.each([
    [0, 0, 1],
    [1e-10, 1.1283791670955126e-10, 0.999999999887162],
    [0.1, 0.1124629160182849, 0.8875370839817152],
    [0.5, 0.5204998778130465, 0.4795001221869535],
    [1, 0.8427007929497149, 0.15729920705028513],
    [1.5, 0.9661051464753108, 0.033894853524689274],
    [1.9999, 0.9953201979070294, 0.004679802092970609],
    [2, 0.9953222650189527, 0.004677734981047266],
    [2.5, 0.999593047982555, 0.0004069520174449589],
    [3, 0.9999779095030014, 2.209049699858544e-5],
    [4, 0.9999999845827421, 1.541725790028002e-8],
    [5, 0.9999999999984626, 1.537459794428035e-12],
    [-0.7, -0.6778011938374184, 1.6778011938374184],
    [-2.2, -0.998137153702018, 1.998137153702018],
    [Infinity, 1, 0],
    [-Infinity, -1, 2],
  ])("of %d", (argument, expected, complement) => {
    expect(Math.abs(erf(argument) - expected)).toBeLessThan(1e-15);
    expect(Math.abs(erfc(argument) - complement)).toBeLessThan(1e-15);
  });
  it("keeps the complement accurate for large arguments", () => {
    expect(Math.abs(erfc(5) / 1.5374597944280349e-12 - 1)).toBeLessThan(5e-15);
    expect(Math.abs(erfc(20) / 5.395865611607901e-176 - 1)).toBeLessThan(5e-14);
  });
  it("of NaN is NaN", () => {
    expect(erf(NaN)).toBeNaN();
  });
});

describe("composite ops agree with their definition in smaller ops", () => {
  const leaf = (seed: number, shape: readonly number[]) =>
    apply("constant", [], { value: randomArray(seed, "float64", shape) });
  /** Largest difference of two tensors of one shape. */
  const distance = (a: Tensor, b: Tensor) => {
    const [found, wanted] = [valueOf(a), valueOf(b)];
    expect(found.shape).toEqual(wanted.shape);
    const right = toNumbers(wanted);
    return Math.max(...toNumbers(found).map((value, i) => Math.abs(value - right[i]!)));
  };
  const h = leaf(1, [2, 4, 6]);

  it("layerNorm", () => {
    const [weight, bias] = [leaf(2, [6]), leaf(3, [6])];
    const normal = h.sub(h.mean(-1, true)).div(h.variance(-1, true).add(1e-5).sqrt());
    expect(distance(h.layerNorm({ weight, bias }), normal.mul(weight).add(bias))).toBeLessThan(
      1e-12,
    );
  });
  it("groupNorm", () => {
    const groups = h.reshape([2, 2, 12]);
    const normal = groups
      .sub(groups.mean(-1, true))
      .div(groups.variance(-1, true).add(1e-5).sqrt());
    expect(distance(h.groupNorm(2), normal.reshape([2, 4, 6]))).toBeLessThan(1e-12);
  });
  it("attention", () => {
    const [k, v, bias] = [leaf(4, [2, 5, 6]), leaf(5, [2, 5, 4]), leaf(6, [2, 1, 5])];
    const heads = (t: Tensor) => t.rearrange("b n (h d) -> b h n d", { h: 2 });
    const scores = heads(h).matmul(heads(k), { transposeB: true }).div(Math.sqrt(3)).add(bias);
    const mixed = scores.softmax().matmul(heads(v)).rearrange("b h n d -> b n (h d)");
    expect(distance(attention(h, k, v, { heads: 2, bias }), mixed)).toBeLessThan(1e-12);
  });
  it("conv as a product of unfolded windows", () => {
    const [pixels, weight] = [leaf(7, [2, 3, 5]), leaf(8, [4, 3, 2])];
    const windows = concat([pixels.slice(2, 0, 4), pixels.slice(2, 1, 5)], 1);
    const flat = weight.rearrange("o c k -> o (k c)");
    expect(distance(pixels.conv(weight), flat.matmul(windows))).toBeLessThan(1e-12);
  });
  it("convTranspose as the adjoint of conv", () => {
    fc.assert(
      fc.property(
        fc.constantFrom(1, 2, 3),
        fc.constantFrom(1, 2),
        fc.tuple(fc.nat(2), fc.nat(2)),
        fc.constantFrom(1, 2),
        fc.integer({ min: 5, max: 8 }),
        (stride, dilation, pair, groups, size) => {
          const options = { stride, dilation, padding: [pair, pair] as const, groups };
          const [pixels, weight] = [leaf(9, [1, 4, size, 6]), leaf(10, [6, 4 / groups, 3, 2])];
          const there = pixels.conv(weight, undefined, options);
          const back = leaf(11, there.shape as number[]);
          const outputPadding = [0, 1].map((i) => {
            const reach = (there.size(i + 2) - 1) * stride + ([3, 2][i]! - 1) * dilation + 1;
            return pixels.size(i + 2) + pair[0] + pair[1] - reach;
          });
          const returned = back.convTranspose(weight, undefined, { ...options, outputPadding });
          expect(
            distance(there.mul(back).sum().mul(1e-2), returned.mul(pixels).sum().mul(1e-2)),
          ).toBeLessThan(1e-12);
        },
      ),
      { numRuns: 50 },
    );
  });
});

describe("a run", () => {
  const a = input("a", [batch, 2]);
  const b = input("b", [batchTimes(2)], "int64");
  const w = parameter("layer.w", [2], "float16");
  const graph = graphOf({ sum: a.add(w.cast("float32")), b: b.mul(b), w });
  const given = {
    a: ndarray("float32", [1, 2], [1, 2]),
    b: ndarray("int64", [2], [3, 4]),
    "layer.w": ndarray("float16", [2], [0.5, 0.1]),
  };

  it("returns every output in its dtype", () => {
    const found = evaluate(graph, given);
    expect(Object.keys(found)).toEqual(["sum", "b", "w"]);
    expect(found["sum"]).toEqual(ndarray("float32", [1, 2], [1.5, 2.0999755859375]));
    expect(found["b"]).toEqual(ndarray("int64", [2], [9, 16]));
    expect(found["w"]).toEqual(given["layer.w"]);
  });

  it("can return floats without rounding", () => {
    const third = ndarray("float64", [1, 2], [1 / 3, 2 / 3]);
    const found = evaluateFloat64(graph, { ...given, a: third });
    expect(found["sum"]).toEqual(
      ndarray("float64", [1, 2], [1 / 3 + 0.5, 2 / 3 + 0.0999755859375]),
    );
    expect(found["b"]!.dtype).toBe("int64");
  });

  it.each([
    ["layer.w is missing", { a: given.a, b: given.b }],
    ["no leaf named c; it has a, b, layer.w", { ...given, c: given.a }],
    ["a is int64, expected float32", { ...given, a: ndarray("int64", [1, 2], [1, 2]) }],
    ["a: expected [B, 2], got [1, 3]", { ...given, a: ndarray("float32", [1, 3], [1, 2, 3]) }],
    ["b: expected [2B], got [3]", { ...given, b: ndarray("int64", [3], [1, 2, 3]) }],
    [
      "b has batch size 2, but an input before it has 1",
      { ...given, b: ndarray("int64", [4], [1, 2, 3, 4]) },
    ],
  ])("refuses inputs: %s", (message, inputs) => {
    expect(() => evaluate(graph, inputs)).toThrow(ShapeError);
    expect(() => evaluate(graph, inputs)).toThrow(message);
  });

  it("requires a batch size from an input", () => {
    expect(() => evaluate(graphOf({ y: full([batch], 1) }), {})).toThrow(
      "[B] depends on the batch size",
    );
  });

  it("names the wrong index or divisor", () => {
    const pick = (index: number) => valueOf(x.gather(ints([index])));
    expect(() => pick(2)).toThrow("gather: the index 2 is outside of [0, 2)");
    expect(() => pick(-1)).toThrow("gather: the index -1 is outside of [0, 2)");
    expect(() => valueOf(scatterSum(array([1]), ints([3]), 3))).toThrow("scatterSum: the index 3");
    expect(() => valueOf(ints([3]).oneHot(3))).toThrow("oneHot: the index 3");
    expect(() => valueOf(ints([3]).div(ints([0])))).toThrow("div: 3 / 0 has no integer result");
  });
});

describe("evaluateNode", () => {
  it("evaluates one node without rounding", () => {
    const y = input("x", [2]).div(input("y", []));
    const values = [ndarray("float32", [2], [1, 2]), ndarray("float32", [], [3])];
    expect(evaluateNode(y.node, values)).toEqual([ndarray("float64", [2], [1 / 3, 2 / 3])]);
  });
  it("keeps the dtype of integers and bools, and returns one array for each output", () => {
    const parts = input("x", [3], "int64").split([1, 2], 0);
    expect(evaluateNode(parts[0]!.node, [ndarray("int64", [3], [1, 2, 3])])).toEqual([
      ndarray("int64", [1], [1]),
      ndarray("int64", [2], [2, 3]),
    ]);
  });
  it("resolves the batch size in attributes", () => {
    const { node } = input("x", []).expand([batch, 2]);
    const [y] = evaluateNode(node, [ndarray("float32", [], [5])], 1);
    expect(y).toEqual(ndarray("float64", [1, 2], [5, 5]));
  });
});
