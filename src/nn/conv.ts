/** Convolutions, as PyTorch names and stores them. */
import type { ConvOptions } from "../engine/graph/conv-options.ts";
import type { Tensor } from "../engine/graph/tensor.ts";
import { type Init, type Params, zero } from "./params.ts";

/**
 * A convolution with a square kernel: [B, C, H, W] → [B, outputs, …], with `weight`
 * [outputs, C/groups, kernel, kernel] and `bias` [outputs].
 *
 * @param options.padding keeps height and width unless given
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
  // PyTorch's own: He et al., 2015, with a = √5.
  const bound = 1 / Math.sqrt(inputs * kernel * kernel);
  const first = init ?? { kind: "uniform", bound };
  const weight = p.param("weight", [outputs, inputs, kernel, kernel], first);
  return x.conv(weight, bias ? p.param("bias", [outputs], zero) : undefined, {
    padding: (kernel - 1) / 2,
    ...rest,
  });
}
