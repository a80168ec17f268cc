/** Graphs as models have them: blocks with their gradients, and an optimizer step. */
import { recompute } from "../../../src/engine/graph/recompute.ts";
import { gradient } from "../../../src/engine/gradients/gradient.ts";
import { averagePool, maxPool, pixelShuffle } from "../../../src/engine/graph/pool.ts";
import { batch, batchTimes } from "../../../src/engine/graph/shape.ts";
import { attention, concat, full } from "../../../src/engine/graph/functional.ts";
import type { Tensor } from "../../../src/engine/graph/tensor.ts";
import type { Case, CaseData } from "../case.ts";

/** A loss beside its gradients. */
function withGradients(loss: Tensor, wrt: Readonly<Record<string, Tensor>>) {
  const gradients = gradient(loss, Object.values(wrt));
  return {
    loss,
    ...Object.fromEntries(Object.keys(wrt).map((name, i) => [`d ${name}`, gradients[i]!])),
  };
}

const small = { low: -0.4, high: 0.4 };

function blockWeights(data: CaseData, width: number) {
  return {
    qkv: data.uniform([3 * width, width], small),
    project: data.uniform([width, width], small),
    scale: data.uniform([width], { low: 0.5, high: 1.5 }),
    bias: data.uniform([width], small),
    up: data.uniform([2 * width, width], small),
    down: data.uniform([width, 2 * width], small),
  };
}

/** A transformer block of primitives, as it is written for training. */
function transformerBlock(x: Tensor, weights: ReturnType<typeof blockWeights>): Tensor {
  const heads = 2;
  const split = (t: Tensor) => t.rearrange("b n (h d) -> b h n d", { h: heads });
  const normal = x.layerNorm({ weight: weights.scale, bias: weights.bias });
  const [q, k, v] = normal.linear(weights.qkv).split(3, -1).map(split) as [Tensor, Tensor, Tensor];
  const scores = q.matmul(k, { transposeB: true }).div(Math.sqrt(q.size(-1)));
  const mixed = scores.softmax().matmul(v).rearrange("b h n d -> b n (h d)");
  const y = x.add(mixed.linear(weights.project));
  return y.add(y.rmsNorm().linear(weights.up).gelu("tanh").linear(weights.down));
}

/** Rotates pairs of channels by an angle a position (Su et al., 2021). */
function rotate(x: Tensor, angles: Tensor): Tensor {
  const [a, b] = x.split(2, -1) as [Tensor, Tensor];
  const [cosine, sine] = [angles.cos(), angles.sin()];
  return concat([a.mul(cosine).sub(b.mul(sine)), a.mul(sine).add(b.mul(cosine))], -1);
}

