/**
 * How each op is written in ONNX. Rules prefer single ops (LayerNormalization, Gelu, Softmax) to their parts, and standard ONNX to
 * ONNX Runtime's own domain unless that is faster or the only way.
 */
import { type DType, isFloat, ndarray, sizeOf } from "../arrays/ndarray.ts";
import type { ConvAttributes, OpName, ReduceName } from "../graph/ops.ts";
import { isStatic, product, sameShape } from "../graph/shape.ts";
import type { Node, Tensor } from "../graph/tensor.ts";
import type { Emitter } from "./emitter.ts";
import { attention } from "./lower-attention.ts";
import { quantizedLinear, quantizeRows } from "./lower-quantized.ts";
import { dataTypes } from "./proto.ts";

export interface LowerContext<K extends OpName> {
  readonly node: Node<K>;
  /** The ONNX names of the node's inputs. */
  readonly inputs: readonly string[];
  readonly emitter: Emitter;
  /** Returns true if anything reads a tensor; optional outputs that nothing reads are omitted. */
  readonly isUsed: (tensor: Tensor) => boolean;
}

export type LowerRule<K extends OpName> = (context: LowerContext<K>) => string | readonly string[];

/** Makes a rule that passes its inputs to one ONNX op. */
function plain<K extends OpName>(opType: string): LowerRule<K> {
  return ({ inputs, emitter }) => emitter.emit(opType, inputs);
}

/** Makes a rule that computes in another dtype if ONNX Runtime has no kernel for the node's own. */
function through<K extends OpName>(lacking: DType, other: DType, rule: LowerRule<K>): LowerRule<K> {
  return (context) => {
    const { inputs, emitter, node } = context;
    if (node.outputs[0]!.dtype !== lacking) return rule(context);
    const cast = (name: string, to: DType) => emitter.emit("Cast", [name], { to: dataTypes[to] });
    const y = rule({ ...context, inputs: inputs.map((name) => cast(name, other)) });
    return cast(y as string, lacking);
  };
}

const throughFloat32 = <K extends OpName>(rule: LowerRule<K>) =>
  through("float64", "float32", rule);

function reduction<K extends ReduceName>(opType: string): LowerRule<K> {
  return ({ node: { attributes }, inputs, emitter }) =>
    attributes.axes.length === 0
      ? inputs[0]!
      : emitter.emit(opType, [inputs[0]!, emitter.ints(attributes.axes)], {
          keepdims: Number(attributes.keepDims),
        });
}

function argument<K extends "argmax" | "argmin">(opType: string): LowerRule<K> {
  return ({ node, inputs, emitter }) =>
    emitter.emit(opType, inputs, { axis: node.attributes.axis, keepdims: 0 });
}

function alongAxis<K extends "softmax" | "logSoftmax">(opType: string): LowerRule<K> {
  return ({ node, inputs, emitter }) =>
    emitter.emit(opType, inputs, { axis: node.attributes.axis });
}

function swapLast(name: string, rank: number, emitter: Emitter): string {
  const perm = Array.from({ length: rank }, (_, axis) => axis);
  [perm[rank - 2], perm[rank - 1]] = [rank - 1, rank - 2];
  return emitter.emit("Transpose", [name], { perm });
}

/**
 * The product of two matrices is a Gemm, as is that of a stack and a matrix. Two stacks are a MatMul, whose transposes ONNX
 * Runtime fuses if it can.
 */
