/** Where a graph only cuts a weight into rows, which then need not be read but where they lie. */
import { type Graph, is, leafName, nodesBehind } from "../graph/graph.ts";
import { resolve, sameShape, type Shape } from "../graph/shape.ts";
import type { Node, Tensor } from "../graph/tensor.ts";

/** Rows of a weight, one after another, that a node makes a tensor of. */
export interface RowRange {
  readonly output: Tensor;
  readonly start: number;
  readonly rows: number;
}

/** How a graph reads a weight: whole, and as rows. */
export interface WeightReads {
  readonly whole: boolean;
  readonly cuts: readonly (readonly RowRange[])[];
}

/** How a weight is read by the nodes of a graph; one that nobody reads is read whole. */
export function readsOf(weight: Tensor, { nodes, outputs }: Graph): WeightReads {
  const readers = nodes.filter(({ inputs }) => inputs.includes(weight));
  const cuts = readers.flatMap((node) => {
    const ranges = rangesOf(node, weight.shape);
    return ranges ? [ranges] : [];
  });
  const isOutput = Object.values(outputs).includes(weight);
  return { whole: cuts.length < readers.length || readers.length === 0 || isOutput, cuts };
}

/** The axis along which a tensor has rows: the first that is longer than 1, before which nothing lies in between. */
export function rowAxis(shape: Shape): number {
  const axis = shape.findIndex((size) => size !== 1);
  return axis < 0 ? 0 : axis;
}

/** The rows that a split or a slice takes; undefined where it does anything else. */
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

/** Whether every node that reads the leaf comes before the output, and so before it is written. */
export function mayOverwrite(graph: Graph, leaf: string, output: Tensor): boolean {
  const tensor = [...graph.inputs, ...graph.parameters].find((other) => leafName(other) === leaf);
  if (!tensor || tensor === output) return false;
  const before = new Set(nodesBehind([output]));
  return graph.nodes.every((node) => !node.inputs.includes(tensor) || before.has(node));
}
