/** Runs a case on a backend and on the reference interpreter, and says where the two differ. */
import type { DType } from "../../src/engine/arrays/ndarray.ts";
import { DeviceError } from "../../src/engine/errors.ts";
import { evaluate } from "../../src/engine/reference/evaluate.ts";
import { type Graph, graphOf, is } from "../../src/engine/graph/graph.ts";
import type { OpName } from "../../src/engine/graph/ops.ts";
import type { Backend } from "../../src/engine/runtime/backend.ts";
import { isStatic } from "../../src/engine/graph/shape.ts";
import { Tensor } from "../../src/engine/graph/tensor.ts";
import { type Case, CaseData, defaultBatches } from "./case.ts";
import { type Closeness, coarser, difference } from "./compare.ts";

/** Runs a case at each of its batch sizes: a sentence for each output that is not what the reference says. */
export async function runCase(backend: Backend, test: Case): Promise<string[]> {
  const { graph, data } = buildCase(test);
  const closeness = closenessOf(test, graph);
  const program = await backend.compile(graph, { weights: data.weightSource });
  const failures: string[] = [];
  try {
    const batches = hasBatch(graph) ? (test.batches ?? defaultBatches) : [undefined];
    for (const batchSize of batches) {
      const inputs = data.inputs(graph, batchSize);
      const expected = evaluate(graph, { ...inputs, ...data.parameters() });
      const actual = await program.run(inputs);
      for (const [name, array] of Object.entries(expected)) {
        const found = actual[name];
        const problem = found ? difference(found, array, closeness) : "missing";
        const run = batchSize === undefined ? "" : ` at batch size ${batchSize}`;
        if (problem) failures.push(`${name}${run}: ${problem}`);
      }
    }
  } finally {
    await program.dispose();
  }
  return failures;
}

function closenessOf({ exact = false, scale = 0 }: Case, { nodes }: Graph): Closeness {
  const dtypes = nodes.flatMap(({ outputs }) => outputs.map(({ dtype }) => dtype));
  return { exact, scale, through: dtypes.reduce(coarser, "bool") };
}

function hasBatch(graph: Graph): boolean {
  return graph.inputs.some(({ shape }) => !isStatic(shape));
}

/** Compiles a case for a device that lacks one of its dtypes: what is wrong, if not refused by an error that names one. */
export async function runRefusal(
  backend: Backend,
  test: Case,
  lacking: readonly DType[],
): Promise<string[]> {
  const { graph, data } = buildCase(test);
  try {
    const program = await backend.compile(graph, { weights: data.weightSource });
    await program.dispose();
    return [`${backend.device} made a program of ${lacking.join(" or ")}`];
  } catch (error) {
    const named = lacking.some((dtype) => String(error).includes(`cannot compute in ${dtype}`));
    return error instanceof DeviceError && named ? [] : [String(error)];
  }
}

/** Every dtype that a case computes in. */
export function dtypesOf(test: Case): Set<DType> {
  const { nodes } = buildCase(test).graph;
  return new Set(nodes.flatMap(({ outputs }) => outputs.map(({ dtype }) => dtype)));
}

/** Every op of a case's graph, those inside of recomputed blocks too. */
export function opsOf(test: Case): Set<OpName> {
  const opsIn = ({ nodes }: Graph): OpName[] =>
    nodes.flatMap((node) => [
      node.op,
      ...(is(node, "recompute") ? opsIn(node.attributes.body) : []),
    ]);
  return new Set(opsIn(buildCase(test).graph));
}

function buildCase(test: Case) {
  const data = new CaseData(test.name);
  const built = test.build(data);
  return { graph: graphOf(built instanceof Tensor ? { y: built } : built), data };
}