const matmul: LowerRule<"matmul"> = ({ node, inputs, emitter }) => {
  const [a, b] = node.inputs as [Tensor, Tensor];
  const { transposeA, transposeB } = node.attributes;
  const [nameA, nameB] = inputs as [string, string];
  if (a.rank === 2 && b.rank === 2) {
    return emitter.emit("Gemm", inputs, { transA: Number(transposeA), transB: Number(transposeB) });
  }
  if (b.rank === 2 && !transposeA) {
    const rows = product(a.shape.slice(0, -1))!;
    const flat = emitter.emit("Reshape", [nameA, emitter.reshapeDims([rows, a.dim(-1)])]);
    const y = emitter.emit("Gemm", [flat, nameB], { transB: Number(transposeB) });
    return emitter.emit("Reshape", [y, emitter.reshapeDims(node.outputs[0]!.shape)]);
  }
  const leading = node.outputs[0]!.shape.slice(0, -2);
  const operand = (name: string, x: Tensor, swap: boolean) => {
    const shape = [...leading, ...x.shape.slice(-2)];
    // MatMul broadcasts leading axes itself, but not over an empty batch.
    const repeated = !isStatic(leading) && !sameShape(shape, x.shape);
    const whole = repeated ? emitter.emit("Expand", [name, emitter.dims(shape)]) : name;
    return swap ? swapLast(whole, repeated ? shape.length : x.rank, emitter) : whole;
  };
  return emitter.emit("MatMul", [operand(nameA, a, transposeA), operand(nameB, b, transposeB)]);
};

/** A Gemm with the leading axes merged into one; both reshapes are free. */
const linear: LowerRule<"linear"> = ({ node, inputs, emitter }) => {
  const [x, ...weights] = inputs as [string, string];
  const tensor = node.inputs[0]!;
  const inner = tensor.shape.at(-1)!;
  const rows = product(tensor.shape.slice(0, -1))!;
  const flat =
    tensor.rank === 2 ? x : emitter.emit("Reshape", [x, emitter.reshapeDims([rows, inner])]);
  const y = emitter.emit("Gemm", [flat, ...weights], { transB: 1 });
  return tensor.rank === 2
    ? y
    : emitter.emit("Reshape", [y, emitter.reshapeDims(node.outputs[0]!.shape)]);
};

function convAttributes(node: Node<"conv" | "convTranspose">) {
  const { stride, padding, dilation, groups }: ConvAttributes = node.attributes;
  return {
    strides: stride,
    pads: [...padding.map(([before]) => before), ...padding.map(([, after]) => after)],
    dilations: dilation,
    group: groups,
  };
}

/** A vector of one number, such as the scale of ones that a norm without weight needs in ONNX. */
function vectorOf(value: number, length: number, dtype: DType, emitter: Emitter): string {
  return emitter.constant(ndarray(dtype, [length], new Array<number>(length).fill(value)));
}

/** Omits the outputs after the last one that is used. */
function usedOutputs({ node, isUsed }: LowerContext<"layerNorm">): number {
  return node.outputs.findLastIndex(isUsed) + 1;
}

const layerNorm: LowerRule<"layerNorm"> = (context) => {
  const { node, inputs, emitter } = context;
  const x = node.inputs[0]!;
  return emitter.emitMany(
    "LayerNormalization",
    [inputs[0]!, inputs[1] ?? vectorOf(1, x.size(-1), x.dtype, emitter), ...inputs.slice(2)],
    {
      attributes: { axis: -1, epsilon: { float: node.attributes.epsilon } },
      outputs: usedOutputs(context),
    },
  );
};

/**
 * RMSNormalization under ONNX Runtime's older name, which has more kernels. Its second output should be 1/rms but is wrong on
 * WebGPU, so 1/rms is computed separately, in float32 because the sum of squares could overflow.
 */
const rmsNorm: LowerRule<"rmsNorm"> = ({ node, inputs, emitter, isUsed }) => {
  const { epsilon } = node.attributes;
  const x = node.inputs[0]!;
  const y = emitter.emit(
    "SimplifiedLayerNormalization",
    [inputs[0]!, inputs[1] ?? vectorOf(1, x.size(-1), x.dtype, emitter)],
    { axis: -1, epsilon: { float: epsilon } },
  );
  if (!isUsed(node.outputs[1]!)) return y;
  const half = x.dtype === "float16";
  const dtype = half ? "float32" : x.dtype;
  const wide = half ? emitter.emit("Cast", [inputs[0]!], { to: dataTypes.float32 }) : inputs[0]!;
  // An axis counted from the end gives an empty batch the wrong shape.
  const axes = emitter.ints([x.rank - 1]);
  const squares = emitter.emit("ReduceSumSquare", [wide, axes], { keepdims: 1 });
  const mean = emitter.emit("Mul", [squares, emitter.scalar(1 / x.size(-1), dtype)]);
  const root = emitter.emit("Sqrt", [emitter.emit("Add", [mean, emitter.scalar(epsilon, dtype)])]);
  const inverse = emitter.emit("Reciprocal", [root]);
  return [y, half ? emitter.emit("Cast", [inverse], { to: dataTypes.float16 }) : inverse];
};

