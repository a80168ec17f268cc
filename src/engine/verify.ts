/** Checks that a graph is what every pass takes it for: run it after a pass that rewrites graphs. */
import { PatchwiseError, ShapeError } from "./errors.ts";
import { type Graph, is, isLeaf, leafName } from "./graph.ts";
import { inferRules, type TensorType } from "./infer.ts";
import type { OpName } from "./ops.ts";
import { formatShape, sameShape } from "./shape.ts";
import type { Node, Tensor } from "./tensor.ts";

/**
 * Infers every node again and compares, checks that each comes after its inputs, that the leaves
 * are listed under names of their own, and that nothing outside of the graph is used.
 *
 * @throws PatchwiseError naming the first node that is wrong
 */
export function verifyGraph(graph: Graph): void {
  const names = new Set<string>();
  for (const leaf of [...graph.inputs, ...graph.parameters]) {
    if (names.has(leafName(leaf))) fail(`Two leaves are named ${leafName(leaf)}.`);
    names.add(leafName(leaf));
    if (!graph.nodes.includes(leaf.node)) {
      fail(`The leaf ${leafName(leaf)} is not among the nodes of the graph.`);
    }
  }
  const listed = new Set([...graph.inputs, ...graph.parameters]);
  for (const node of graph.nodes) {
    const isInput = graph.inputs.includes(node.outputs[0]!);
    if (!listed.has(node.outputs[0]!) ? isLeaf(node.outputs[0]!) : is(node, "input") !== isInput) {
      fail(`${describe(node)} is not listed among the ${node.op}s of the graph.`);
    }
  }
  verifyNodes(graph, new Set(), "");
}

/** @param known tensors that exist before the first node */
function verifyNodes(graph: Graph, known: Set<Tensor>, where: string): void {
  const members = new Set(graph.nodes);
  if (members.size !== graph.nodes.length) fail(`A node is listed twice${where}.`);
  for (const node of graph.nodes) {
    for (const [i, tensor] of node.inputs.entries()) {
      if (known.has(tensor)) continue;
      const late = members.has(tensor.node);
      fail(
        `${describe(node)}${where} reads input ${i}, ${describe(tensor.node)}, which ${late ? "comes after it" : "is not in the graph"}.`,
      );
    }
    verifyTypes(node, where);
    if (is(node, "checkpoint")) {
      const { body } = node.attributes;
      verifyNodes(body, new Set(body.inputs), ` in the block of ${describe(node)}`);
    }
    for (const output of node.outputs) known.add(output);
  }
  for (const [name, tensor] of Object.entries(graph.outputs)) {
    if (!known.has(tensor)) {
      fail(`The output ${name}${where} is ${describe(tensor.node)}, which is not in the graph.`);
    }
  }
}

function verifyTypes(node: Node, where: string): void {
  const expected = inferAgain(node, where);
  if (expected.length !== node.outputs.length) {
    fail(
      `${describe(node)}${where} has ${node.outputs.length} outputs, expected ${expected.length}.`,
    );
  }
  for (const [i, output] of node.outputs.entries()) {
    if (output.node !== node || output.index !== i) {
      fail(`Output ${i} of ${describe(node)}${where} belongs to ${describe(output.node)}.`);
    }
    const { shape, dtype } = expected[i]!;
    if (!sameShape(shape, output.shape) || dtype !== output.dtype) {
      fail(
        `Output ${i} of ${describe(node)}${where} is ${output.dtype} ${formatShape(output.shape)}, expected ${dtype} ${formatShape(shape)}.`,
      );
    }
  }
}

function inferAgain<K extends OpName>(node: Node<K>, where: string): readonly TensorType[] {
  try {
    return inferRules[node.op](node.inputs, node.attributes);
  } catch (error) {
    if (!(error instanceof ShapeError)) throw error;
    return fail(`${describe(node)}${where}: ${error.message}.`);
  }
}

/** "node 12 (linear at blocks.0.attn.qkv)" */
function describe({ id, op, scope }: Pick<Node, "id" | "op" | "scope">): string {
  return `node ${id} (${op}${scope ? ` at ${scope}` : ""})`;
}

function fail(message: string): never {
  throw new PatchwiseError(message.charAt(0).toUpperCase() + message.slice(1));
}
