/**
 * Tests whether a device's fused attention works. ONNX Runtime's flash attention for WebGPU assumes certain subgroup sizes of the
 * adapter; with others it silently leaves out keys.
 */
import { recordOf } from "../records.ts";
import { evaluate } from "../reference/evaluate.ts";
import { attention, input } from "../graph/functional.ts";
import { graphOf } from "../graph/graph.ts";
import { ndarray, sizeOf, toNumbers } from "../arrays/ndarray.ts";
import { type OpenExecutor, trialPlan } from "./executor.ts";

/** More tokens than the kernels for short sequences take, and not a multiple of any tile size. */
const queries = 41;
const keys = 70;
/** Rounding causes errors of about 1e-6, and a missing key errors of 0.1 and more. */
const tolerance = 1e-3;

/** Runs attention on the device and compares the result with the reference interpreter. */
export async function fusedAttentionWorks(open: OpenExecutor): Promise<boolean> {
  const leaves = {
    q: input("q", [1, queries, 64]),
    k: input("k", [1, keys, 64]),
    v: input("v", [1, keys, 64]),
    bias: input("bias", [1, 1, 1, keys]),
  };
  const { q, k, v, bias } = leaves;
  const graph = graphOf({
    plain: attention(q, k, v, { heads: 1 }),
    biased: attention(q, k, v, { heads: 2, bias }),
  });
  const inputs = recordOf(Object.keys(leaves), (name, i) => {
    const sides = leaves[name as keyof typeof leaves].shape as readonly number[];
    const values = Float32Array.from({ length: sizeOf(sides) }, (_, j) => Math.sin(j * (i + 2)));
    return ndarray("float32", sides, values);
  });
  const executor = await open(trialPlan(graph));
  try {
    const expected = evaluate(graph, inputs);
    const outputs = await executor.run(inputs);
    return Object.entries(outputs).every(([name, output]) => {
      const wanted = toNumbers(expected[name]!);
      return toNumbers(output).every((value, i) => Math.abs(value - wanted[i]!) < tolerance);
    });
  } finally {
    await executor.dispose();
  }
}
