/** Reference implementations of ops that combine many numbers: reductions, products, convolutions, norms and attention. */
import {
  aroundAxis,
  at,
  blank,
  broadcastStrides,
  commonShape,
  type EvaluateRules,
  expandTo,
  linesAlong,
  offsets,
  transposed,
  type Value,
} from "./evaluate-values.ts";
import { roundHalfEven } from "./evaluate-elementwise.ts";
import { sizeOf, stridesOf } from "../arrays/ndarray.ts";
import type { CombineName, ConvAttributes, Ops, ReduceName } from "../graph/ops.ts";

/** Combines the elements along the reduced axes. */
function reduce(
  x: Value,
  { axes, keepDims }: Ops[ReduceName],
  first: number,
  combine: (total: number, value: number) => number,
): Value {
  const kept = x.shape.map((dim, axis) => (axes.includes(axis) ? 1 : dim));
  const targets = offsets(x.shape, broadcastStrides(kept, x.shape));
  const y = blank(keepDims ? kept : x.shape.filter((_, axis) => !axes.includes(axis)));
  y.data.fill(first);
  for (const [i, target] of targets.entries()) {
    y.data[target] = combine(y.data[target]!, x.data[i]!);
  }
  return y;
}

const add = (a: number, b: number) => a + b;

const extent = (x: Value, axes: readonly number[]) => sizeOf(axes.map((axis) => x.shape[axis]!));

/** Returns the position, in each line, of the first element that no other beats. */
function argument(x: Value, axis: number, beats: (a: number, b: number) => boolean): Value {
  const best = linesAlong(x.shape, axis).map((line) =>
    line.reduce((winner, p, i) => (beats(x.data[p]!, x.data[line[winner]!]!) ? i : winner), 0),
  );
  return { shape: x.shape.filter((_, i) => i !== axis), data: Float64Array.from(best) };
}

/** Returns exp(x − largest) for a line, which cannot overflow, and the sum. */
function shiftedExponents(x: Value, line: readonly number[]) {
  const largest = line.reduce((max, p) => Math.max(max, x.data[p]!), -Infinity);
  const exponents = line.map((p) => Math.exp(x.data[p]! - largest));
  return { largest, exponents, total: exponents.reduce(add, 0) };
}

function softmax(x: Value, axis: number): Value {
  const y = blank(x.shape);
  for (const line of linesAlong(x.shape, axis)) {
    const { exponents, total } = shiftedExponents(x, line);
    for (const [i, p] of line.entries()) y.data[p] = exponents[i]! / total;
  }
  return y;
}

function logSoftmax(x: Value, axis: number): Value {
  const y = blank(x.shape);
  for (const line of linesAlong(x.shape, axis)) {
    const { largest, total } = shiftedExponents(x, line);
    for (const p of line) y.data[p] = x.data[p]! - largest - Math.log(total);
  }
  return y;
}

function swapLastAxes(x: Value): Value {
  const axes = x.shape.map((_, axis) => axis);
  return transposed(x, [...axes.slice(0, -2), axes.at(-1)!, axes.at(-2)!]);
}

/** [..., m, k] × [..., k, n] → [..., m, n] */
function matmul(a: Value, b: Value): Value {
  const leading = commonShape(a.shape.slice(0, -2), b.shape.slice(0, -2));
  const [m, k, n] = [a.shape.at(-2)!, a.shape.at(-1)!, b.shape.at(-1)!];
  const [left, right] = [expandTo(a, [...leading, m, k]), expandTo(b, [...leading, k, n])];
  const y = blank([...leading, m, n]);
  for (let batch = 0; batch < sizeOf(leading); batch++) {
    for (let i = 0; i < m; i++) {
      for (let j = 0; j < n; j++) {
        let total = 0;
        for (let p = 0; p < k; p++) {
          total += left.data[(batch * m + i) * k + p]! * right.data[(batch * k + p) * n + j]!;
        }
        y.data[(batch * m + i) * n + j] = total;
      }
    }
  }
  return y;
}

