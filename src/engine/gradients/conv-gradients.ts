/** Gradients of convolutions, built as more graph. */
import { concat } from "../graph/functional.ts";
import type { ConvAttributes } from "../graph/ops.ts";
import { factorOf, product, quotient } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";

/**
 * The weight gradient of a convolution, computed as a convolution in which channels and batch swap places, as do stride and dilation.
 *
 * @param x [N, C, ...], @param dy [N, O, ...] → [O, C/groups, ...kernel]
 */
function convWeightGradient(
  x: Tensor,
  dy: Tensor,
  kernel: readonly number[],
  a: ConvAttributes,
): Tensor {
  if (isPlain(x, dy, kernel, a)) return plainWeightGradient(x, dy, kernel, a);
  const spatial = kernel.map((_, i) => i + 2);
  const n = x.dim(0);
  // If a backward pass is differentiated again, the channels may be the batch.
  const perGroup = quotient(x.dim(1), a.groups)!;
  const images = x
    .reshape([n, a.groups, perGroup, ...x.shape.slice(2)])
    .transpose([2, 1, 0, ...spatial.map((axis) => axis + 1)]);
  const folded = images.reshape([perGroup, product([a.groups, n])!, ...x.shape.slice(2)]);
  const filters = dy.transpose([1, 0, ...spatial]);
  const wide = folded.conv(filters, undefined, { ...a, stride: a.dilation, dilation: a.stride });
  const cropped = kernel.reduce((t, size, i) => cropTo(t, i + 2, size), wide);
  return cropped.transpose([1, 0, ...spatial]);
}

/** Returns true if the part of the image that each kernel position reads has a size that is known now. */
function isPlain(x: Tensor, dy: Tensor, kernel: readonly number[], a: ConvAttributes): boolean {
  const sizes = [x, dy].flatMap(({ shape }) => shape.slice(1));
  return kernel.length === 2 && a.groups === 1 && sizes.every((size) => typeof size === "number");
}

/** The same gradient as one matrix product for each kernel position and image, which takes half the time. */
function plainWeightGradient(
  x: Tensor,
  dy: Tensor,
  [tall, wide]: readonly number[],
  { padding, stride, dilation }: ConvAttributes,
): Tensor {
  const [inputs, outputs, height, width] = [x.size(1), dy.size(1), dy.size(2), dy.size(3)];
  const places = height * width;
  const n = x.dim(0);
  const slopes = dy.reshape([n, outputs, places]);
  const images = x.pad([[0, 0], [0, 0], ...padding]);
  const taps = [...new Array(tall! * wide!).keys()].map((tap) => {
    const [i, j] = [Math.floor(tap / wide!), tap % wide!];
    const shifted = [i, j].reduce((seen, place, axis) => {
      const start = place * dilation[axis]!;
      const reach = ([height, width][axis]! - 1) * stride[axis]! + 1;
      return seen.slice(axis + 2, start, start + reach, stride[axis]);
    }, images);
    return slopes
      .matmul(shifted.reshape([n, inputs, places]), { transposeB: true })
      .sum(0)
      .reshape([outputs, inputs, 1]);
  });
  return concat(taps, 2).reshape([outputs, inputs, tall!, wide!]);
}

/** Returns the first `size` elements of an axis. */
const cropTo = (x: Tensor, axis: number, size: number) =>
  x.size(axis) === size ? x : x.slice(axis, 0, size);

const sumOverImages = (g: Tensor) =>
  g.sum(g.shape.map((_, axis) => axis).filter((axis) => axis !== 1));

const kernelOf = (weight: Tensor) => weight.shape.slice(2).map(factorOf);

/** Returns the gradients of a convolution with respect to x, the weight and, if there is one, the bias. */
export function convGradients(
  dy: Tensor,
  inputs: readonly Tensor[],
  attributes: ConvAttributes,
): (Tensor | null)[] {
  const [x, weight, bias] = inputs as [Tensor, Tensor, Tensor | undefined];
  const { stride, padding, dilation } = attributes;
  const kernel = kernelOf(weight);
  const outputPadding = kernel.map((size, i) => {
    const reached = (dy.size(i + 2) - 1) * stride[i]! + (size - 1) * dilation[i]! + 1;
    return x.size(i + 2) + padding[i]![0] + padding[i]![1] - reached;
  });
  const dx = dy.convTranspose(weight, undefined, { ...attributes, outputPadding });
  return [dx, convWeightGradient(x, dy, kernel, attributes), bias ? sumOverImages(dy) : null];
}

/** Returns the gradients of a transposed convolution with respect to x, the weight and, if there is one, the bias. */
export function convTransposeGradients(
  g: Tensor,
  inputs: readonly Tensor[],
  attributes: ConvAttributes,
): (Tensor | null)[] {
  const [x, weight, bias] = inputs as [Tensor, Tensor, Tensor | undefined];
  const spread = g.conv(weight, undefined, attributes);
  // Output padding of a whole stride or more, which is allowed up to the dilation, makes room for additional windows.
  const dx = kernelOf(weight).reduce((t, _, i) => cropTo(t, i + 2, x.size(i + 2)), spread);
  const dWeight = convWeightGradient(g, x, kernelOf(weight), attributes);
  return [dx, dWeight, bias ? sumOverImages(g) : null];
}
