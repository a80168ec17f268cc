/** Output types of the ops that combine many numbers: reductions, products, convolutions, norms and attention. */
import {
  at,
  broadcastOrFail,
  dimAt,
  fail,
  type InferRule,
  type InferRules,
  requireCount,
  requireCounts,
  requireDtype,
  requireFloat,
  requireRank,
  requireSameDtype,
  requireType,
  scale,
  spatialSize,
  type TensorType,
} from "./infer-checks.ts";
import type { CombineName, ConvAttributes } from "./ops.ts";
import {
  type Dim,
  factorOf,
  broadcast,
  formatDim,
  formatShape,
  isStatic,
  normalizeAxis,
  sameShape,
  type Shape,
} from "./shape.ts";

const reduce: InferRule<"sum" | "mean" | "max"> = (inputs, { axes, keepDims }) => {
  const x = at(inputs, 0);
  if (x.dtype === "bool") fail("expected numbers, got bool; cast first");
  const reduced = new Set(axes.map((axis) => normalizeAxis(axis, x.shape.length)));
  if (reduced.size !== axes.length) fail(`axes [${axes.join(", ")}] contain an axis twice`);
  const shape = keepDims
    ? x.shape.map((dim, axis) => (reduced.has(axis) ? 1 : dim))
    : x.shape.filter((_, axis) => !reduced.has(axis));
  return [{ shape, dtype: x.dtype }];
};

const argument: InferRule<"argmax" | "argmin"> = (inputs, { axis }) => {
  const { shape } = at(inputs, 0);
  const reduced = normalizeAxis(axis, shape.length);
  return [{ shape: shape.filter((_, other) => other !== reduced), dtype: "int64" }];
};

const alongAxis: InferRule<"softmax" | "logSoftmax"> = (inputs, { axis }) => {
  const x = requireFloat(at(inputs, 0));
  normalizeAxis(axis, x.shape.length);
  return [x];
};

/** Returns the spatial sizes of a convolution's output. */
function convSpatial(
  size: readonly Dim[],
  kernel: readonly Dim[],
  { stride, padding, dilation }: ConvAttributes,
): Dim[] {
  return size.map(spatialSize).map((dim, i) => {
    const [before, after] = padding[i]!;
    const window = (spatialSize(kernel[i]!) - 1) * dilation[i]! + 1;
    const count = Math.floor((dim + before + after - window) / stride[i]!) + 1;
    return count > 0
      ? count
      : fail(
          `a window of ${window} does not fit into ${dim} pixels padded by ${before} and ${after}`,
        );
  });
}

function checkConv(inputs: readonly TensorType[], attributes: ConvAttributes): void {
  const [x, weight] = [requireFloat(at(inputs, 0)), at(inputs, 1)];
  requireSameDtype(x, weight);
  const spatial = x.shape.length - 2;
  if (spatial < 1 || spatial > 3 || weight.shape.length !== x.shape.length) {
    fail(
      `${formatShape(x.shape)} and weight ${formatShape(weight.shape)}: expected both to have 3, 4 or 5 dimensions`,
    );
  }
  const { stride, padding, dilation, groups } = attributes;
  requireCounts("stride", stride, spatial, 1);
  requireCounts("dilation", dilation, spatial, 1);
  requireCounts(
    "padding",
    padding.map(([before]) => before),
    spatial,
    0,
  );
  requireCounts(
    "padding",
    padding.map(([, after]) => after),
    spatial,
    0,
  );
  requireCount("groups", groups);
}

