/** AdamW: Adam with decoupled weight decay (Loshchilov & Hutter, 2019). */
import { zerosLike } from "../../engine/graph/functional.ts";
import type { Tensor } from "../../engine/graph/tensor.ts";
import type { Optimizer } from "./optimizer.ts";

export interface AdamWOptions {
  /** Per step; a number, or a scalar tensor that a schedule feeds. */
  readonly learningRate: number | Tensor;
  readonly beta1?: number;
  readonly beta2?: number;
  readonly epsilon?: number;
  readonly weightDecay?: number;
}

/**
 * w ← (1 − lr·λ)·w − lr/(1 − β1^t) · m / (√v/√(1 − β2^t) + ε), as PyTorch computes it.
 *
 * State: `m.NAME` and `v.NAME`, the running means of the gradient and of its square.
 */
export function adamW(options: AdamWOptions): Optimizer {
  const { learningRate, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weightDecay = 0.01 } = options;
  return {
    init: (params) =>
      Object.fromEntries(
        Object.entries(params).flatMap(([name, w]) => [
          [`m.${name}`, zerosLike(w)],
          [`v.${name}`, zerosLike(w)],
        ]),
      ),
    update(grads, state, params, step) {
      const scalar = (value: number | Tensor) =>
        typeof value === "number" ? step.mul(0).add(value) : value;
      const rate = scalar(learningRate);
      const bias1 = scalar(beta1).pow(step).neg().add(1);
      const bias2 = scalar(beta2).pow(step).neg().add(1);
      // With √v̂ = √v/√bias2 taken out of the fraction, each weight is passed over as few times as can be.
      const root = bias2.sqrt();
      const stepSize = rate.mul(root).div(bias1);
      const scaledEpsilon = root.mul(epsilon);
      const keep = rate.mul(-weightDecay).add(1);
      const newParams: Record<string, Tensor> = {};
      const newState: Record<string, Tensor> = {};
      for (const [name, w] of Object.entries(params)) {
        const g = grads[name]!;
        const m = state[`m.${name}`]!.mul(beta1).add(g.mul(1 - beta1));
        const v = state[`v.${name}`]!.mul(beta2).add(g.mul(g).mul(1 - beta2));
        newState[`m.${name}`] = m;
        newState[`v.${name}`] = v;
        newParams[name] = w.mul(keep).sub(m.mul(stepSize).div(v.sqrt().add(scaledEpsilon)));
      }
      return [newParams, newState];
    },
  };
}
