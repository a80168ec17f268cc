/**
 * The work of the suite `sd3`: one step of Stable Diffusion 3 medium (`mmditPresets` in `src/models/mmdit.ts`) with
 * guidance, which takes two rows, on latents of 512×512 pixels and 333 tokens of text, in float32.
 *
 * Patchwise runs the whole network on random weights, which it writes to a file of 4 GB in float16 first. PyTorch, whose weights and
 * activations would not fit in memory too, runs one joint block of the same shape; its `whole step` is `depth` times that.
 * Both run the `one block` on the same weights, on which they must agree:
 *
 *     image, text = block(image [2, side², hidden], text [2, words, hidden], vector [2, hidden])
 *
 * `vector` modulates the norms. `result` is every `every`-th number of both output streams. Weights have the names of
 * Stability-AI/sd3.5 without `joint_blocks.0.`.
 */
import { countMultiplyAdds } from "../src/engine/passes/cost.ts";
import { input } from "../src/engine/graph/functional.ts";
import { type Graph, graphOf } from "../src/engine/graph/graph.ts";
import { batch } from "../src/engine/graph/shape.ts";
import { mmditPresets } from "../src/models/mmdit/config.ts";
import { jointBlock, mmdit } from "../src/models/mmdit/mmdit.ts";
import { createParams, type ParamsRoot } from "../src/nn/params.ts";
import { type HostTensor, normalSource, normalTensor } from "./tensor-file.ts";

export interface SD3Work {
  readonly threads: number;
  readonly rows: number;
  readonly hidden: number;
  readonly heads: number;
  readonly depth: number;
  /** Patches along a side. */
  readonly side: number;
  readonly words: number;
  readonly every: number;
}

const model = mmditPresets["SD3-medium"];

/** @param depth blocks; those of SD3 medium unless given */
export function sd3Work(threads: number, depth: number = model.depth): SD3Work {
  const { hidden, heads } = model;
  return { threads, rows: 2, hidden, heads, depth, side: 32, words: 333, every: 101 };
}

/** Traces one block: `image`, `text` and `vector` → `imageAfter` and `textAfter`. */
export function blockGraph({ hidden, side, words }: SD3Work): Graph & { params: ParamsRoot } {
  const params = createParams();
  const [x, context] = [
    input("image", [batch, side * side, hidden]),
    input("text", [batch, words, hidden]),
  ];
  const shared = {
    vector: input("vector", [batch, hidden]),
    bias: undefined,
    grid: [side, side],
    config: model,
  };
  const [textAfter, imageAfter] = jointBlock(params, [context, x], shared, 0);
  return { ...graphOf({ imageAfter, textAfter }), params };
}

/** Traces the whole network: `x`, `t`, `context` and `pooled` → `velocity`. */
export function stepGraph({ side, words, depth }: SD3Work): Graph {
  const { patch, channels, condition } = model;
  const inputs = {
    x: input("x", [batch, channels, side * patch, side * patch]),
    t: input("t", [batch]),
    context: input("context", [batch, words, condition.width]),
    pooled: input("pooled", [batch, condition.pooled]),
  };
  return graphOf({ velocity: mmdit(createParams(), inputs, { ...model, depth }) });
}

export function* sd3Tensors(work: SD3Work): Generator<readonly [string, HostTensor]> {
  const normal = normalSource(5);
  for (const [name, { tensor }] of blockGraph(work).params.declared) {
    const shape = tensor.shape as readonly number[];
    yield [name, normalTensor(normal, shape, name.endsWith("bias") ? 0.1 : shape[1]! ** -0.5)];
  }
  const { rows, side, words, hidden } = work;
  yield ["image", normalTensor(normal, [rows, side * side, hidden], 1)];
  yield ["text", normalTensor(normal, [rows, words, hidden], 1)];
  yield ["vector", normalTensor(normal, [rows, hidden], 1)];
}

/** Floating-point operations: two for each multiply-add of the matrix products. Elementwise work is not counted. */
export function sd3Flops(work: SD3Work): Record<string, number> {
  return {
    "one block": 2 * countMultiplyAdds(blockGraph(work), work.rows),
    "whole step": 2 * countMultiplyAdds(stepGraph(work), work.rows),
  };
}
