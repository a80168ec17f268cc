/** Our engine's training step: forward, backward, AdamW and EMA. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { ndarray } from "../src/engine/arrays/ndarray.ts";
import { nodeBackend } from "../src/engine/runtime/ort-node.ts";
import { input } from "../src/engine/graph/functional.ts";
import type { Tensor } from "../src/engine/graph/tensor.ts";
import { selfAttention } from "../src/nn/attention.ts";
import { linear } from "../src/nn/linear.ts";
import { mlp } from "../src/nn/mlp.ts";
import { gated, modulate } from "../src/nn/modulation.ts";
import { createParams, normal, type Params } from "../src/nn/params.ts";
import { timestepEmbedding } from "../src/nn/timestep-embedding.ts";
import { adamW } from "../src/training/optimizers.ts";
import { createTrainer, trainingStep } from "../src/training/step.ts";
import { type Contender, timed } from "./contender.ts";
import { readTensors } from "./tensor-file.ts";
import type { TrainWork } from "./train-work.ts";

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

const contender: Contender = {
  async setup(workDir) {
    const work = JSON.parse(readFileSync(join(workDir, "work.json"), "utf8")) as TrainWork;
    const tensors = readTensors(workDir);
    const { batch, tokens, channels, hidden } = work;
    const x = input("x", [batch, tokens, channels]);
    const target = input("target", [batch, tokens, channels]);
    const [t, y] = [input("t", [batch]), input("y", [batch], "int64")];
    const positions = input("pos_embed", [tokens, hidden]);

    const p = createParams();
    const loss = ditShaped(p, work, x, t, y, positions).sub(target).square().mean();
    const params = Object.fromEntries([...p.declared].map(([name, { tensor }]) => [name, tensor]));
    const { learningRate, beta1, beta2, epsilon, weightDecay, emaDecay } = work;
    const optimizer = adamW({ learningRate, beta1, beta2, epsilon, weightDecay });
    const data = (name: string) => {
      const { shape, data: values } = tensors.get(name)!;
      return ndarray("float32", shape, values);
    };
    const inputs = {
      x: data("x"),
      target: data("target"),
      t: data("t"),
      y: ndarray("int64", [batch], [...tensors.get("y")!.data]),
      pos_embed: data("pos_embed"),
    };
    const trainer = await createTrainer(
      nodeBackend("cpu"),
      trainingStep({ loss, params, optimizer, emaDecay }),
      Object.fromEntries(Object.keys(params).map((name) => [name, data(name)])),
      { threads: work.threads },
    );
    return {
      settings: `onnxruntime-node, ${work.threads} threads`,
      async step() {
        const { ms, result } = await timed(() => trainer.step(inputs));
        return { ms, value: result.loss };
      },
    };
  },
};

export default contender;
