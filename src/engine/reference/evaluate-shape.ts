/** Reference implementations of ops that move numbers without changing them. */
import { ShapeError } from "../errors.ts";
import type { MoveName } from "../graph/ops.ts";
import {
  aroundAxis,
  at,
  blank,
  type EvaluateRules,
  expandTo,
  offsets,
  transposed,
  type Value,
  view,
} from "./evaluate-values.ts";
import { sizeOf, stridesOf } from "../arrays/ndarray.ts";

/** Takes the elements start, start + step, … of every axis, as many as the shape has. */
function strided(
  x: Value,
  shape: readonly number[],
  starts: readonly number[],
  steps: readonly number[],
): Value {
  const strides = stridesOf(x.shape);
  const start = strides.reduce((sum, stride, axis) => sum + stride * starts[axis]!, 0);
  return view(
    x,
    shape,
    strides.map((stride, axis) => stride * steps[axis]!),
    start,
  );
}

const replaced = (shape: readonly number[], axis: number, size: number) =>
  shape.map((dim, i) => (i === axis ? size : dim));

/** Throws a ShapeError unless the index is a whole number in [0, size). */
function checkIndex(op: string, index: number, size: number): number {
  if (index >= 0 && index < size) return index;
  throw new ShapeError(`${op}: the index ${index} is outside of [0, ${size}).`);
}

export const shapeRules: Pick<EvaluateRules, MoveName> = {
  reshape: (inputs, { shape }, { resolve }) => [
    { shape: resolve(shape), data: at(inputs, 0).data },
  ],
  transpose: (inputs, { permutation }) => [transposed(at(inputs, 0), permutation)],
  expand: (inputs, { shape }, { resolve }) => [expandTo(at(inputs, 0), resolve(shape))],

  concat: (inputs, { axis }) => {
    const total = inputs.reduce((size, x) => size + x.shape[axis]!, 0);
    const y = blank(replaced(at(inputs, 0).shape, axis, total));
    const { outer } = aroundAxis(y.shape, axis);
    let position = 0;
    for (let o = 0; o < outer; o++) {
      for (const x of inputs) {
        const length = x.data.length / outer;
        y.data.set(x.data.subarray(o * length, (o + 1) * length), position);
        position += length;
      }
    }
    return [y];
  },
  slice: (inputs, { starts, ends, steps }, { resolve }) => {
    const shape = resolve(ends).map((end, i) => Math.ceil((end - starts[i]!) / steps[i]!));
    return [strided(at(inputs, 0), shape, starts, steps)];
  },
  split: (inputs, { axis, sizes }, { resolve }) => {
    const x = at(inputs, 0);
    const steps = x.shape.map(() => 1);
    let start = 0;
    return resolve(sizes).map((size) => {
      const starts = x.shape.map((_, i) => (i === axis ? start : 0));
      start += size;
      return strided(x, replaced(x.shape, axis, size), starts, steps);
    });
  },
  pad: (inputs, { padding, value }) => {
    const x = at(inputs, 0);
    const y = blank(x.shape.map((dim, i) => dim + padding[i]![0] + padding[i]![1]));
    const strides = stridesOf(y.shape);
    const start = strides.reduce((sum, stride, axis) => sum + stride * padding[axis]![0], 0);
    y.data.fill(value);
    for (const [i, position] of offsets(x.shape, strides, start).entries()) {
      y.data[position] = x.data[i]!;
    }
    return [y];
  },
  flip: (inputs, { axes }) => {
    const x = at(inputs, 0);
    const flipped = x.shape.map((_, axis) => axes.includes(axis));
    const starts = x.shape.map((dim, axis) => (flipped[axis] ? dim - 1 : 0));
    return [
      strided(
        x,
        x.shape,
        starts,
        flipped.map((back) => (back ? -1 : 1)),
      ),
    ];
  },

  gather: (inputs, { axis }) => {
    const [x, indices] = [at(inputs, 0), at(inputs, 1)];
    const { outer, size, inner } = aroundAxis(x.shape, axis);
    const y = blank([...x.shape.slice(0, axis), ...indices.shape, ...x.shape.slice(axis + 1)]);
    const count = indices.data.length;
    for (let o = 0; o < outer; o++) {
      for (const [i, index] of indices.data.entries()) {
        const row = o * size + checkIndex("gather", index, size);
        y.data.set(x.data.subarray(row * inner, (row + 1) * inner), (o * count + i) * inner);
      }
    }
    return [y];
  },
  scatterSum: (inputs, { size }) => {
    const [updates, indices] = [at(inputs, 0), at(inputs, 1)];
    const y = blank([size, ...updates.shape.slice(1)]);
    const length = sizeOf(updates.shape.slice(1));
    for (const [row, index] of indices.data.entries()) {
      const target = checkIndex("scatterSum", index, size) * length;
      for (let i = 0; i < length; i++) y.data[target + i]! += updates.data[row * length + i]!;
    }
    return [y];
  },
  oneHot: (inputs, { depth }) => {
    const indices = at(inputs, 0);
    const y = blank([...indices.shape, depth]);
    for (const [i, index] of indices.data.entries()) {
      y.data[i * depth + checkIndex("oneHot", index, depth)] = 1;
    }
    return [y];
  },

  upsampleNearest: (inputs, { scale }) => {
    const x = at(inputs, 0);
    const strides = stridesOf(x.shape);
    // [N, C, H, W] is read as [N, C, H, s, W, s], where the axes s have stride 0.
    const copies = (axis: number) => (axis < 2 ? [] : [scale[axis - 2]!]);
    const repeated = view(
      x,
      x.shape.flatMap((dim, axis) => [dim, ...copies(axis)]),
      strides.flatMap((stride, axis) => [stride, ...copies(axis).map(() => 0)]),
    );
    return [{ shape: x.shape.map((dim, i) => dim * (scale[i - 2] ?? 1)), data: repeated.data }];
  },
  barrier: (inputs) => [at(inputs, 0)],
};
