/** The bound that JiT and MiniT2I set on the velocity of a prediction of x0 (Li & He, 2025, section 4). */
import { combine } from "./arrays.ts";
import type { Network } from "./denoiser.ts";

/**
 * A network that predicts x0 on straight levels, whose velocity (x − x0)/sigma is taken as if sigma were no less than `lowest`:
 * steps from a smaller sigma go only a part of their way.
 */
export function withLowestTime(network: Network, lowest: number): Network {
  return async (x, level) => {
    const x0 = await network(x, level);
    if (level.sigma >= lowest) return x0;
    const share = level.sigma / lowest;
    return combine([share, x0], [1 - share, x]);
  };
}
