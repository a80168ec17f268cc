/** Central finite differences of a graph with one scalar output, through the reference interpreter. */
import { evaluateFloat64 } from "../../src/engine/reference/evaluate.ts";
import { type Graph, graphOf, leafName } from "../../src/engine/graph/graph.ts";
import { type NdArray, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import type { Tensor } from "../../src/engine/graph/tensor.ts";

export type Values = Readonly<Record<string, NdArray>>;

/** The graph's outputs for those of the values that it has leaves for. */
export function runWith(graph: Graph, values: Values): Record<string, NdArray> {
  const names = [...graph.inputs, ...graph.parameters].map(leafName);
  return evaluateFloat64(graph, Object.fromEntries(names.map((name) => [name, values[name]!])));
}

/** Step of the differences: the error of O(step⁴) and the rounding of the function meet near 1e-12. */
const STEP = 5e-4;

/**
 * ∂loss/∂leaf for every element of a float64 leaf, by the five-point formula
 * (8·(f(h) − f(−h)) − (f(2h) − f(−2h))) / 12h.
 */
export function finiteDifferences(loss: Tensor, leaf: Tensor, values: Values): number[] {
  const graph = graphOf({ loss });
  const name = leafName(leaf);
  const array = values[name] as NdArray<"float64">;
  const at = (index: number, shift: number) => {
    const data = array.data.slice();
    data[index]! += shift;
    return toNumbers(runWith(graph, { ...values, [name]: { ...array, data } })["loss"]!)[0]!;
  };
  return Array.from(array.data, (_, i) => {
    const near = at(i, STEP) - at(i, -STEP);
    const far = at(i, 2 * STEP) - at(i, -2 * STEP);
    return (8 * near - far) / (12 * STEP);
  });
}
