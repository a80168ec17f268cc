/**
 * Vector–Jacobian products, one rule for each op: given the gradients of the loss with respect to a node's outputs, a rule builds
 * the gradients with respect to its inputs as more graph.
 *
 * A rule may return a gradient of the *broadcast* shape, which gradient.ts sums to the shape of the input, and `null` for inputs
 * without a gradient. Rules use only differentiable ops, so gradients of any order follow. They make few passes over memory,
 * which on a CPU are the cost of an elementwise backward pass, rather than the arithmetic.
 */
import { convGradients, convTransposeGradients } from "./conv-gradients.ts";
import { isFloat } from "../arrays/ndarray.ts";
import { ShapeError } from "../errors.ts";
import { is } from "../graph/graph.ts";
import { forEach, type OpName, type Ops, type ReduceName } from "../graph/ops.ts";
import { type Dim, factorOf, product, quotient, type Shape } from "../graph/shape.ts";
import { concat, full, scatterSum, where, zerosLike } from "../graph/functional.ts";
import type { Node, Tensor } from "../graph/tensor.ts";

export type VjpRule<K extends OpName> = (
  dy: readonly Tensor[],
  node: Node<K>,
) => readonly (Tensor | null)[];

/** The inputs, the first output and its gradient, which nearly every rule needs. */
function parts(dy: readonly Tensor[], node: Node) {
  const [x, b, c] = node.inputs as [Tensor, Tensor, Tensor];
  return { x, a: x, b, c, y: node.outputs[0]!, g: dy[0]! };
}

/** Makes the rule of an op with one differentiable input. */
function rule<K extends OpName>(
  gradient: (p: ReturnType<typeof parts>, attributes: Ops[K]) => Tensor,
): VjpRule<K> {
  return (dy, node) => [gradient(parts(dy, node), node.attributes)];
}

const none: VjpRule<OpName> = (_, node) => node.inputs.map(() => null);

function isZero(x: Tensor): boolean {
  return is(x.node, "full") && x.node.attributes.value === 0;
}

/** Restores reduced axes with size 1, so that the reduced tensor broadcasts against the original. */
function restore(reduced: Tensor, shape: Shape, axes: readonly number[]): Tensor {
  return reduced.reshape(shape.map((dim, axis) => (axes.includes(axis) ? 1 : dim)));
}

const reduced = ({ x, g }: ReturnType<typeof parts>, { axes }: Ops[ReduceName]): Tensor =>
  restore(g, x.shape, axes);

/** [..., C] → [rows, C] */
function rows(x: Tensor): Tensor {
  return x.reshape([product(x.shape.slice(0, -1)) ?? 1, x.dim(-1)]);
}

const SQRT_2_OVER_PI = Math.sqrt(2 / Math.PI);
const GELU_CUBIC = 0.044715;

/**
 * With y = x·s, s = σ(z), z = 2√(2/π)(x + 0.044715x³) (the tanh form rewritten by (1 + tanh u)/2 = σ(2u)):
 * dy/dx = s + (y − y·s)·z′, z′ = 2√(2/π)(1 + 3·0.044715x²).
 */
function geluTanhSlope(x: Tensor, y: Tensor): Tensor {
  const square = x.mul(x);
  const s = square
    .mul(2 * SQRT_2_OVER_PI * GELU_CUBIC)
    .add(2 * SQRT_2_OVER_PI)
    .mul(x)
    .sigmoid();
  const inner = square.mul(6 * SQRT_2_OVER_PI * GELU_CUBIC).add(2 * SQRT_2_OVER_PI);
  return y.sub(y.mul(s)).mul(inner).add(s);
}

/** dy/dx = Φ(x) + x·φ(x). */
function geluSlope(x: Tensor): Tensor {
  const cumulative = x.mul(Math.SQRT1_2).erf().mul(0.5).add(0.5);
  const density = x
    .mul(x)
    .mul(-0.5)
    .exp()
    .mul(1 / Math.sqrt(2 * Math.PI));
  return density.mul(x).add(cumulative);
}

/** Returns dA and dB for C = op(A)·op(B), where op may swap the last two axes. */
const matmulRule: VjpRule<"matmul"> = ([g], { inputs, attributes }) => {
  const [a, b] = inputs as [Tensor, Tensor];
  const dy = g!;
  const { transposeA, transposeB } = attributes;
  const da = transposeA
    ? b.matmul(dy, { transposeA: transposeB, transposeB: true })
    : dy.matmul(b, { transposeB: !transposeB });
  const db = transposeB
    ? dy.matmul(a, { transposeA: true, transposeB: transposeA })
    : a.matmul(dy, { transposeA: !transposeA });
  return [da, db];
};

