/** Small graphs of the kind that models are made of. */
import { recompute } from "../../src/engine/graph/recompute.ts";
import { attention, input, parameter } from "../../src/engine/graph/functional.ts";
import { gradient } from "../../src/engine/gradients/gradient.ts";
import { type Graph, graphOf } from "../../src/engine/graph/graph.ts";
import { batch } from "../../src/engine/graph/shape.ts";
import type { Tensor } from "../../src/engine/graph/tensor.ts";

export interface BlockConfig {
  readonly tokens: number;
  readonly hidden: number;
  readonly heads: number;
  readonly depth: number;
}

/** A transformer block with adaLN-zero modulation, as DiT's: x [B, tokens, hidden], c [B, hidden]. */
function ditBlock(x: Tensor, c: Tensor, path: string, hidden: number, heads: number): Tensor {
  const linear = (h: Tensor, name: string, inner: number, outer: number) =>
    h.linear(
      parameter(`${path}.${name}.weight`, [outer, inner]),
      parameter(`${path}.${name}.bias`, [outer]),
    );
  const modulation = linear(c.silu(), "adaLN", hidden, 6 * hidden).unsqueeze(1);
  const [shift1, scale1, gate1, shift2, scale2, gate2] = modulation.split(6, -1) as [
    Tensor,
    Tensor,
    Tensor,
    Tensor,
    Tensor,
    Tensor,
  ];
  const h = x.layerNorm({ epsilon: 1e-6 }).mul(scale1.add(1)).add(shift1);
  const [q, k, v] = linear(h, "qkv", hidden, 3 * hidden).split(3, -1) as [Tensor, Tensor, Tensor];
  const attended = linear(attention(q, k, v, { heads }), "proj", hidden, hidden);
  const y = x.add(attended.mul(gate1));
  const m = y.layerNorm({ epsilon: 1e-6 }).mul(scale2.add(1)).add(shift2);
  const widened = linear(m, "fc1", hidden, 4 * hidden).gelu("tanh");
  return y.add(linear(widened, "fc2", 4 * hidden, hidden).mul(gate2));
}

/** The forward pass of DiT blocks, each recomputed where asked. */
export function ditBlocks(config: BlockConfig, recomputed = false): Tensor {
  const { tokens, hidden, heads, depth } = config;
  const c = input("c", [batch, hidden]);
  let x = input("x", [batch, tokens, hidden]);
  for (let i = 0; i < depth; i++) {
    const block = (h: Tensor) => ditBlock(h, c, `blocks.${i}`, hidden, heads);
    x = recomputed ? recompute([x], block) : block(x);
  }
  return x;
}

/** Mean square of the blocks' output, and its gradient for every parameter. */
export function ditTraining(config: BlockConfig, recomputed = false): Graph {
  const loss = ditBlocks(config, recomputed).square().mean();
  const { parameters } = graphOf({ loss });
  const gradients = gradient(loss, parameters);
  const names = parameters.map((_, i) => [`gradient${i}`, gradients[i]!] as const);
  return graphOf({ loss, ...Object.fromEntries(names) });
}
