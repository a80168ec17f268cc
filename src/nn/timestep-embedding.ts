/** Sinusoidal embedding of times (Vaswani et al., 2017; as in guided-diffusion and DiT). */
import { ndarray } from "../engine/ndarray.ts";
import { concat, constant } from "../engine/functional.ts";
import type { Tensor } from "../engine/tensor.ts";

/**
 * [B] → [B, size]: cosines, then sines, of t·maxPeriod^(−i/half) for i in [0, half).
 *
 * Frequencies are rounded to float32 before they are used, as the original does: at t near 1000 a
 * float64 frequency moves a model's output by more than its other rounding errors.
 */
export function timestepEmbedding(t: Tensor, size: number, maxPeriod = 10_000): Tensor {
  const half = Math.floor(size / 2);
  const exponents = Float32Array.from({ length: half }, (_, i) => -Math.log(maxPeriod) * i).map(
    (x) => Math.exp(Math.fround(x / half)),
  );
  const angles = t.unsqueeze(-1).mul(constant(ndarray("float32", [1, half], exponents))); // [B, half]
  const embedding = concat([angles.cos(), angles.sin()], -1);
  return size % 2 === 0
    ? embedding
    : embedding.pad([
        [0, 0],
        [0, 1],
      ]);
}
