/**
 * Recomputation, also called gradient checkpointing (Chen et al., 2016, "Training Deep Nets with Sublinear Memory Cost"): a block
 * of the forward pass is one node with a body, so that the backward pass can compute it again instead of keeping its activations.
 */
import { type Graph, isLeaf, replay } from "./graph.ts";
import { full, input } from "./functional.ts";
import { apply, type Node, type Tensor } from "./tensor.ts";

/**
 * Runs a block without keeping its activations for the backward pass, which computes them again.
 *
 * The block may use weights and tensors from outside; they become inputs of the node.
 *
 * @example const y = recompute([x], (x) => transformerBlock(params, x));
 */
export function recompute(
  inputs: readonly Tensor[],
  block: (...inputs: Tensor[]) => Tensor,
): Tensor {
  const placeholders = inputs.map((x, i) => input(`input${i}`, x.shape, x.dtype));
  // Nodes are numbered in the order of creation: those of the block come after this one.
  const before = full([], 0).node.id;
  const output = block(...placeholders);
  const { nodes, captured } = cut(output, before, new Set(placeholders));
  const body: Graph = {
    inputs: [...placeholders, ...captured],
    parameters: [],
    outputs: { output },
    nodes,
  };
  return apply("recompute", [...inputs, ...captured], { body });
}

/** Copies the body's nodes with the given inputs, and returns its outputs. */
export function inlineBody(node: Node<"recompute">, inputs: readonly Tensor[]): Tensor[] {
  const { body } = node.attributes;
  const made = new Map(body.inputs.map((placeholder, i) => [placeholder, inputs[i]!]));
  replay(body.nodes, made);
  return Object.values(body.outputs).map((output) => made.get(output)!);
}

/** Returns the nodes made inside the block, and the leaves and older tensors that they read. */
function cut(output: Tensor, before: number, placeholders: ReadonlySet<Tensor>) {
  const nodes = new Set<Node>();
  const captured = new Set<Tensor>();
  const stack = [output];
  while (stack.length > 0) {
    const tensor = stack.pop()!;
    if (placeholders.has(tensor) || nodes.has(tensor.node)) continue;
    if (tensor.node.id < before || isLeaf(tensor)) captured.add(tensor);
    else {
      nodes.add(tensor.node);
      stack.push(...tensor.node.inputs);
    }
  }
  return {
    nodes: [...nodes].sort((a, b) => a.id - b.id),
    captured: [...captured].sort((a, b) => a.node.id - b.node.id || a.index - b.index),
  };
}
