/** Group normalization (Wu & He, 2018). */
import type { Tensor } from "../engine/graph/tensor.ts";
import { one, type Params, zero } from "./params.ts";

/** [B, C, ...space] normalized over each group of channels, then scaled and shifted by `weight` and `bias` [C]. */
export function groupNorm(p: Params, x: Tensor, groups: number, epsilon: number): Tensor {
  const channels = x.size(1);
  const perChannel = [channels, ...new Array<number>(x.rank - 2).fill(1)];
  const weight = p.param("weight", [channels], one).reshape(perChannel);
  const bias = p.param("bias", [channels], zero).reshape(perChannel);
  return x.groupNorm(groups, epsilon).mul(weight).add(bias);
}
