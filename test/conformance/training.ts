/** A small transformer that learns to continue sequences, for comparing devices over many steps. */
import { input, parameter } from "../../src/engine/graph/functional.ts";
import { graphOf, leafName } from "../../src/engine/graph/graph.ts";
import { type NdArray, ndarray, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import type { Backend } from "../../src/engine/runtime/backend.ts";
import { batch } from "../../src/engine/graph/shape.ts";
import type { Tensor } from "../../src/engine/graph/tensor.ts";
import { adamW } from "../../src/training/optimizers.ts";
import { trainingStep } from "../../src/training/step.ts";
import { createTrainer } from "../../src/training/trainer.ts";
import { randomArray } from "../support/arrays.ts";

const STEPS = 20;
const BATCH = 4;
const LENGTH = 8;
const VOCABULARY = 11;
const WIDTH = 16;
const HEADS = 2;

/** x [B, N, WIDTH] → [B, N, WIDTH] */
function block(x: Tensor, path: string): Tensor {
  const linear = (h: Tensor, name: string, inner: number, outer: number) =>
    h.linear(
      parameter(`${path}.${name}.weight`, [outer, inner]),
      parameter(`${path}.${name}.bias`, [outer]),
    );
  const norm = (h: Tensor, name: string) =>
    h.layerNorm({
      weight: parameter(`${path}.${name}.weight`, [WIDTH]),
      bias: parameter(`${path}.${name}.bias`, [WIDTH]),
    });
  const [q, k, v] = linear(norm(x, "norm1"), "qkv", WIDTH, 3 * WIDTH)
    .split(3, -1)
    .map((t) => t.rearrange("b n (h d) -> b h n d", { h: HEADS })) as [Tensor, Tensor, Tensor];
  const scores = q.matmul(k, { transposeB: true }).mul(1 / Math.sqrt(WIDTH / HEADS));
  const mixed = scores.softmax().matmul(v).rearrange("b h n d -> b n (h d)");
  const y = x.add(linear(mixed, "proj", WIDTH, WIDTH));
  const widened = linear(norm(y, "norm2"), "fc1", WIDTH, 4 * WIDTH).gelu("tanh");
  return y.add(linear(widened, "fc2", 4 * WIDTH, WIDTH));
}

/** Mean cross-entropy of the next token. */
function buildLoss(): Tensor {
  const tokens = input("tokens", [batch, LENGTH], "int64");
  const next = input("next", [batch, LENGTH], "int64");
  const embedded = parameter("embed.weight", [VOCABULARY, WIDTH])
    .gather(tokens)
    .add(parameter("positions", [LENGTH, WIDTH]));
  const h = block(block(embedded, "blocks.0"), "blocks.1").layerNorm();
  const logits = h.linear(parameter("head.weight", [VOCABULARY, WIDTH]));
  return logits.logSoftmax().mul(next.oneHot(VOCABULARY)).sum(-1).mean().neg();
}

/** Counting sequences from a random start by a stride of 1 or 2, which can be learnt. */
function makeBatch(seed: number): Record<string, NdArray> {
  const starts = toNumbers(randomArray(seed, "int64", [BATCH], 0, VOCABULARY));
  const rows = starts.map((start, row) =>
    Array.from({ length: LENGTH + 1 }, (_, i) => (start + (1 + (row % 2)) * i) % VOCABULARY),
  );
  return {
    tokens: ndarray(
      "int64",
      [BATCH, LENGTH],
      rows.flatMap((row) => row.slice(0, -1)),
    ),
    next: ndarray(
      "int64",
      [BATCH, LENGTH],
      rows.flatMap((row) => row.slice(1)),
    ),
  };
}

/** The loss at each step. */
export async function trainSmallTransformer(backend: Backend): Promise<number[]> {
  const loss = buildLoss();
  const params = Object.fromEntries(
    graphOf({ loss }).parameters.map((tensor) => [leafName(tensor), tensor]),
  );
  const weights = Object.fromEntries(
    Object.entries(params).map(([name, { shape }], i) => [
      name,
      randomArray(i, "float32", shape as number[], -0.25, 0.25),
    ]),
  );
  const optimizer = adamW({ learningRate: 1e-2, weightDecay: 0.01 });
  const step = trainingStep({ loss, params, optimizer, emaDecay: 0.9 });
  const trainer = await createTrainer(backend, step, weights);
  const losses: number[] = [];
  for (let i = 0; i < STEPS; i++) losses.push((await trainer.step(makeBatch(i))).loss);
  await trainer.dispose();
  return losses;
}
