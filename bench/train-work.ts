/**
 * The work of the suite `train`: one training step of a DiT-shaped transformer (Peebles & Xie, 2022) in
 * float32, which every contender repeats on the same batch from the same weights.
 *
 * The step, with B = batch, N = tokens, D = hidden, H = heads, and `linear(a, name)` = a · weightᵀ + bias:
 *
 *     angle = t · exp(−ln(10000) · [0 … 127] / 128)                              [B, 128]
 *     c     = linear(silu(linear([cos(angle), sin(angle)], t_embedder.mlp.0)), t_embedder.mlp.2)
 *             + y_embedder.embedding_table.weight[y]                             [B, D]
 *     h     = linear(x, x_embedder.proj) + pos_embed                             [B, N, D]
 *     for each block:
 *       shift1, scale1, gate1, shift2, scale2, gate2 = linear(silu(c), adaLN_modulation.1) in six parts of D
 *       h += gate1 · attention(norm(h) · (1 + scale1) + shift1)
 *       h += gate2 · linear(gelu(linear(norm(h) · (1 + scale2) + shift2, mlp.fc1)), mlp.fc2)
 *     shift, scale = linear(silu(c), final_layer.adaLN_modulation.1) in two parts of D
 *     out   = linear(norm(h) · (1 + scale) + shift, final_layer.linear)          [B, N, channels]
 *     loss  = mean((out − target)²)
 *
 * `norm` is a LayerNorm without learned scale and shift, eps 1e-6; `gelu` is the tanh form; `attention` is
 * linear(…, attn.qkv) read as [B, N, 3, H, D/H], softmax(q · kᵀ / √(D/H)) · v, linear(…, attn.proj).
 * Then the gradients of all parameters; AdamW, decoupled, with bias correction (Loshchilov & Hutter, 2019), on
 * all of them; and the moving average  ema = decay · ema + (1 − decay) · parameter  of all of them, which starts
 * as the parameters. The step reports the loss before its update.
 *
 * `tensors.*` (see `tensor-file.ts`) holds every parameter under its name in facebookresearch/DiT, the constant
 * `pos_embed`, and the batch: `x`, `t`, `y` (whole numbers), `target`. `work.json` holds the numbers below.
 * Gates and modulations start far from zero (not as adaLN-zero trains), so that a mistake anywhere in a
 * contender moves the loss.
 */
import { type HostTensor, normalSource, normalTensor } from "./tensor-file.ts";

export interface TrainWork {
  readonly threads: number;
  readonly hidden: number;
  readonly depth: number;
  readonly heads: number;
  readonly tokens: number;
  readonly batch: number;
  readonly channels: number;
  readonly classes: number;
  readonly frequencies: number;
  readonly learningRate: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
  readonly weightDecay: number;
  readonly emaDecay: number;
}

export function trainWork(threads: number, depth = 12): TrainWork {
  return {
    threads,
    hidden: 384,
    depth,
    heads: 6,
    tokens: 64,
    batch: 32,
    channels: 16,
    classes: 11,
    frequencies: 256,
    learningRate: 1e-4,
    beta1: 0.9,
    beta2: 0.999,
    epsilon: 1e-8,
    weightDecay: 0.01,
    emaDecay: 0.9999,
  };
}

/** Parameter names and shapes ([out, in] for a linear layer's weight), in a fixed order. */
export function trainParameters(work: TrainWork): (readonly [string, readonly number[]])[] {
  const { hidden, channels, classes, frequencies } = work;
  const linear = (name: string, input: number, output: number) =>
    [
      [`${name}.weight`, [output, input]],
      [`${name}.bias`, [output]],
    ] as const;
  return [
    ...linear("x_embedder.proj", channels, hidden),
    ...linear("t_embedder.mlp.0", frequencies, hidden),
    ...linear("t_embedder.mlp.2", hidden, hidden),
    ["y_embedder.embedding_table.weight", [classes, hidden]],
    ...Array.from({ length: work.depth }, (_, block) => `blocks.${block}`).flatMap((block) => [
      ...linear(`${block}.attn.qkv`, hidden, 3 * hidden),
      ...linear(`${block}.attn.proj`, hidden, hidden),
      ...linear(`${block}.mlp.fc1`, hidden, 4 * hidden),
      ...linear(`${block}.mlp.fc2`, 4 * hidden, hidden),
      ...linear(`${block}.adaLN_modulation.1`, hidden, 6 * hidden),
    ]),
    ...linear("final_layer.adaLN_modulation.1", hidden, 2 * hidden),
    ...linear("final_layer.linear", hidden, channels),
  ];
}

/** Starting weights and the batch, the same on every machine up to the last bits of Math.log and Math.sin. */
export function* trainTensors(work: TrainWork): Generator<readonly [string, HostTensor]> {
  const { hidden, tokens, batch, channels, classes } = work;
  const normal = normalSource(1);
  for (const [name, shape] of trainParameters(work)) {
    const deviation = name.endsWith("bias") ? 0.1 : 1 / Math.sqrt(hidden);
    yield [name, normalTensor(normal, shape, deviation)];
  }
  yield ["pos_embed", normalTensor(normal, [tokens, hidden], 0.5)];
  yield ["x", normalTensor(normal, [batch, tokens, channels], 1)];
  yield ["target", normalTensor(normal, [batch, tokens, channels], 1)];
  yield ["t", rowOf(batch, (i) => ((i + 0.5) * 1000) / batch)];
  yield ["y", rowOf(batch, (i) => i % classes)];
}

function rowOf(length: number, value: (i: number) => number): HostTensor {
  return { shape: [length], data: Float32Array.from({ length }, (_, i) => value(i)) };
}

/**
 * Floating-point operations of one step: two for each multiply-add of the matrix products, forward and backward
 * (no gradient flows to x, the angles and the embedding's index). Elementwise work and the optimizer are not counted.
 */
export function trainFlops(work: TrainWork): number {
  const { hidden, depth, tokens, batch, channels, frequencies } = work;
  const rows = batch * tokens;
  const perBlock =
    rows * hidden * (3 * hidden + hidden + 4 * hidden + 4 * hidden) +
    2 * rows * tokens * hidden +
    batch * hidden * 6 * hidden;
  const inner =
    depth * perBlock + batch * hidden * (hidden + 2 * hidden) + rows * hidden * channels;
  const outermost = rows * channels * hidden + batch * frequencies * hidden;
  return 2 * (3 * inner + 2 * outermost);
}
