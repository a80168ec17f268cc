/** Networks on the reference interpreter, with weights of which none is zero, as some are at first. */
import { evaluateFloat64 } from "../../src/engine/reference/evaluate.ts";
import { graphOf, leafName } from "../../src/engine/graph/graph.ts";
import { type NdArray, toNumbers } from "../../src/engine/arrays/ndarray.ts";
import { resolve } from "../../src/engine/graph/shape.ts";
import type { Tensor } from "../../src/engine/graph/tensor.ts";
import type { ParamsRoot } from "../../src/nn/params.ts";
import { randomArray } from "./arrays.ts";

/** Random values in [−½, ½) of all weights; variances are in [½, 1½). */
export function randomValues(
  { declared }: Pick<ParamsRoot, "declared">,
  seed = 1,
): Record<string, NdArray> {
  return Object.fromEntries(
    [...declared].map(([name, { tensor }], i) => {
      const low = name.endsWith("running_var") ? 0.5 : -0.5;
      const shape = resolve(tensor.shape, undefined);
      return [name, randomArray(seed + i, "float32", shape, low, low + 1)];
    }),
  );
}

/** The value of a tensor. */
export function evaluated(output: Tensor, values: Readonly<Record<string, NdArray>>): NdArray {
  const graph = graphOf({ output });
  const names = [...graph.inputs, ...graph.parameters].map(leafName);
  const given = Object.fromEntries(names.map((name) => [name, values[name]!]));
  return evaluateFloat64(graph, given)["output"]!;
}

/** Its numbers. */
export function numbersOf(output: Tensor, values: Readonly<Record<string, NdArray>>): number[] {
  return toNumbers(evaluated(output, values));
}
