/** Whether a state can be replaced in its own memory. */
import { type Graph, leafName, nodesBehind } from "../graph/graph.ts";
import type { Tensor } from "../graph/tensor.ts";

/** Whether every node that reads the leaf comes before the output, and so before it is written. */
export function mayOverwrite(graph: Graph, leaf: string, output: Tensor): boolean {
  const tensor = [...graph.inputs, ...graph.parameters].find((other) => leafName(other) === leaf);
  if (!tensor || tensor === output) return false;
  const before = new Set(nodesBehind([output]));
  return graph.nodes.every((node) => !node.inputs.includes(tensor) || before.has(node));
}