/** Group normalization as an instance normalization in which each group is one channel. */
const groupNorm: LowerRule<"groupNorm"> = ({ node, inputs, emitter }) => {
  const { groups, epsilon } = node.attributes;
  const x = node.inputs[0]!;
  const dtype = x.dtype === "float64" ? "float32" : x.dtype;
  // WebGPU uses the epsilon of the first node that runs for all of them. So all share one epsilon, and x is scaled to it:
  // x/√(var + ε) = sx/√(s²var + s²ε).
  const shared = emitter.shared("InstanceNormalization epsilon", epsilon);
  const scaled =
    shared === epsilon
      ? inputs[0]!
      : emitter.emit("Mul", [inputs[0]!, emitter.scalar(Math.sqrt(shared / epsilon), dtype)]);
  const rest = sizeOf(x.shape.slice(1) as number[]) / groups;
  const grouped = emitter.emit("Reshape", [scaled, emitter.reshapeDims([x.dim(0), groups, rest])]);
  const [one, zero] = [1, 0].map((value) => vectorOf(value, groups, dtype, emitter));
  const y = emitter.emit("InstanceNormalization", [grouped, one!, zero!], {
    epsilon: { float: shared },
  });
  return emitter.emit("Reshape", [y, emitter.reshapeDims(x.shape)]);
};

/**
 * A Reshape of x whose target shape is computed from `after`. It copies nothing, no optimizer can remove it, and it cannot run
 * before the gradient that it waits for has been computed.
 */
const barrier: LowerRule<"barrier"> = ({ node, inputs, emitter }) => {
  const [x, after] = inputs as [string, string];
  const dims = emitter.dims(node.inputs[0]!.shape);
  const flat = emitter.emit("Reshape", [after, emitter.ints([-1])]);
  const slice = emitter.emit("Slice", [flat, emitter.ints([0]), emitter.ints([1])]);
  // One element, even if there is none to slice.
  const first = emitter.emit("ReduceSum", [slice, emitter.ints([0])], { keepdims: 1 });
  // a < a is false even for NaN, so the target is always the shape of x.
  const never = emitter.emit("Less", [first, first]);
  const shifted = emitter.emit("Add", [dims, emitter.ints([1])]);
  return emitter.emit("Reshape", [x, emitter.emit("Where", [never, shifted, dims])]);
};

/** ONNX Runtime's Where has no kernel for bool, so the choice is made by logical operators. */
const where: LowerRule<"where"> = ({ node, inputs, emitter }) => {
  if (node.outputs[0]!.dtype !== "bool") return emitter.emit("Where", inputs);
  const [condition, a, b] = inputs as [string, string, string];
  return emitter.emit("Or", [
    emitter.emit("And", [condition, a]),
    emitter.emit("And", [emitter.emit("Not", [condition]), b]),
  ]);
};

const slice: LowerRule<"slice"> = ({ node, inputs, emitter }) => {
  const { starts, ends, steps } = node.attributes;
  const shape = node.inputs[0]!.shape;
  const axes = shape.flatMap((dim, i) =>
    starts[i] === 0 && ends[i] === dim && steps[i] === 1 ? [] : [i],
  );
  if (axes.length === 0) return inputs[0]!;
  const pick = (list: readonly unknown[]) => emitter.ints(axes.map((i) => list[i] as number));
  return emitter.emit("Slice", [
    inputs[0]!,
    pick(starts),
    pick(ends),
    emitter.ints(axes),
    pick(steps),
  ]);
};

const flip: LowerRule<"flip"> = ({ node: { attributes }, inputs, emitter }) => {
  const { axes } = attributes;
  const all = (value: number) => emitter.ints(axes.map(() => value));
  return axes.length === 0
    ? inputs[0]!
    : emitter.emit("Slice", [inputs[0]!, all(-1), all(-(2 ** 31)), emitter.ints(axes), all(-1)]);
};

