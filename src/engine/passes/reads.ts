/** How a graph reads its leaves: weights that it only slices into rows, and state that may be overwritten. */
import { type Graph, is, leafName, nodesBehind } from "../graph/graph.ts";
import { resolve, sameShape, type Shape } from "../graph/shape.ts";
import type { Node, Tensor } from "../graph/tensor.ts";

/** Consecutive rows of a weight that a node makes a tensor of. */
export interface RowRange {
  readonly output: Tensor;
  readonly start: number;
  readonly rows: number;
}

/** The ways in which a graph reads a weight: as a whole, and by the rows that it slices out of it. */
export interface WeightReads {
  readonly whole: boolean;
  readonly cuts: readonly (readonly RowRange[])[];
}

/** Returns how the nodes of a graph read a weight. A weight that no node reads counts as read whole. */
export function readsOf(weight: Tensor, { nodes, outputs }: Graph): WeightReads {
  const readers = nodes.filter(({ inputs }) => inputs.includes(weight));
  const cuts = readers.flatMap((node) => {
    const ranges = rangesOf(node, weight.shape);
    return ranges ? [ranges] : [];
  });
  const isOutput = Object.values(outputs).includes(weight);
  return { whole: cuts.length < readers.length || readers.length === 0 || isOutput, cuts };
}

/** Returns the rows of a parameter that a tensor consists of, or undefined if it is computed in another way. */
export function rowRangeOf(
  tensor: Tensor,
): { readonly parameter: Tensor; readonly start: number; readonly rows: number } | undefined {
  if (is(tensor.node, "parameter")) {
    return { parameter: tensor, start: 0, rows: resolve(tensor.shape, undefined)[0]! };
  }
  const [parameter] = tensor.node.inputs;
  if (!parameter || !is(parameter.node, "parameter")) return undefined;
  const range = rangesOf(tensor.node, parameter.shape)?.find(({ output }) => output === tensor);
  return range && { parameter, start: range.start, rows: range.rows };
}

/** The nodes that take rows of a matrix by their indices. */
export function gathersOf(weight: Tensor, { nodes }: Pick<Graph, "nodes">): readonly Node[] {
  if (weight.rank !== 2) return [];
  return nodes.filter(
    (node) => node.inputs[0] === weight && is(node, "gather") && node.attributes.axis === 0,
  );
}

/** Returns the axis whose slices are contiguous in memory: the first that is longer than 1. */
export function rowAxis(shape: Shape): number {
  const axis = shape.findIndex((size) => size !== 1);
  return axis < 0 ? 0 : axis;
}

/** Returns the rows that a split or a slice takes, or undefined for a node that does anything else. */
function rangesOf(node: Node, shape: Shape): readonly RowRange[] | undefined {
  const axis = rowAxis(shape);
  const rowsOf = (output: Tensor) => resolve(output.shape, undefined)[axis]!;
  if (is(node, "split") && node.attributes.axis === axis) {
    let start = 0;
    return node.outputs.map((output) => {
      const range = { output, start, rows: rowsOf(output) };
      start += range.rows;
      return range;
    });
  }
  if (!is(node, "slice") || node.attributes.steps[axis] !== 1) return undefined;
  const [output] = node.outputs as [Tensor];
  if (!sameShape(shape.slice(axis + 1), output.shape.slice(axis + 1))) return undefined;
  return [{ output, start: node.attributes.starts[axis]!, rows: rowsOf(output) }];
}

/** Returns true if the output may be written into the leaf's memory: every node that reads the leaf is needed to compute the output. */
export function mayOverwrite(graph: Graph, leaf: string, output: Tensor): boolean {
  const tensor = [...graph.inputs, ...graph.parameters].find((other) => leafName(other) === leaf);
  if (!tensor || tensor === output) return false;
  const before = new Set(nodesBehind([output]));
  return graph.nodes.every((node) => !node.inputs.includes(tensor) || before.has(node));
}
