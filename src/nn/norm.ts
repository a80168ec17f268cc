/** Normalization layers. */
import type { Tensor } from "../engine/graph/tensor.ts";
import { one, type Params, zero } from "./params.ts";

/** LayerNorm (Ba et al., 2016) or RMSNorm (Zhang & Sennrich, 2019), with or without trained scale and shift. */
export interface Norm {
  readonly kind: "layer" | "rms";
  readonly affine: boolean;
  readonly epsilon: number;
}

/** Normalizes the last axis. An affine norm has a `weight`, and an affine LayerNorm a `bias` too. */
export function norm(p: Params, x: Tensor, { kind, affine, epsilon }: Norm): Tensor {
  const shape = [x.size(-1)];
  const weight = affine ? { weight: p.param("weight", shape, one) } : {};
  if (kind === "rms") return x.rmsNorm({ ...weight, epsilon });
  const bias = affine ? { bias: p.param("bias", shape, zero) } : {};
  return x.layerNorm({ ...weight, ...bias, epsilon });
}

/** Group normalization (Wu & He, 2018) of [B, C, ...space], scaled and shifted by `weight` and `bias` [C]. */
export function groupNorm(p: Params, x: Tensor, groups: number, epsilon: number): Tensor {
  const channels = x.size(1);
  const perChannel = [channels, ...new Array<number>(x.rank - 2).fill(1)];
  const weight = p.param("weight", [channels], one).reshape(perChannel);
  const bias = p.param("bias", [channels], zero).reshape(perChannel);
  return x.groupNorm(groups, epsilon).mul(weight).add(bias);
}