/**
 * Returns the pixel that each kernel position of a convolution reads for each output position; −1 in the padding.
 *
 * @returns [positions][taps]
 */
function windows(
  size: readonly number[],
  kernel: readonly number[],
  outputs: readonly number[],
  { stride, padding, dilation }: ConvAttributes,
): number[][] {
  const strides = stridesOf(size);
  const taps = allIndices(kernel);
  return allIndices(outputs).map((position) =>
    taps.map((tap) => {
      const pixel = size.map(
        (_, i) => position[i]! * stride[i]! + tap[i]! * dilation[i]! - padding[i]![0],
      );
      const inside = pixel.every((p, i) => p >= 0 && p < size[i]!);
      return inside ? pixel.reduce((sum, p, i) => sum + p * strides[i]!, 0) : -1;
    }),
  );
}

/** Returns every index into a shape, in row-major order. */
function allIndices(shape: readonly number[]): number[][] {
  return shape.reduce<number[][]>(
    (indices, size) =>
      indices.flatMap((index) => Array.from({ length: size }, (_, i) => [...index, i])),
    [[]],
  );
}

const convRule: EvaluateRules["conv"] = (inputs, attributes) => {
  const [x, weight, bias] = [at(inputs, 0), at(inputs, 1), inputs[2]];
  const { stride, padding, dilation, groups } = attributes;
  const [images, channels, ...size] = x.shape as [number, number, ...number[]];
  const [outputs, perGroup, ...kernel] = weight.shape as [number, number, ...number[]];
  const outputSize = size.map((dim, i) => {
    const room = dim + padding[i]![0] + padding[i]![1] - (kernel[i]! - 1) * dilation[i]! - 1;
    return Math.floor(room / stride[i]!) + 1;
  });
  const reads = windows(size, kernel, outputSize, attributes);
  const [area, taps] = [sizeOf(size), sizeOf(kernel)];
  const y = blank([images, outputs, ...outputSize]);
  for (let image = 0; image < images; image++) {
    for (let o = 0; o < outputs; o++) {
      const firstChannel = Math.floor(o / (outputs / groups)) * perGroup;
      for (const [position, pixels] of reads.entries()) {
        let total = bias ? bias.data[o]! : 0;
        for (let c = 0; c < perGroup; c++) {
          const [plane, filter] = [image * channels + firstChannel + c, o * perGroup + c];
          for (const [tap, pixel] of pixels.entries()) {
            if (pixel < 0) continue;
            total += x.data[plane * area + pixel]! * weight.data[filter * taps + tap]!;
          }
        }
        y.data[(image * outputs + o) * reads.length + position] = total;
      }
    }
  }
  return [y];
};

/** Adds, for every pixel, its multiple of the kernel to the outputs that a convolution would have read for it. */
const convTransposeRule: EvaluateRules["convTranspose"] = (inputs, attributes) => {
  const [x, weight, bias] = [at(inputs, 0), at(inputs, 1), inputs[2]];
  const { stride, padding, dilation, groups, outputPadding } = attributes;
  const [images, channels, ...size] = x.shape as [number, number, ...number[]];
  const [, perGroup, ...kernel] = weight.shape as [number, number, ...number[]];
  const outputs = perGroup * groups;
  const outputSize = size.map((dim, i) => {
    const reach = (dim - 1) * stride[i]! + (kernel[i]! - 1) * dilation[i]! + 1;
    return reach + outputPadding[i]! - padding[i]![0] - padding[i]![1];
  });
  const writes = windows(outputSize, kernel, size, attributes);
  const [area, taps] = [sizeOf(outputSize), sizeOf(kernel)];
  const y = blank([images, outputs, ...outputSize]);
  for (let plane = 0; plane < images * outputs; plane++) {
    y.data.fill(bias ? bias.data[plane % outputs]! : 0, plane * area, (plane + 1) * area);
  }
  for (let image = 0; image < images; image++) {
    for (let c = 0; c < channels; c++) {
      const firstOutput = Math.floor(c / (channels / groups)) * perGroup;
      for (const [position, pixels] of writes.entries()) {
        const value = x.data[(image * channels + c) * writes.length + position]!;
        for (let o = 0; o < perGroup; o++) {
          const [plane, filter] = [image * outputs + firstOutput + o, c * perGroup + o];
          for (const [tap, pixel] of pixels.entries()) {
            if (pixel < 0) continue;
            y.data[plane * area + pixel]! += value * weight.data[filter * taps + tap]!;
          }
        }
      }
    }
  }
  return [y];
};

