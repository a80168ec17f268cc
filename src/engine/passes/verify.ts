/** Checks that a graph is well formed, for use after a pass that rewrites graphs. */
import { PatchwiseError, ShapeError } from "../errors.ts";
import { type Graph, is, leafName } from "../graph/graph.ts";
import { inferRules, type TensorType } from "../graph/infer.ts";
import type { OpName } from "../graph/ops.ts";
import { formatShape, sameShape } from "../graph/shape.ts";
import type { Node, Tensor } from "../graph/tensor.ts";

/**
 * Checks a graph: every node has the type that its op gives and comes after its inputs, the leaves are listed and have different
 * names, and nothing outside the graph is read.
 *
 * @throws PatchwiseError that names the first node at fault
 */
export function verifyGraph(graph: Graph): void {
  verifyLeaves(graph);
  verifyNodes(graph, new Set(), "");
}

function verifyLeaves({ inputs, parameters, nodes }: Graph): void {
  const members = new Set(nodes);
  const listed = { input: new Set(inputs), parameter: new Set(parameters) };
  const names = new Set<string>();
  for (const leaf of [...inputs, ...parameters]) {
    const name = leafName(leaf);
    if (names.has(name)) fail(`Two leaves are named ${name}.`);
    names.add(name);
    if (!members.has(leaf.node)) fail(`The leaf ${name} is not among the nodes of the graph.`);
  }
  for (const node of nodes) {
    if (!is(node, "input") && !is(node, "parameter")) continue;
    if (!listed[node.op].has(node.outputs[0]!)) {
      fail(`${describe(node)} is not listed among the ${node.op}s of the graph.`);
    }
  }
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
    if (is(node, "recompute")) {
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