export const compositeCases: readonly Case[] = [
  {
    name: "a transformer block and its gradients",
    batches: [3, 1, 3],
    build: (data) => {
      const [x, weights] = [data.uniform([batch, 5, 8]), blockWeights(data, 8)];
      return withGradients(transformerBlock(x, weights).square().mean(), { x, ...weights });
    },
  },
  {
    name: "two recomputed transformer blocks and their gradients",
    batches: [3, 1, 3],
    build: (data) => {
      const x = data.uniform([batch, 5, 8]);
      const layers = [blockWeights(data, 8), blockWeights(data, 8)];
      const y = layers.reduce(
        (h, weights) => recompute([h], (inner) => transformerBlock(inner, weights)),
        x,
      );
      return withGradients(y.square().mean(), { x, first: layers[0]!.qkv, last: layers[1]!.down });
    },
  },
  {
    name: "fused attention equals attention of primitives, and so do their gradients",
    batches: [3, 1, 3],
    build: (data) => {
      const x = data.uniform([batch, 5, 8]);
      const qkv = data.uniform([24, 8]);
      const [q, k, v] = x.linear(qkv).split(3, -1) as [Tensor, Tensor, Tensor];
      return withGradients(attention(q, k, v, { heads: 2 }).square().mean(), { x, qkv });
    },
  },
  {
    name: "modulation by a condition (adaLN) and its gradients",
    batches: [3, 1, 3],
    build: (data) => {
      const [x, condition] = [data.uniform([batch, 5, 8]), data.uniform([batch, 6])];
      const weight = data.uniform([24, 6]);
      const [shift, scale, gate] = condition.silu().linear(weight).unsqueeze(1).split(3, -1) as [
        Tensor,
        Tensor,
        Tensor,
      ];
      const y = x.add(gate.mul(x.layerNorm().mul(scale.add(1)).add(shift)));
      return withGradients(y.square().mean(), { x, condition, weight });
    },
  },
  {
    name: "a convolutional net and its gradients",
    batches: [3, 1, 3],
    build: (data) => {
      const image = data.uniform([batch, 3, 8, 8]);
      const weights = {
        first: data.uniform([8, 3, 3, 3], small),
        bias: data.uniform([8], small),
        down: data.uniform([8, 8, 2, 2], small),
        up: data.uniform([8, 3, 3, 3], small),
      };
      const h = image.conv(weights.first, weights.bias, { padding: 1 }).groupNorm(4).silu();
      const low = h.conv(weights.down, undefined, { stride: 2 }).silu();
      const y = low.upsampleNearest(2).add(h).convTranspose(weights.up, undefined, { padding: 1 });
      return withGradients(y.sub(image).square().mean(), { image, ...weights });
    },
  },
  {
    name: "pools, a pixel shuffle, and their gradients",
    batches: [3, 1, 3],
    build: (data) => {
      const image = data.uniform([batch, 4, 6, 6]);
      const largest = maxPool(image, { kernel: 3, stride: 2, padding: 1 });
      const mean = averagePool(image, { kernel: 2 });
      const shuffled = pixelShuffle(largest.mul(mean), 2);
      return { shuffled, ...withGradients(shuffled.square().sum(), { image }) };
    },
  },
  {
    name: "an embedding, cross-entropy, and their gradients",
    batches: [3, 1, 3],
    build: (data) => {
      const tokens = data.uniform([batch, 5], { dtype: "int64", low: 0, high: 7 });
      const table = data.uniform([7, 8], small);
      const logits = table.gather(tokens).linear(table);
      const loss = logits.logSoftmax().mul(tokens.oneHot(7)).sum(-1).mean().neg();
      return {
        ...withGradients(loss, { table }),
        accuracy: logits.argmax().equal(tokens).cast("float32").mean(),
      };
    },
  },
  {
    name: "rotary positions",
    build: (data) => {
      const x = data.uniform([batch, 2, 5, 8]);
      const angles = data.uniform([5, 4], { low: 0, high: 20 });
      return rotate(x, angles);
    },
  },
  {
    name: "sinusoidal embedding of time steps up to 1,000",
    build: (data) => {
      const time = data.uniform([batch], { low: 0, high: 1000 });
      const frequencies = Array.from({ length: 6 }, (_, i) => 10_000 ** (-i / 6));
      const angles = time.unsqueeze(1).mul(data.values(frequencies));
      return concat([angles.cos(), angles.sin()], -1);
    },
  },
  {
    name: "guidance: conditional and unconditional halves of one doubled batch",
    build: (data) => {
      const x = data.uniform([batch, 3, 4]);
      const doubled = concat([x, x.mul(0.5)], 0)
        .linear(data.uniform([4, 4]))
        .tanh();
      const [conditional, unconditional] = doubled.split(2, 0) as [Tensor, Tensor];
      const guided = unconditional.add(conditional.sub(unconditional).mul(3));
      return {
        guided,
        norm: full([batchTimes(2), 1], 2).mul(doubled.square().sum([1, 2]).unsqueeze(1)),
      };
    },
  },
  {
    name: "an AdamW step",
    build: (data) => {
      const [weight, slope] = [data.uniform([5, 7]), data.uniform([5, 7])];
      const [mean, variance] = [
        data.uniform([5, 7], small),
        data.uniform([5, 7], { low: 0, high: 1 }),
      ];
      const step = data.values([3], "int64", []).cast("float32");
      const nextMean = mean.mul(0.9).add(slope.mul(0.1));
      const nextVariance = variance.mul(0.999).add(slope.square().mul(0.001));
      const debias = (beta: number) => full([], beta).pow(step).neg().add(1);
      const update = nextMean
        .div(debias(0.9))
        .div(nextVariance.div(debias(0.999)).sqrt().add(1e-8));
      return { weight: weight.mul(1 - 1e-3 * 0.1).sub(update.mul(1e-3)), nextMean, nextVariance };
    },
  },
  {
    name: "second derivatives",
    build: (data) => {
      const [x, weight] = [data.uniform([batch, 4]), data.uniform([3, 4])];
      const [dx] = gradient(x.linear(weight).tanh().sum(), [x]);
      return withGradients(dx!.square().sum(), { x, weight });
    },
  },
  {
    name: "a block of float16 with a float32 loss",
    batches: [3, 1, 3],
    build: (data) => {
      const half = { dtype: "float16", ...small } as const;
      const x = data.uniform([batch, 5, 8], half);
      const h = x
        .layerNorm()
        .linear(data.uniform([8, 8], half))
        .gelu("tanh");
      return { h, loss: h.cast("float32").square().mean() };
    },
  },
];