/** Normalizes each run of `length` elements by its mean and standard deviation, and returns both statistics too. */
function standardize(x: Value, length: number, epsilon: number) {
  const y = blank(x.shape);
  const means: number[] = [];
  const inverses: number[] = [];
  for (let start = 0; start < x.data.length; start += length) {
    const row = x.data.subarray(start, start + length);
    const mean = row.reduce(add, 0) / length;
    const variance = row.reduce((sum, value) => sum + (value - mean) ** 2, 0) / length;
    const inverse = 1 / Math.sqrt(variance + epsilon);
    for (const [i, value] of row.entries()) y.data[start + i] = (value - mean) * inverse;
    means.push(mean);
    inverses.push(inverse);
  }
  return { y, means: Float64Array.from(means), inverses: Float64Array.from(inverses) };
}

/** Computes y · weight + bias along the last axis. */
function affine(y: Value, weight: Value | undefined, bias: Value | undefined): Value {
  const last = y.shape.at(-1)!;
  const scale = (i: number) => (weight ? weight.data[i % last]! : 1);
  const shift = (i: number) => (bias ? bias.data[i % last]! : 0);
  return { shape: y.shape, data: y.data.map((value, i) => value * scale(i) + shift(i)) };
}

const attentionRule: EvaluateRules["attention"] = (inputs, { heads, scale }) => {
  const [q, k, v, bias] = [at(inputs, 0), at(inputs, 1), at(inputs, 2), inputs[3]];
  // [batch, tokens, heads · size] → [batch, heads, tokens, size]
  const separate = ({ shape: [batch, tokens, width], data }: Value) =>
    transposed({ shape: [batch!, tokens!, heads, width! / heads], data }, [0, 2, 1, 3]);
  const product = matmul(separate(q), swapLastAxes(separate(k)));
  const added = bias && expandTo(bias, product.shape).data;
  const scores = product.data.map((value, i) => value * scale + (added ? added[i]! : 0));
  const p = softmax({ shape: product.shape, data: scores }, 3);
  const mixed = transposed(matmul(p, separate(v)), [0, 2, 1, 3]);
  return [{ shape: [...q.shape.slice(0, 2), v.shape[2]!], data: mixed.data }, p];
};

