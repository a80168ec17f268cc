/** Reference implementations of elementwise ops. */
import { castArray, isFloat, toNumbers } from "../arrays/ndarray.ts";
import { ShapeError } from "../errors.ts";
import { at, commonShape, type EvaluateRules, expandTo, type Value } from "./evaluate-values.ts";
import { erf, erfc } from "./erf.ts";
import type { BinaryName, CompareName, UnaryName } from "../graph/ops.ts";

/** Applies f to each element. */
function map(x: Value, f: (value: number) => number): Value {
  return { shape: x.shape, data: x.data.map((value) => f(value)) };
}

/** Applies f to each pair of elements, with broadcasting. */
function map2(a: Value, b: Value, f: (a: number, b: number) => number): Value {
  const shape = commonShape(a.shape, b.shape);
  const [left, right] = [expandTo(a, shape).data, expandTo(b, shape).data];
  return { shape, data: left.map((value, i) => f(value, right[i]!)) };
}

const unary =
  (f: (x: number) => number) =>
  (inputs: readonly Value[]): Value[] => [map(at(inputs, 0), f)];

const binary =
  (f: (a: number, b: number) => number) =>
  (inputs: readonly Value[]): Value[] => [map2(at(inputs, 0), at(inputs, 1), f)];

const predicate = (f: (a: number, b: number) => boolean) => binary((a, b) => (f(a, b) ? 1 : 0));

const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));

/** x · Φ(x); erfc stays accurate for very small Φ. */
const gelu = (x: number) => (x / 2) * erfc(-x * Math.SQRT1_2);

const geluTanh = (x: number) =>
  (x / 2) * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));

export function roundHalfEven(x: number): number {
  const low = Math.floor(x);
  if (x - low !== 0.5) return Math.round(x);
  return low % 2 === 0 ? low : low + 1;
}

/** Integer division truncates towards zero, as in ONNX and C. */
function divideIntegers(a: number, b: number): number {
  if (b === 0) throw new ShapeError(`div: ${a} / 0 has no integer result; divide floats instead.`);
  return Math.trunc(a / b);
}

export const elementwiseRules: Pick<
  EvaluateRules,
  UnaryName | BinaryName | CompareName | "not" | "and" | "or" | "where" | "cast"
> = {
  neg: unary((x) => -x),
  abs: unary(Math.abs),
  sign: unary(Math.sign),
  exp: unary(Math.exp),
  log: unary(Math.log),
  sqrt: unary(Math.sqrt),
  reciprocal: unary((x) => 1 / x),
  sin: unary(Math.sin),
  cos: unary(Math.cos),
  tanh: unary(Math.tanh),
  erf: unary(erf),
  sigmoid: unary(sigmoid),
  relu: unary((x) => Math.max(x, 0)),
  silu: unary((x) => x * sigmoid(x)),
  gelu: (inputs, { approximate }) => unary(approximate === "tanh" ? geluTanh : gelu)(inputs),
  floor: unary(Math.floor),
  ceil: unary(Math.ceil),
  round: unary(roundHalfEven),
  detach: unary((x) => x),

  add: binary((a, b) => a + b),
  sub: binary((a, b) => a - b),
  mul: binary((a, b) => a * b),
  div: (inputs, _, { dtype }) => binary(isFloat(dtype) ? (a, b) => a / b : divideIntegers)(inputs),
  pow: binary((a, b) => a ** b),
  minimum: binary(Math.min),
  maximum: binary(Math.max),

  equal: predicate((a, b) => a === b),
  less: predicate((a, b) => a < b),
  lessEqual: predicate((a, b) => a <= b),
  not: unary((x) => 1 - x),
  and: binary((a, b) => a * b),
  or: binary(Math.max),

  where: (inputs) => {
    const [condition, a, b] = [at(inputs, 0), at(inputs, 1), at(inputs, 2)];
    const shape = commonShape(condition.shape, commonShape(a.shape, b.shape));
    const [holds, yes, no] = [condition, a, b].map((x) => expandTo(x, shape).data);
    return [{ shape, data: yes!.map((value, i) => (holds![i] ? value : no![i]!)) }];
  },
  // Rounds to 16-bit floats, but not to float32. NaN and infinity become the integer 0, but a bool that is true.
  cast: (inputs, { to }) => {
    const { shape, data } = at(inputs, 0);
    if (to === "float32" || to === "float64") return [at(inputs, 0)];
    if (to === "bool") return [map(at(inputs, 0), (x) => (x === 0 ? 0 : 1))];
    const source = isFloat(to) ? data : data.map((x) => (Number.isFinite(x) ? x : 0));
    const rounded = castArray({ dtype: "float64", shape, data: source }, to);
    return [{ shape, data: Float64Array.from(toNumbers(rounded)) }];
  },
};