const linearRule: VjpRule<"linear"> = ([g], { inputs }) => {
  const [x, weight, bias] = inputs as [Tensor, Tensor, Tensor | undefined];
  const dy = rows(g!);
  const dx = dy.matmul(weight).reshape(x.shape);
  const dWeight = dy.matmul(rows(x), { transposeA: true });
  return bias ? [dx, dWeight, dy.sum(0)] : [dx, dWeight];
};

const quantizeRowsRule: VjpRule<"quantizeRows"> = () => {
  throw new ShapeError(
    "quantizeRows has no gradient, since rounding has none: take gradients of the graph before its linear layers are quantized.",
  );
};

/** Integers have no gradient; y − bias is proportional to both scales. */
const quantizedLinearRule: VjpRule<"quantizedLinear"> = ([g], node) => {
  const [, scale, , weightScale, bias] = node.inputs as [
    Tensor,
    Tensor,
    Tensor,
    Tensor,
    Tensor | undefined,
  ];
  const y = node.outputs[0]!;
  const part = g!.mul(bias ? y.sub(bias) : y);
  const scales = [part.div(scale), null, part.div(weightScale)];
  return bias ? [null, ...scales, g!] : [null, ...scales];
};

/**
 * dx of y = (x − mean)/std over the last axis, given dŷ: (dŷ − mean(dŷ) − y·mean(dŷ·y))/std
 * (Ba et al., 2016), with the two reduced terms scaled before they are broadcast.
 */
function normalizedGradient(dy: Tensor, y: Tensor, inverse: Tensor): Tensor {
  const along = dy.mul(y).mean(-1, true).mul(inverse);
  const offset = dy.mean(-1, true).mul(inverse);
  return dy.mul(inverse).sub(y.mul(along).add(offset));
}

const layerNormRule: VjpRule<"layerNorm"> = (dy, node) => {
  const [x, weight, bias] = node.inputs as [Tensor, Tensor | undefined, Tensor | undefined];
  const [y, mean, inverse] = node.outputs as [Tensor, Tensor, Tensor];
  const [g, dMean, dInverse] = dy as [Tensor, Tensor, Tensor];
  const normal = weight ? x.sub(mean).mul(inverse) : y;
  const dNormal = weight ? g.mul(weight) : g;
  let dx = normalizedGradient(dNormal, normal, inverse);
  const count = x.size(-1);
  if (!isZero(dMean)) dx = dx.add(dMean.div(count));
  if (!isZero(dInverse)) {
    dx = dx.sub(dInverse.mul(inverse).mul(inverse).div(count).mul(normal));
  }
  return [dx, weight ? g.mul(normal) : null, bias ? g : null];
};

/** y = x/rms: dx = (dŷ − y·mean(dŷ·y))/rms. */
const rmsNormRule: VjpRule<"rmsNorm"> = (dy, node) => {
  const [x, weight] = node.inputs as [Tensor, Tensor | undefined];
  const [y, inverse] = node.outputs as [Tensor, Tensor];
  const [g, dInverse] = dy as [Tensor, Tensor];
  const normal = weight ? x.mul(inverse) : y;
  const dNormal = weight ? g.mul(weight) : g;
  const along = dNormal.mul(normal).mean(-1, true).mul(inverse);
  let dx = dNormal.mul(inverse).sub(normal.mul(along));
  if (!isZero(dInverse)) {
    dx = dx.sub(dInverse.mul(inverse).mul(inverse).div(x.size(-1)).mul(normal));
  }
  return [dx, weight ? g.mul(normal) : null];
};

const groupNormRule: VjpRule<"groupNorm"> = ([g], node) => {
  const { groups, epsilon } = node.attributes;
  const x = node.inputs[0]!;
  const grouped = (t: Tensor) =>
    t.reshape([t.dim(0), groups, quotient(product(t.shape.slice(1))!, groups)!]);
  const inverse = grouped(x).variance(-1, true).add(epsilon).sqrt().reciprocal();
  return [normalizedGradient(grouped(g!), grouped(node.outputs[0]!), inverse).reshape(x.shape)];
};

/** The rule for S = q·kᵀ·scale + bias, p = softmax(S), y = p·v. It reads p, so the forward pass has to keep it. */
const attentionRule: VjpRule<"attention"> = ([g, dProbabilities], node) => {
  const { heads, scale } = node.attributes;
  const [q, k, v, bias] = node.inputs as [Tensor, Tensor, Tensor, Tensor | undefined];
  const p = node.outputs[1]!;
  const separate = (t: Tensor) => t.rearrange("b n (h d) -> b h n d", { h: heads });
  const merge = (t: Tensor) => t.rearrange("b h n d -> b n (h d)");
  const [qh, kh, vh, dy] = [separate(q), separate(k), separate(v), separate(g!)];
  const fromOutput = dy.matmul(vh, { transposeB: true });
  const dp = isZero(dProbabilities!) ? fromOutput : fromOutput.add(dProbabilities!);
  const dScores = softmaxGradient(p, dp, -1);
  const scaled = dScores.mul(scale);
  return [
    merge(scaled.matmul(kh)),
    merge(scaled.matmul(qh, { transposeA: true })),
    merge(p.matmul(dy, { transposeA: true })),
    ...(bias ? [dScores] : []),
  ];
};

