/** Sinusoidal embedding of times (Vaswani et al., 2017; as in guided-diffusion and DiT). */
import { ndarray } from "../engine/arrays/ndarray.ts";
import { concat, constant } from "../engine/graph/functional.ts";
import type { Tensor } from "../engine/graph/tensor.ts";
import { linear } from "./linear.ts";
import { normal, type Params } from "./params.ts";
import { torchExp } from "./torch-math.ts";

/**
 * [B] → [B, size]: cosines, then sines, of t·maxPeriod^(−i/half) for i in [0, half).
 *
 * Each step towards the frequencies is rounded as in the original: at t near 1000 a float64
 * frequency moves a model's output by more than its other rounding errors.
 */
export function timestepEmbedding(t: Tensor, size: number, maxPeriod = 10_000): Tensor {
  const half = Math.floor(size / 2);
  const rate = Math.fround(-Math.log(maxPeriod));
  const frequencies = Float32Array.from({ length: half }, (_, i) =>
    torchExp(Math.fround(Math.fround(rate * i) / half)),
  );
  const angles = t.unsqueeze(-1).mul(constant(ndarray("float32", [1, half], frequencies))); // [B, half]
  return ofSize(concat([angles.cos(), angles.sin()], -1), size);
}

/**
 * Shares of noise [B] in [0, 1] → [B, size] as Paella has them: sines, then cosines, of 10⁴·share·10^(−4i/(half − 1)).
 *
 * At arguments as large as these each rounding to float32 counts.
 *
 * @param size at least 4
 */
export function shareEmbedding(share: Tensor, size: number): Tensor {
  const half = Math.floor(size / 2);
  const rate = Math.fround(-Math.log(10_000) / (half - 1));
  const frequencies = Float32Array.from({ length: half }, (_, i) =>
    torchExp(Math.fround(rate * i)),
  );
  const table = constant(ndarray("float32", [1, half], frequencies));
  const angles = share.mul(10_000).unsqueeze(-1).mul(table); // [B, half]
  return ofSize(concat([angles.sin(), angles.cos()], -1), size);
}

/** Times [B] → [B, hidden]: the sinusoids through two linear layers (DiT's names `mlp.0`, `mlp.2`). */
export function embedTime(p: Params, t: Tensor, hidden: number, frequencies = 256): Tensor {
  const init = normal(0.02);
  const inner = linear(p.at("mlp.0"), timestepEmbedding(t, frequencies), hidden, { init }).silu();
  return linear(p.at("mlp.2"), inner, hidden, { init }); // [B, hidden]
}

/** With a zero more where the size is odd. */
function ofSize(embedding: Tensor, size: number): Tensor {
  if (size % 2 === 0) return embedding;
  return embedding.pad([
    [0, 0],
    [0, 1],
  ]);
}