export const reduceRules: Pick<InferRules, CombineName> = {
  sum: reduce,
  mean: (inputs, attributes) => {
    requireFloat(at(inputs, 0));
    return reduce(inputs, attributes);
  },
  max: reduce,
  extent: (inputs, { axes }) => {
    const x = requireFloat(at(inputs, 0));
    for (const axis of axes) normalizeAxis(axis, x.shape.length);
    return [{ shape: [], dtype: x.dtype }];
  },
  argmax: argument,
  argmin: argument,
  cumsum: (inputs, { axis }) => {
    const x = at(inputs, 0);
    if (x.dtype === "bool") fail("expected numbers, got bool; cast first");
    normalizeAxis(axis, x.shape.length);
    return [x];
  },
  softmax: alongAxis,
  logSoftmax: alongAxis,

  matmul: (inputs, { transposeA, transposeB }) => {
    const [a, b] = [requireFloat(at(inputs, 0)), at(inputs, 1)];
    const dtype = requireSameDtype(a, b);
    requireRank(a, 2);
    requireRank(b, 2);
    const [rows, innerA] = transposeA
      ? [dimAt(a.shape, -1), dimAt(a.shape, -2)]
      : [dimAt(a.shape, -2), dimAt(a.shape, -1)];
    const [innerB, columns] = transposeB
      ? [dimAt(b.shape, -1), dimAt(b.shape, -2)]
      : [dimAt(b.shape, -2), dimAt(b.shape, -1)];
    if (innerA !== innerB) {
      fail(
        `${formatShape(a.shape)}${transposeA ? "ᵀ" : ""} × ${formatShape(b.shape)}${transposeB ? "ᵀ" : ""}: ` +
          `inner sizes ${formatDim(innerA)} and ${formatDim(innerB)} differ`,
      );
    }
    const leading = broadcastOrFail(a.shape.slice(0, -2), b.shape.slice(0, -2));
    return [{ shape: [...leading, rows, columns], dtype }];
  },
  linear: (inputs) => {
    const [x, weight, bias] = [requireFloat(at(inputs, 0)), at(inputs, 1), inputs[2]];
    requireSameDtype(x, weight);
    requireRank(x, 1);
    if (weight.shape.length !== 2)
      fail(`weight is ${formatShape(weight.shape)}, expected [out, in]`);
    const [outputs, inner] = [weight.shape[0]!, weight.shape[1]!];
    if (dimAt(x.shape, -1) !== inner) {
      fail(
        `${formatShape(x.shape)} × weight ${formatShape(weight.shape)}: ` +
          `the last size ${formatDim(dimAt(x.shape, -1))} is not the weight's ${formatDim(inner)}`,
      );
    }
    requireType("bias", bias, { shape: [outputs], dtype: x.dtype });
    return [{ shape: [...x.shape.slice(0, -1), outputs], dtype: x.dtype }];
  },
  quantizeRows: (inputs) => {
    const { shape } = requireDtype(at(inputs, 0), "float32");
    requireRank({ shape, dtype: "float32" }, 1);
    return [
      { shape, dtype: "uint8" },
      { shape: [...shape.slice(0, -1), 1], dtype: "float32" },
    ];
  },
  quantizedLinear: (inputs) => {
    const [q, weight] = [requireDtype(at(inputs, 0), "uint8"), requireDtype(at(inputs, 2), "int8")];
    requireRank(q, 1);
    const leading = q.shape.slice(0, -1);
    requireType("scale", at(inputs, 1), { shape: [...leading, 1], dtype: "float32" });
    if (weight.shape.length !== 2 || weight.shape[0] !== dimAt(q.shape, -1)) {
      fail(
        `weight is ${formatShape(weight.shape)}, expected [in, out] for ${formatShape(q.shape)}`,
      );
    }
    const row = { shape: [weight.shape[1]!], dtype: "float32" } as const;
    requireType("weightScale", at(inputs, 3), row);
    requireType("bias", inputs[4], row);
    return [{ shape: [...leading, weight.shape[1]!], dtype: "float32" }];
  },

  conv: (inputs, attributes) => {
    checkConv(inputs, attributes);
    const [x, weight, bias] = [at(inputs, 0), at(inputs, 1), inputs[2]];
    const [channels, outputs] = [x.shape[1]!, weight.shape[0]!];
    const { groups } = attributes;
    if (channels !== scale(weight.shape[1]!, groups) || factorOf(outputs) % groups !== 0) {
      fail(
        `${formatShape(x.shape)} with weight ${formatShape(weight.shape)} in ${groups} groups: ` +
          `expected ${formatDim(channels)} = ${groups} × ${formatDim(weight.shape[1]!)} channels, and outputs divisible by ${groups}`,
      );
    }
    requireType("bias", bias, { shape: [outputs], dtype: x.dtype });
    const spatial = convSpatial(x.shape.slice(2), weight.shape.slice(2), attributes);
    return [{ shape: [x.shape[0]!, outputs, ...spatial], dtype: x.dtype }];
  },
  convTranspose: (inputs, attributes) => {
    checkConv(inputs, attributes);
    const [x, weight, bias] = [at(inputs, 0), at(inputs, 1), inputs[2]];
    const { stride, padding, dilation, groups, outputPadding } = attributes;
    requireCounts("output padding", outputPadding, x.shape.length - 2, 0);
    if (x.shape[1] !== weight.shape[0] || factorOf(x.shape[1]!) % groups !== 0) {
      fail(
        `${formatShape(x.shape)} with weight ${formatShape(weight.shape)} in ${groups} groups: ` +
          `expected ${formatDim(x.shape[1]!)} channels in both, divisible by ${groups}`,
      );
    }
    const outputs = scale(weight.shape[1]!, groups);
    requireType("bias", bias, { shape: [outputs], dtype: x.dtype });
    const spatial = x.shape
      .slice(2)
      .map(spatialSize)
      .map((dim, i) => {
        const [before, after] = padding[i]!;
        const window = (spatialSize(weight.shape[i + 2]!) - 1) * dilation[i]! + 1;
        const extra = outputPadding[i]!;
        if (extra >= Math.max(stride[i]!, dilation[i]!)) {
          fail(
            `output padding ${extra} is not below stride ${stride[i]} or dilation ${dilation[i]}`,
          );
        }
        const size = (dim - 1) * stride[i]! + window - before - after + extra;
        return size > 0
          ? size
          : fail(
              `${dim} pixels under a window of ${window} leave nothing within padding ${before} and ${after}`,
            );
      });
    return [{ shape: [x.shape[0]!, outputs, ...spatial], dtype: x.dtype }];
  },
  layerNorm: (inputs) => {
    const [x, weight, bias] = [requireFloat(at(inputs, 0)), inputs[1], inputs[2]];
    requireRank(x, 1);
    const last = dimAt(x.shape, -1);
    requireType("weight", weight, { shape: [last], dtype: x.dtype });
    requireType("bias", bias, { shape: [last], dtype: x.dtype });
    const statistics = { shape: [...x.shape.slice(0, -1), 1], dtype: x.dtype };
    return [x, statistics, statistics];
  },
  rmsNorm: (inputs) => {
    const [x, weight] = [requireFloat(at(inputs, 0)), inputs[1]];
    requireRank(x, 1);
    requireType("weight", weight, { shape: [dimAt(x.shape, -1)], dtype: x.dtype });
    return [x, { shape: [...x.shape.slice(0, -1), 1], dtype: x.dtype }];
  },
  groupNorm: (inputs, { groups }) => {
    const x = requireFloat(at(inputs, 0));
    requireRank(x, 3);
    requireCount("groups", groups);
    if (!isStatic(x.shape.slice(1)) || factorOf(x.shape[1]!) % groups !== 0) {
      fail(`the channels of ${formatShape(x.shape)} do not divide into ${groups} groups`);
    }
    return [x];
  },

  attention: (inputs, { heads }) => {
    const [q, k, v, bias] = [requireFloat(at(inputs, 0)), at(inputs, 1), at(inputs, 2), inputs[3]];
    requireCount("heads", heads);
    for (const x of [q, k, v]) {
      requireSameDtype(q, x);
      if (x.shape.length !== 3 || factorOf(x.shape[2]!) % heads !== 0) {
        fail(`${formatShape(x.shape)}: expected [batch, tokens, heads · size] with ${heads} heads`);
      }
    }
    if (
      !sameShape(k.shape.slice(0, 2), v.shape.slice(0, 2)) ||
      q.shape[0] !== k.shape[0] ||
      q.shape[2] !== k.shape[2]
    ) {
      fail(
        `q ${formatShape(q.shape)}, k ${formatShape(k.shape)} and v ${formatShape(v.shape)} do not fit`,
      );
    }
    const scores: Shape = [q.shape[0]!, heads, q.shape[1]!, k.shape[1]!];
    if (bias) {
      requireSameDtype(q, bias);
      const result = broadcast(scores, bias.shape);
      if (!result || !sameShape(result, scores)) {
        fail(`bias ${formatShape(bias.shape)} does not broadcast to ${formatShape(scores)}`);
      }
    }
    return [
      { shape: [q.shape[0]!, q.shape[1]!, v.shape[2]!], dtype: q.dtype },
      { shape: scores, dtype: q.dtype },
    ];
  },
};
