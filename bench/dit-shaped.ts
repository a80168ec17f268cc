/** The transformer of `train-work.ts`, which the suites `train` and `lora` train, with our engine. */
import { type NdArray, ndarray } from "../src/engine/arrays/ndarray.ts";
import { input } from "../src/engine/graph/functional.ts";
import type { Tensor } from "../src/engine/graph/tensor.ts";
import { selfAttention } from "../src/nn/attention.ts";
import { linear } from "../src/nn/linear.ts";
import { mlp } from "../src/nn/mlp.ts";
import { gated, modulate } from "../src/nn/modulation.ts";
import { normal, type Params } from "../src/nn/params.ts";
import { timestepEmbedding } from "../src/nn/timestep-embedding.ts";
import type { HostTensor } from "./tensor-file.ts";
import type { TrainWork } from "./train-work.ts";

/** The loss of the work on inputs of the names and shapes that `batchOf` gives. */
export function ditLoss(p: Params, work: TrainWork): Tensor {
  const { batch, tokens, channels, hidden } = work;
  const x = input("x", [batch, tokens, channels]);
  const target = input("target", [batch, tokens, channels]);
  const [t, y] = [input("t", [batch]), input("y", [batch], "int64")];
  const positions = input("pos_embed", [tokens, hidden]);
  return ditShaped(p, work, x, t, y, positions).sub(target).square().mean();
}

/** The batch of the work, by the names of the inputs. */
export function batchOf(
  { batch }: TrainWork,
  tensors: ReadonlyMap<string, HostTensor>,
): Record<string, NdArray> {
  return {
    x: arrayOf(tensors, "x"),
    target: arrayOf(tensors, "target"),
    t: arrayOf(tensors, "t"),
    y: ndarray("int64", [batch], [...tensors.get("y")!.data]),
    pos_embed: arrayOf(tensors, "pos_embed"),
  };
}

export function arrayOf(tensors: ReadonlyMap<string, HostTensor>, name: string): NdArray {
  const { shape, data } = tensors.get(name)!;
  return ndarray("float32", shape, data);
}

function ditShaped(
  p: Params,
  work: TrainWork,
  x: Tensor,
  t: Tensor,
  y: Tensor,
  positions: Tensor,
): Tensor {
  const { hidden, heads, classes, channels } = work;
  const time = p.at("t_embedder.mlp");
  const embedded = linear(time.at("0"), timestepEmbedding(t, work.frequencies), hidden).silu();
  const table = p.at("y_embedder.embedding_table").param("weight", [classes, hidden], normal(0.02));
  const c = linear(time.at("2"), embedded, hidden).add(table.gather(y)).silu(); // [B, C]
  const norm = (h: Tensor) => h.layerNorm({ epsilon: 1e-6 });
  let h = linear(p.at("x_embedder.proj"), x, hidden).add(positions); // [B, N, C]
  for (let i = 0; i < work.depth; i++) {
    const block = p.at(`blocks.${i}`);
    const six = linear(block.at("adaLN_modulation.1"), c, 6 * hidden).split(6, -1);
    const [shift1, scale1, gate1, shift2, scale2, gate2] = six as [
      Tensor,
      Tensor,
      Tensor,
      Tensor,
      Tensor,
      Tensor,
    ];
    h = h.add(
      gated(gate1, selfAttention(block.at("attn"), modulate(norm(h), shift1, scale1), heads)),
    );
    h = h.add(gated(gate2, mlp(block.at("mlp"), modulate(norm(h), shift2, scale2), 4 * hidden)));
  }
  const [shift, scale] = linear(p.at("final_layer.adaLN_modulation.1"), c, 2 * hidden).split(
    2,
    -1,
  ) as [Tensor, Tensor];
  return linear(p.at("final_layer.linear"), modulate(norm(h), shift, scale), channels); // [B, N, channels]
}
