/** Runs a case on a backend and on the reference interpreter, and says where the two differ. */
import { evaluate } from "../../src/engine/evaluate.ts";
import { type Graph, graphOf } from "../../src/engine/graph.ts";
import type { Backend } from "../../src/engine/runtime/backend.ts";
import { isStatic } from "../../src/engine/shape.ts";
import { Tensor } from "../../src/engine/tensor.ts";
import { type Case, CaseData, defaultBatches } from "./case.ts";
import { coarser, difference } from "./compare.ts";

/**
 * Runs a case at each of its batch sizes.
 *
 * @throws Error with a line for each output of each run that is not what the reference says
 */
export async function runCase(backend: Backend, test: Case): Promise<void> {
  const { graph, data } = buildCase(test);
  const program = await backend.compile(graph, { weights: data.weightSource });
  const failures: string[] = [];
  const { exact = false, scale = 0 } = test;
  const through = graph.nodes
    .flatMap((node) => node.outputs.map((output) => output.dtype))
    .reduce(coarser, "bool");
  try {
    const batches = hasBatch(graph) ? (test.batches ?? defaultBatches) : [undefined];
    for (const batchSize of batches) {
      const inputs = data.inputs(graph, batchSize);
      const expected = evaluate(graph, { ...inputs, ...data.parameters() });
      const actual = await program.run(inputs);
      for (const [name, array] of Object.entries(expected)) {
        const found = actual[name];
        const problem = found ? difference(found, array, { exact, through, scale }) : "missing";
        const run = batchSize === undefined ? "" : ` at batch size ${batchSize}`;
        if (problem) failures.push(`${name}${run}: ${problem}`);
      }
    }
  } finally {
    await program.dispose();
  }
  if (failures.length > 0) throw new Error(failures.join("\n"));
}

function hasBatch(graph: Graph): boolean {
  return graph.inputs.some(({ shape }) => !isStatic(shape));
}

export function buildCase(test: Case) {
  const data = new CaseData(test.name);
  const built = test.build(data);
  return { graph: graphOf(built instanceof Tensor ? { y: built } : built), data };
}
