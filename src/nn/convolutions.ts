/** Layers of convolutional networks, on feature maps [B, C, H, W]. */
import { ShapeError } from "../engine/errors.ts";
import type { ConvOptions } from "../engine/graph/ops.ts";
import { concat } from "../engine/graph/functional.ts";
import type { Tensor } from "../engine/graph/tensor.ts";
import { type Init, type Params, xavierUniform, zero } from "./params.ts";

/** Moves the channels to the end: [B, C, H, W] → [B, H, W, C]. */
export const channelsLast = (x: Tensor): Tensor => x.transpose([0, 2, 3, 1]);

/** Moves the channels to the front: [B, H, W, C] → [B, C, H, W]. */
export const channelsFirst = (x: Tensor): Tensor => x.transpose([0, 3, 1, 2]);

/** A LayerNorm over the channels of each pixel, without scale and shift. */
export function channelNorm(x: Tensor): Tensor {
  return channelsFirst(channelsLast(x).layerNorm({ epsilon: 1e-6 }));
}

/**
 * Pads each edge by one row or column, which repeats the outermost ("replicate") or the one next to it ("reflect").
 *
 * @param x has at least two rows and columns for "reflect"
 */
export function padEdges(x: Tensor, kind: "replicate" | "reflect"): Tensor {
  return [2, 3].reduce((padded, axis) => {
    const size = x.size(axis);
    const inside = kind === "reflect" ? 1 : 0;
    const first = padded.slice(axis, inside, inside + 1);
    const last = padded.slice(axis, size - 1 - inside, size - inside);
    return concat([first, padded, last], axis);
  }, x);
}

/**
 * Checks that feature maps [B, …, H, W] can be reduced by a factor of `unit`.
 *
 * @param least the least number of rows and columns that must remain
 * @param what the name of the maps in messages
 * @throws ShapeError if they cannot
 */
export function checkDivides(x: Tensor, unit: number, least: number, what: string): void {
  const sides = [x.size(-2), x.size(-1)];
  if (sides.every((side) => side % unit === 0 && side >= least * unit)) return;
  throw new ShapeError(
    `${what} of ${sides.join("×")} cannot be made ${unit} times smaller, as this network does; use multiples of ${unit}, at least ${least * unit}.`,
  );
}

/** A transposed convolution that doubles height and width, with a weight [in, outputs, kernel, kernel]. */
export function doublingConv(p: Params, x: Tensor, outputs: number, kernel: 2 | 4): Tensor {
  const shape = [x.size(1), outputs, kernel, kernel];
  const weight = p.param("weight", shape, xavierUniform(shape));
  return x.convTranspose(weight, p.param("bias", [outputs], zero), {
    stride: 2,
    padding: (kernel - 2) / 2,
  });
}

/**
 * A convolution with a square kernel, [B, C, H, W] → [B, outputs, …], with PyTorch's names `weight` [outputs, C/groups, kernel, kernel]
 * and `bias` [outputs].
 *
 * @param options.padding by default the padding that keeps height and width
 */
export function conv2d(
  p: Params,
  x: Tensor,
  outputs: number,
  kernel: number,
  options: ConvOptions & { readonly bias?: boolean; readonly init?: Init } = {},
): Tensor {
  const { bias = true, init, ...rest } = options;
  const inputs = x.size(1) / (rest.groups ?? 1);
  // PyTorch's default: He et al., 2015, with a = √5.
  const bound = 1 / Math.sqrt(inputs * kernel * kernel);
  const first = init ?? { kind: "uniform", bound };
  const weight = p.param("weight", [outputs, inputs, kernel, kernel], first);
  return x.conv(weight, bias ? p.param("bias", [outputs], zero) : undefined, {
    padding: (kernel - 1) / 2,
    ...rest,
  });
}
