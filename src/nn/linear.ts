/** Linear layers, as PyTorch names and stores them. */
import type { Tensor } from "../engine/tensor.ts";
import { type Init, type Params, xavierUniform, zero } from "./params.ts";

export interface LinearOptions {
  /** Whether there is a bias; there is unless this is false. */
  readonly bias?: boolean;
  /** First value of the weight; Xavier uniform unless given. */
  readonly init?: Init;
}

/** x·Wᵀ + b: [..., in] → [..., outputs], with `weight` [outputs, in] and `bias` [outputs]. */
export function linear(p: Params, x: Tensor, outputs: number, options: LinearOptions = {}): Tensor {
  const shape = [outputs, x.size(-1)];
  const weight = p.param("weight", shape, options.init ?? xavierUniform(shape));
  return x.linear(weight, options.bias === false ? undefined : p.param("bias", [outputs], zero));
}
