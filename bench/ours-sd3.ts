/** The work of `sd3-work.ts` with the MMDiT of the library. */
import { type Graph, leafName } from "../src/engine/graph/graph.ts";
import { ndarray, toNumbers } from "../src/engine/arrays/ndarray.ts";
import { normal, randomKey } from "../src/engine/random/random.ts";
import type { WeightSource } from "../src/engine/runtime/backend.ts";
import { nodeBackend } from "../src/engine/runtime/ort-node.ts";
import { type Contender, timed } from "./contender.ts";
import { computedWith } from "./ours-settings.ts";
import { sd3NetworkFile, sd3Weights } from "./sd3-file.ts";
import { blockGraph, type SD3Work, stepGraph } from "./sd3-work.ts";
import type { Settings } from "./settings.ts";
import { readTensor, readWork, storedTensors } from "./tensor-file.ts";

const contender: Contender = {
  async setup(workDir) {
    const work = readWork(workDir) as SD3Work & Settings;
    const backend = nodeBackend("cpu");
    const options = { prepack: true, threads: work.threads };
    const compiled = (graph: Graph, weights: WeightSource) => {
      const computed = computedWith(work.compute, graph, weights);
      return backend.compile(computed.graph, { ...options, weights: computed.weights });
    };
    const block = await compiled(blockGraph(work), storedTensors(workDir));
    const blockInputs = Object.fromEntries(
      ["image", "text", "vector"].map((name) => {
        const { shape, data } = readTensor(workDir, name);
        return [name, ndarray("float32", shape, data)];
      }),
    );
    const graph = stepGraph(work);
    const file = await sd3NetworkFile(workDir, work);
    const step = await compiled(graph, await sd3Weights(file));
    const stepInputs = Object.fromEntries(
      graph.inputs.map((leaf) => {
        const shape = [work.rows, ...(leaf.shape.slice(1) as readonly number[])];
        return [leafName(leaf), normal(randomKey(7), shape)];
      }),
    );
    await step.run(stepInputs);
    await block.run(blockInputs);

    return {
      settings: `onnxruntime-node, ${work.threads} threads`,
      async step() {
        const one = await timed(() => block.run(blockInputs));
        const whole = await timed(() => step.run(stepInputs));
        const result = ["imageAfter", "textAfter"].flatMap((name) =>
          toNumbers(one.result[name]!).filter((_, i) => i % work.every === 0),
        );
        const value = result.reduce((sum, x) => sum + x * x, 0) / result.length;
        const parts = { "one block": one.ms, "whole step": whole.ms };
        return { ms: whole.ms, parts, value, result };
      },
    };
  },
};

export default contender;