/**
 * Compares indices with column numbers, because OneHot has no kernel on some devices. The comparison is in int32, because WebGPU
 * would leave int64 to the CPU.
 */
function oneHot(
  indices: string,
  tensor: Tensor,
  depth: number,
  to: number,
  emitter: Emitter,
): string {
  const columns = Array.from({ length: depth }, (_, i) => i);
  const narrow =
    tensor.dtype === "int32" ? indices : emitter.emit("Cast", [indices], { to: dataTypes.int32 });
  const wide = emitter.emit("Unsqueeze", [narrow, emitter.ints([-1])]);
  const equal = emitter.emit("Equal", [wide, emitter.constant(ndarray("int32", [depth], columns))]);
  return emitter.emit("Cast", [equal], { to });
}

/** A product with the one-hot matrix, which is dense and parallel, unlike a scatter. */
const scatterSum: LowerRule<"scatterSum"> = ({ node, inputs, emitter }) => {
  const { size } = node.attributes;
  const [updates, indices] = node.inputs as [Tensor, Tensor];
  const hot = oneHot(inputs[1]!, indices, size, dataTypes[updates.dtype], emitter);
  const width = product(updates.shape.slice(1))!;
  const rows = emitter.emit("Reshape", [inputs[0]!, emitter.reshapeDims([updates.dim(0), width])]);
  const sums = emitter.emit("Gemm", [hot, rows], { transA: 1 });
  return emitter.emit("Reshape", [sums, emitter.reshapeDims(node.outputs[0]!.shape)]);
};

const extent: LowerRule<"extent"> = ({ node, emitter }) => {
  const x = node.inputs[0]!;
  const count = product(node.attributes.axes.map((axis) => x.dim(axis)))!;
  if (typeof count === "number") return emitter.scalar(count, x.dtype);
  const scalar = emitter.emit("Reshape", [emitter.dim(count), emitter.ints([])]);
  return emitter.emit("Cast", [scalar], { to: dataTypes[x.dtype] });
};

const full: LowerRule<"full"> = ({ node, emitter }) => {
  const { shape, value, dtype } = node.attributes;
  if (isStatic(shape) && sizeOf(shape) <= 64) {
    const size = sizeOf(shape);
    return emitter.constant(ndarray(dtype, shape, new Array<number>(size).fill(value)));
  }
  return emitter.emit("Expand", [vectorOf(value, 1, dtype, emitter), emitter.dims(shape)]);
};

