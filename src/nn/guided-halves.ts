/** Classifier-free guidance inside a graph, as the original networks of DiT and Latte compute it. */
import { concat } from "../engine/graph/functional.ts";
import type { Tensor } from "../engine/graph/tensor.ts";

/**
 * Guides a batch whose second half lacks the condition: unconditional + scale·(conditional − unconditional), in both halves
 * (Ho & Salimans, 2022). The first half of x is used twice.
 *
 * @param predict the network on [2B, C, ...]; its first half has the condition
 * @param x [2B, C, ...]
 * @param guidedChannels the first channels of the prediction, which alone are guided
 * @returns [2B, outputs, ...]
 */
export function guidedHalves(
  predict: (x: Tensor) => Tensor,
  x: Tensor,
  scale: Tensor,
  guidedChannels: number,
): Tensor {
  const half = x.split(2, 0)[0]!;
  const out = predict(concat([half, half], 0)); // [2B, outputs, ...]
  const guidedCount = Math.min(guidedChannels, out.size(1));
  const halves = out.slice(1, 0, guidedCount).split(2, 0);
  const [conditional, unconditional] = halves as [Tensor, Tensor];
  const guided = unconditional.add(conditional.sub(unconditional).mul(scale));
  const twice = concat([guided, guided], 0); // [2B, guidedCount, ...]
  return guidedCount < out.size(1) ? concat([twice, out.slice(1, guidedCount)], 1) : twice;
}