function softmaxGradient(y: Tensor, dy: Tensor, axis: number): Tensor {
  return dy.sub(dy.mul(y).sum(axis, true)).mul(y);
}

/** Scatters dy over the positions that a slice read; the others get 0. */
function sliceGradient(g: Tensor, shape: Shape, { starts, ends, steps }: Ops["slice"]): Tensor {
  return shape.reduce<Tensor>((grown, dim, axis) => {
    const [start, step] = [starts[axis]!, steps[axis]!];
    if (start === 0 && step === 1 && ends[axis] === dim) return grown;
    // Step > 1: an axis [n] becomes [n, step] with zeros behind each element, then [n · step].
    const spread =
      step === 1
        ? grown
        : grown
            .unsqueeze(axis + 1)
            .pad(onAxis(grown.rank + 1, axis + 1, [0, step - 1]))
            .reshape([
              ...grown.shape.slice(0, axis),
              grown.size(axis) * step,
              ...grown.shape.slice(axis + 1),
            ]);
    const rest = factorOf(dim) - start;
    const fitting = spread.size(axis) > rest ? spread.slice(axis, 0, rest) : spread;
    return fitting.pad(onAxis(grown.rank, axis, [start, rest - fitting.size(axis)]));
  }, g);
}

function onAxis(rank: number, axis: number, pair: readonly [number, number]) {
  return Array.from({ length: rank }, (_, i) => (i === axis ? pair : ([0, 0] as const)));
}

/** Gathers along an axis other than the first move it to the front, sum there, and move it back. */
const gatherRule: VjpRule<"gather"> = ([g], { inputs, attributes: { axis } }) => {
  const [x, indices] = inputs as [Tensor, Tensor];
  const dy = g!;
  const range = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i);
  const indexAxes = range(axis, axis + indices.rank);
  const front = dy.transpose([
    ...indexAxes,
    ...range(0, axis),
    ...range(axis + indices.rank, dy.rank),
  ]);
  const others = x.shape.filter((_, i) => i !== axis);
  const count = product(indices.shape) as Dim;
  const sums = scatterSum(
    front.reshape([count, ...others]),
    indices.reshape([count]),
    x.size(axis),
  );
  return [sums.transpose([...range(1, axis + 1), 0, ...range(axis + 1, x.rank)]), null];
};

const convRule: VjpRule<"conv"> = ([g], { inputs, attributes }) =>
  convGradients(g!, inputs, attributes);

const convTransposeRule: VjpRule<"convTranspose"> = ([g], { inputs, attributes }) =>
  convTransposeGradients(g!, inputs, attributes);