export const lowerRules: { readonly [K in OpName]: LowerRule<K> } = {
  // lower.ts names these leaves itself.
  input: () => [],
  parameter: () => [],
  constant: ({ node, emitter }) => emitter.constant(node.attributes.value),
  full,

  neg: plain("Neg"),
  abs: plain("Abs"),
  sign: plain("Sign"),
  exp: plain("Exp"),
  log: plain("Log"),
  sqrt: plain("Sqrt"),
  reciprocal: plain("Reciprocal"),
  sin: plain("Sin"),
  cos: plain("Cos"),
  tanh: plain("Tanh"),
  erf: throughFloat32(plain("Erf")),
  sigmoid: plain("Sigmoid"),
  relu: ({ node, inputs, emitter }) => {
    const { dtype } = node.outputs[0]!;
    // Relu has no kernel for integers in ONNX Runtime.
    return isFloat(dtype)
      ? emitter.emit("Relu", inputs)
      : emitter.emit("Max", [inputs[0]!, emitter.scalar(0, dtype)]);
  },
  silu: throughFloat32(({ inputs, emitter }) =>
    emitter.emit("Mul", [inputs[0]!, emitter.emit("Sigmoid", [inputs[0]!])]),
  ),
  gelu: throughFloat32(({ node, inputs, emitter }) =>
    emitter.emit("Gelu", inputs, { approximate: node.attributes.approximate }),
  ),
  floor: plain("Floor"),
  ceil: plain("Ceil"),
  round: plain("Round"),
  detach: plain("Identity"),

  add: plain("Add"),
  sub: plain("Sub"),
  mul: plain("Mul"),
  div: plain("Div"),
  pow: plain("Pow"),
  minimum: plain("Min"),
  maximum: plain("Max"),
  equal: plain("Equal"),
  less: plain("Less"),
  lessEqual: plain("LessOrEqual"),
  not: plain("Not"),
  and: plain("And"),
  or: plain("Or"),
  where,
  cast: ({ node, inputs, emitter }) =>
    emitter.emit("Cast", inputs, { to: dataTypes[node.attributes.to] }),

  sum: through("uint8", "int32", reduction("ReduceSum")),
  mean: reduction("ReduceMean"),
  max: reduction("ReduceMax"),
  extent,
  argmax: argument("ArgMax"),
  argmin: argument("ArgMin"),
  cumsum: through("uint8", "int32", ({ node: { attributes }, inputs, emitter }) =>
    emitter.emit("CumSum", [inputs[0]!, emitter.ints([attributes.axis])], {
      reverse: Number(attributes.reverse),
    }),
  ),
  softmax: alongAxis("Softmax"),
  logSoftmax: alongAxis("LogSoftmax"),

  matmul,
  linear,
  quantizeRows,
  quantizedLinear,

  reshape: ({ node, inputs, emitter }) => {
    const { shape } = node.attributes;
    // Without this attribute a 0 would mean "the size in the input".
    const flags = shape.includes(0) ? { allowzero: 1 } : {};
    return emitter.emit("Reshape", [inputs[0]!, emitter.reshapeDims(shape)], flags);
  },
  transpose: ({ node, inputs, emitter }) =>
    emitter.emit("Transpose", inputs, { perm: node.attributes.permutation }),
  expand: ({ node, inputs, emitter }) => {
    // The kernel for WebGPU fails on scalars of some dtypes.
    const scalar = node.inputs[0]!.rank === 0;
    const x = scalar ? emitter.emit("Reshape", [inputs[0]!, emitter.ints([1])]) : inputs[0]!;
    return emitter.emit("Expand", [x, emitter.dims(node.attributes.shape)]);
  },
  concat: ({ node, inputs, emitter }) =>
    emitter.emit("Concat", inputs, { axis: node.attributes.axis }),
  slice,
  split: ({ node, inputs, emitter }) =>
    emitter.emitMany("Split", [inputs[0]!, emitter.dims(node.attributes.sizes)], {
      attributes: { axis: node.attributes.axis },
      outputs: node.outputs.length,
    }),
  pad: ({ node: { attributes, inputs: tensors }, inputs, emitter }) => {
    const { padding, value } = attributes;
    const pads = [...padding.map(([before]) => before), ...padding.map(([, after]) => after)];
    return emitter.emit("Pad", [
      inputs[0]!,
      emitter.ints(pads),
      emitter.scalar(value, tensors[0]!.dtype),
    ]);
  },
  flip,

  gather: ({ node, inputs, emitter }) =>
    emitter.emit("Gather", inputs, { axis: node.attributes.axis }),
  scatterSum,
  oneHot: ({ node, inputs, emitter }) => {
    const { depth, dtype } = node.attributes;
    return oneHot(inputs[0]!, node.inputs[0]!, depth, dataTypes[dtype], emitter);
  },

  conv: throughFloat32(({ node, inputs, emitter }) =>
    emitter.emit("Conv", inputs, convAttributes(node)),
  ),
  convTranspose: throughFloat32(({ node, inputs, emitter }) =>
    emitter.emit("ConvTranspose", inputs, {
      ...convAttributes(node),
      output_padding: node.attributes.outputPadding,
    }),
  ),
  upsampleNearest: throughFloat32(({ node, inputs, emitter }) => {
    const scales = [1, 1, ...node.attributes.scale];
    return emitter.emit(
      "Resize",
      [inputs[0]!, "", emitter.constant(ndarray("float32", [scales.length], scales))],
      {
        mode: "nearest",
        coordinate_transformation_mode: "asymmetric",
        nearest_mode: "floor",
      },
    );
  }),

  layerNorm,
  rmsNorm,
  groupNorm: throughFloat32(groupNorm),
  attention: throughFloat32(attention),

  recompute: () => {
    throw new Error("recompute nodes are inlined by simplify before a graph is lowered");
  },
  barrier,
};
