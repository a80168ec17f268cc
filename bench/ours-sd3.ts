/** The work of `sd3-work.ts` with the MMDiT of the library. */
import { closeSync, openSync, writeSync } from "node:fs";
import { join } from "node:path";
import { type Graph, leafName } from "../src/engine/graph/graph.ts";
import { ndarray, sizeOf, toNumbers } from "../src/engine/arrays/ndarray.ts";
import { normal, randomKey } from "../src/engine/random/random.ts";
import type { WeightSource } from "../src/engine/runtime/backend.ts";
import { nodeBackend } from "../src/engine/runtime/ort-node.ts";
import { type Contender, timed } from "./contender.ts";
import { computedWith } from "./ours-settings.ts";
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
    const step = await compiled(graph, randomWeights(workDir, graph));
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

/** Writes weights for a graph to a new file: a repeated list of random numbers, small enough to avoid overflow. */
function randomWeights(workDir: string, graph: Graph): WeightSource {
  const path = join(workDir, "model.bin");
  const file = openSync(path, "w");
  const noise = normal(randomKey(6), [2 ** 24]).data.map((value) => 0.02 * value);
  const offsets = new Map<string, number>();
  let end = 0;
  for (const leaf of graph.parameters) {
    offsets.set(leafName(leaf), end);
    let left = sizeOf(leaf.shape as readonly number[]);
    for (; left > 0; left -= noise.length) {
      end += writeSync(file, noise.subarray(0, Math.min(left, noise.length)));
    }
  }
  closeSync(file);
  const shapes = new Map(graph.parameters.map((leaf) => [leafName(leaf), leaf.shape]));
  return (name) => {
    const offset = offsets.get(name);
    if (offset === undefined) return undefined;
    const shape = shapes.get(name) as readonly number[];
    return { kind: "file", path, offset, length: 4 * sizeOf(shape), dtype: "float32", shape };
  };
}

export default contender;