/** The rules of all ops except `recompute`, whose rule needs the walk itself and is in gradient.ts. */
export const vjpRules: { readonly [K in Exclude<OpName, "recompute">]: VjpRule<K> } = {
  ...forEach(["input", "parameter", "constant", "full"], none),
  ...forEach(["sign", "floor", "ceil", "round", "detach"], none),
  ...forEach(["equal", "less", "lessEqual", "not", "and", "or"], none),
  ...forEach(["extent", "argmax", "argmin", "oneHot"], none),

  neg: rule(({ g }) => g.neg()),
  abs: rule(({ g, x }) => g.mul(x.sign())),
  relu: rule(({ g, x }) => where(x.greater(0), g, zerosLike(g))),
  exp: rule(({ g, y }) => g.mul(y)),
  log: rule(({ g, x }) => g.div(x)),
  sqrt: rule(({ g, y }) => g.div(y).mul(0.5)),
  reciprocal: rule(({ g, y }) => g.mul(y.mul(y)).neg()),
  sin: rule(({ g, x }) => g.mul(x.cos())),
  cos: rule(({ g, x }) => g.mul(x.sin()).neg()),
  tanh: rule(({ g, y }) => g.sub(g.mul(y.mul(y)))),
  erf: rule(({ g, x }) => g.mul(x.mul(x).neg().exp()).mul(2 / Math.sqrt(Math.PI))),
  sigmoid: rule(({ g, y }) => g.mul(y.sub(y.mul(y)))),
  silu: rule(({ g, x, y }) => {
    const s = x.sigmoid();
    return y.sub(y.mul(s)).add(s).mul(g);
  }),
  gelu: rule(({ g, x, y }, { approximate }) =>
    g.mul(approximate === "tanh" ? geluTanhSlope(x, y) : geluSlope(x)),
  ),

  add: (dy) => [dy[0]!, dy[0]!],
  sub: (dy) => [dy[0]!, dy[0]!.neg()],
  mul: (dy, node) => {
    const { a, b, g } = parts(dy, node);
    return [g.mul(b), g.mul(a)];
  },
  div: (dy, node) => {
    const { b, y, g } = parts(dy, node);
    const da = g.div(b);
    return [da, da.mul(y).neg()];
  },
  pow: (dy, node) => {
    const { a, b, y, g } = parts(dy, node);
    const one = full([], 1, a.dtype);
    // x⁰ has slope 0 everywhere, also at x = 0, where 0 · 0⁻¹ is not defined.
    const lowered = where(b.equal(0), one, b.sub(1));
    // The logarithm is taken only of positive bases: 0^b has slope 0 in b, and for x < 0 the slope is not defined.
    const safe = where(a.greater(0), a, one);
    return [g.mul(b).mul(a.pow(lowered)), g.mul(y).mul(safe.log())];
  },
  // If both are equal, the gradient goes to the first.
  minimum: (dy, node) => {
    const { a, b, g } = parts(dy, node);
    const first = a.lessEqual(b);
    return [where(first, g, zerosLike(g)), where(first, zerosLike(g), g)];
  },
  maximum: (dy, node) => {
    const { a, b, g } = parts(dy, node);
    const first = a.greaterEqual(b);
    return [where(first, g, zerosLike(g)), where(first, zerosLike(g), g)];
  },
  where: (dy, node) => {
    const { x: condition, g } = parts(dy, node);
    return [null, where(condition, g, zerosLike(g)), where(condition, zerosLike(g), g)];
  },
  cast: (dy, node) => {
    const { dtype } = node.inputs[0]!;
    return [isFloat(dtype) && isFloat(node.attributes.to) ? dy[0]!.cast(dtype) : null];
  },

  sum: rule((p, attributes) => reduced(p, attributes).expand(p.x.shape)),
  mean: rule((p, attributes) =>
    reduced(p, attributes).div(p.x.extent(attributes.axes)).expand(p.x.shape),
  ),
  max: rule((p, attributes) => {
    // Elements that share the largest value share its gradient.
    const largest = p.x.equal(restore(p.y, p.x.shape, attributes.axes)).cast(p.x.dtype);
    return reduced(p, attributes).div(largest.sum(attributes.axes, true)).mul(largest);
  }),
  cumsum: rule(({ g }, { axis, reverse }) => g.cumsum(axis, !reverse)),
  softmax: rule(({ g, y }, { axis }) => softmaxGradient(y, g, axis)),
  logSoftmax: rule(({ g, y }, { axis }) => g.sub(y.exp().mul(g.sum(axis, true)))),

  matmul: matmulRule,
  linear: linearRule,
  quantizeRows: quantizeRowsRule,
  quantizedLinear: quantizedLinearRule,

  reshape: rule(({ g, x }) => g.reshape(x.shape)),
  transpose: rule(({ g }, { permutation }) =>
    g.transpose(permutation.map((_, axis) => permutation.indexOf(axis))),
  ),
  expand: rule(({ g }) => g),
  concat: (dy, { inputs, attributes: { axis } }) =>
    dy[0]!.split(
      inputs.map((x) => x.dim(axis)),
      axis,
    ),
  slice: rule(({ g, x }, attributes) => sliceGradient(g, x.shape, attributes)),
  split: (dy, { attributes: { axis } }) => [concat(dy, axis)],
  pad: rule(({ g, x }, { padding }) =>
    padding.reduce(
      (t, [before, after], axis) =>
        before === 0 && after === 0 ? t : t.slice(axis, before, before + x.size(axis)),
      g,
    ),
  ),
  flip: rule(({ g }, { axes }) => g.flip(axes)),

  gather: gatherRule,
  scatterSum: (dy, { inputs }) => [dy[0]!.gather(inputs[1]!, 0), null],

  conv: convRule,
  convTranspose: convTransposeRule,
  upsampleNearest: rule(({ g, x }, { scale }) => {
    // Each axis [n · s] becomes [n, s], and the copies are added up.
    const shape = scale.flatMap((s, i) => [x.dim(i + 2), s]);
    return g.reshape([...x.shape.slice(0, 2), ...shape]).sum(scale.map((_, i) => 3 + 2 * i));
  }),

  layerNorm: layerNormRule,
  rmsNorm: rmsNormRule,
  groupNorm: groupNormRule,
  attention: attentionRule,
  barrier: (dy) => [dy[0]!, null],
};
