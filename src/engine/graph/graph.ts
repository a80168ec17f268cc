/**
 * A graph is defined by its named outputs, from which everything else is reached. Nodes are numbered in the order of their
 * creation, so sorting by number gives a topological order.
 */
import { ShapeError } from "../errors.ts";
import type { OpName } from "./ops.ts";
import { formatShape, sameShape } from "./shape.ts";
import { applyMany, type Node, type Tensor } from "./tensor.ts";

export interface Graph {
  /** The inputs of a run, in order of first use. */
  readonly inputs: readonly Tensor[];
  /** The weights, in order of first use. */
  readonly parameters: readonly Tensor[];
  readonly outputs: Readonly<Record<string, Tensor>>;
  /** All nodes, each of them after its inputs. */
  readonly nodes: readonly Node[];
}

/**
 * Collects the graph behind named outputs.
 *
 * @throws ShapeError when two different leaves share a name
 */
export function graphOf(outputs: Readonly<Record<string, Tensor>>): Graph {
  const nodes = nodesBehind(Object.values(outputs));
  const leaves = (op: OpName) =>
    nodes.filter((node) => node.op === op).map((node) => node.outputs[0]!);
  const graph = { inputs: leaves("input"), parameters: leaves("parameter"), outputs, nodes };
  const seen = new Map<string, Tensor>();
  for (const leaf of [...graph.inputs, ...graph.parameters]) {
    const name = leafName(leaf);
    const other = seen.get(name);
    if (other) {
      const same = sameShape(other.shape, leaf.shape) && other.dtype === leaf.dtype;
      throw new ShapeError(
        `Two leaves of one graph are named ${name} (${other.dtype} ${formatShape(other.shape)} and ${leaf.dtype} ${formatShape(leaf.shape)})` +
          `${same ? ": make the tensor once and use it twice" : ": give them different names"}.`,
      );
    }
    seen.set(name, leaf);
  }
  return graph;
}

/** Returns the name of an input or a parameter. */
export function leafName(tensor: Tensor): string {
  const { node } = tensor;
  if (is(node, "input") || is(node, "parameter")) return node.attributes.name;
  throw new ShapeError(`${node.op} is neither an input nor a parameter, so it has no name.`);
}

/** Returns true if the tensor is an input or a parameter, whose value a run is given. */
export function isLeaf({ node }: Tensor): boolean {
  return is(node, "input") || is(node, "parameter");
}

/** Narrows the type of a node to one op and its attributes. */
export function is<K extends OpName>(node: Node, op: K): node is Node<K> {
  return node.op === op;
}

/**
 * Returns all nodes that the tensors depend on, in topological order, up to those of the tensors in `until`, which are left out. Not
 * recursive, since graphs are thousands of nodes deep.
 */
export function nodesBehind(tensors: readonly Tensor[], until: readonly Tensor[] = []): Node[] {
  const ends = new Set(until.map((tensor) => tensor.node));
  const seen = new Set<Node>();
  const stack = tensors.map((tensor) => tensor.node);
  while (stack.length > 0) {
    const node = stack.pop()!;
    if (seen.has(node) || ends.has(node)) continue;
    seen.add(node);
    for (const input of node.inputs) stack.push(input.node);
  }
  return [...seen].sort((a, b) => a.id - b.id);
}

/**
 * Creates copies of nodes with other inputs.
 *
 * @param made the replacement of each tensor, to which the new outputs are added; inputs without one stay as they are
 */
export function replay(nodes: readonly Node[], made: Map<Tensor, Tensor>): void {
  for (const node of nodes) {
    const inputs = node.inputs.map((tensor) => made.get(tensor) ?? tensor);
    const outputs = applyMany(node.op, inputs, node.attributes, node.scope);
    for (const [i, output] of node.outputs.entries()) made.set(output, outputs[i]!);
  }
}
