/**
 * Pooling and pixel shuffling of [N, C, ...space], built from other ops. A pool combines the strided slices of its window, so
 * gradients of any order follow.
 */
import { ShapeError } from "../errors.ts";
import { perAxis } from "./ops.ts";
import { formatShape } from "./shape.ts";
import type { Tensor } from "./tensor.ts";

/** Options of a convolution or a pool; each is one number for all spatial axes, or one for each. */
export interface PoolOptions {
  /** Height and width of the window in pixels, or one number for both, from 1. */
  readonly kernel: number | readonly number[];
  /** The kernel's size by default. */
  readonly stride?: number | readonly number[];
  /** Pixels added on both sides. They are −∞ in a maximum and 0 in a mean. */
  readonly padding?: number | readonly number[];
}

/** Takes the largest pixel of each window. The gradient of equal pixels goes to the first, as in PyTorch. */
export function maxPool(x: Tensor, options: PoolOptions): Tensor {
  return windows(x, options, Number.NEGATIVE_INFINITY).reduce((a, b) => a.maximum(b));
}

/** Takes the mean of each window, including the padding. */
export function averagePool(x: Tensor, options: PoolOptions): Tensor {
  const pixels = windows(x, options, 0);
  return pixels.reduce((a, b) => a.add(b)).div(pixels.length);
}

/** [N, C·r², H, W] → [N, C, H·r, W·r] (Shi et al., 2016), in PyTorch's order of channels. */
export function pixelShuffle(x: Tensor, factor: number): Tensor {
  return x.rearrange("n (c p q) h w -> n c (h p) (w q)", { p: factor, q: factor });
}

/** [N, C, H·r, W·r] → [N, C·r², H, W]: the inverse of `pixelShuffle`. */
export function pixelUnshuffle(x: Tensor, factor: number): Tensor {
  return x.rearrange("n c (h p) (w q) -> n (c p q) h w", { p: factor, q: factor });
}

/** Returns, for each position in the window, the image of the pixels at that position. */
function windows(x: Tensor, options: PoolOptions, fill: number): Tensor[] {
  const spatial = x.rank - 2;
  const kernel = perAxis(options.kernel, spatial);
  const stride = perAxis(options.stride ?? kernel, spatial);
  const padding = perAxis(options.padding ?? 0, spatial);
  if ([kernel, stride, padding].some(({ length }) => length !== spatial) || spatial < 1) {
    throw new ShapeError(
      `pool: ${formatShape(x.shape)} needs a kernel, a stride and a padding for each of its ${spatial} spatial axes.`,
    );
  }
  const pairs = padding.map((size) => [size, size] as const);
  const padded = x.pad([[0, 0], [0, 0], ...pairs], fill);
  return kernel.reduce<Tensor[]>(
    (slices, size, i) => {
      const count = Math.floor((padded.size(i + 2) - size) / stride[i]!) + 1;
      if (!(count > 0)) {
        throw new ShapeError(
          `pool: a window of ${size} does not fit into axis ${i + 2} of ${formatShape(padded.shape)}.`,
        );
      }
      const reach = (count - 1) * stride[i]! + 1;
      return slices.flatMap((slice) =>
        Array.from({ length: size }, (_, at) => slice.slice(i + 2, at, at + reach, stride[i])),
      );
    },
    [padded],
  );
}