export const reduceRules: Pick<EvaluateRules, CombineName> = {
  sum: (inputs, attributes) => [reduce(at(inputs, 0), attributes, 0, add)],
  mean: (inputs, attributes) => {
    const { shape, data } = reduce(at(inputs, 0), attributes, 0, add);
    const count = extent(at(inputs, 0), attributes.axes);
    return [{ shape, data: data.map((total) => total / count) }];
  },
  max: (inputs, attributes) => [reduce(at(inputs, 0), attributes, -Infinity, Math.max)],
  extent: (inputs, { axes }) => [{ shape: [], data: Float64Array.of(extent(at(inputs, 0), axes)) }],
  argmax: (inputs, { axis }) => [argument(at(inputs, 0), axis, (a, b) => a > b)],
  argmin: (inputs, { axis }) => [argument(at(inputs, 0), axis, (a, b) => a < b)],
  cumsum: (inputs, { axis, reverse }) => {
    const x = at(inputs, 0);
    const y = blank(x.shape);
    for (const line of linesAlong(x.shape, axis)) {
      let total = 0;
      for (const p of reverse ? line.toReversed() : line) {
        total += x.data[p]!;
        y.data[p] = total;
      }
    }
    return [y];
  },
  softmax: (inputs, { axis }) => [softmax(at(inputs, 0), axis)],
  logSoftmax: (inputs, { axis }) => [logSoftmax(at(inputs, 0), axis)],

  matmul: (inputs, { transposeA, transposeB }) => {
    const [a, b] = [at(inputs, 0), at(inputs, 1)];
    return [matmul(transposeA ? swapLastAxes(a) : a, transposeB ? swapLastAxes(b) : b)];
  },
  linear: (inputs) => {
    const [x, weight] = [at(inputs, 0), at(inputs, 1)];
    const { outer: rows, size } = aroundAxis(x.shape, x.shape.length - 1);
    const { data } = matmul({ shape: [rows, size], data: x.data }, swapLastAxes(weight));
    const y = { shape: [...x.shape.slice(0, -1), weight.shape[0]!], data };
    return [affine(y, undefined, inputs[2])];
  },
  quantizeRows: (inputs) => {
    const x = at(inputs, 0);
    const { outer: rows, size } = aroundAxis(x.shape, x.shape.length - 1);
    const scales = Float64Array.from({ length: rows }, (_, row) => {
      const magnitudes = x.data.subarray(row * size, (row + 1) * size).map(Math.abs);
      return magnitudes.reduce((most, value) => Math.max(most, value), 0) / 127;
    });
    const data = x.data.map((value, i) => {
      const scale = scales[Math.floor(i / size)]!;
      return scale === 0 ? 128 : roundHalfEven(value / scale) + 128;
    });
    return [
      { shape: x.shape, data },
      { shape: [...x.shape.slice(0, -1), 1], data: scales },
    ];
  },
  quantizedLinear: (inputs) => {
    const [q, scale, weight] = [at(inputs, 0), at(inputs, 1), at(inputs, 2)];
    const { outer: rows, size } = aroundAxis(q.shape, q.shape.length - 1);
    const outputs = weight.shape[1]!;
    const centred = { shape: [rows, size], data: q.data.map((value) => value - 128) };
    const sums = matmul(centred, weight);
    const data = sums.data.map((value, i) => value * scale.data[Math.floor(i / outputs)]!);
    const y = { shape: [...q.shape.slice(0, -1), outputs], data };
    return [affine(y, at(inputs, 3), inputs[4])];
  },

  conv: convRule,
  convTranspose: convTransposeRule,

  layerNorm: (inputs, { epsilon }) => {
    const x = at(inputs, 0);
    const { y, means, inverses } = standardize(x, x.shape.at(-1)!, epsilon);
    const shape = [...x.shape.slice(0, -1), 1];
    return [affine(y, inputs[1], inputs[2]), { shape, data: means }, { shape, data: inverses }];
  },
  rmsNorm: (inputs, { epsilon }) => {
    const x = at(inputs, 0);
    const { outer: rows, size } = aroundAxis(x.shape, x.shape.length - 1);
    const inverses = Float64Array.from({ length: rows }, (_, row) => {
      const squares = x.data.subarray(row * size, (row + 1) * size).map((value) => value ** 2);
      return 1 / Math.sqrt(squares.reduce(add, 0) / size + epsilon);
    });
    const y = x.data.map((value, i) => value * inverses[Math.floor(i / size)]!);
    const shape = [...x.shape.slice(0, -1), 1];
    return [affine({ shape: x.shape, data: y }, inputs[1], undefined), { shape, data: inverses }];
  },
  groupNorm: (inputs, { groups, epsilon }) => {
    const x = at(inputs, 0);
    return [standardize(x, sizeOf(x.shape.slice(1)) / groups, epsilon).y];
  },

  attention: attentionRule,
};
