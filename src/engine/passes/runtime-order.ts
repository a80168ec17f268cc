/** The order in which ONNX Runtime computes a graph, on which depends what lives at a time. */
import type { Graph } from "../graph/graph.ts";
import type { Node } from "../graph/tensor.ts";

/**
 * The same graph in ONNX Runtime's default order: depth first from what nothing reads, the last first, and from each node
 * through its inputs, again the last first (`Graph::ReverseDFSFrom`).
 */
export function inRuntimeOrder(graph: Graph): Graph {
  const place = new Map(graph.nodes.map((node, i) => [node, i] as const));
  const read = new Set(graph.nodes.flatMap(({ inputs }) => inputs.map(({ node }) => node)));
  const ordered: Node[] = [];
  const visited = new Set<Node>();
  const stack: { readonly node: Node; readonly done: boolean }[] = graph.nodes
    .filter((node) => !read.has(node))
    .map((node) => ({ node, done: false }));
  for (let top = stack.pop(); top; top = stack.pop()) {
    const { node, done } = top;
    if (done) ordered.push(node);
    if (done || visited.has(node)) continue;
    visited.add(node);
    stack.push({ node, done: true });
    const before = [...new Set(node.inputs.map((tensor) => tensor.node))];
    before.sort((a, b) => place.get(a)! - place.get(b)!);
    for (const each of before) if (!visited.has(each)) stack.push({ node: each, done: false });
  }
  return { ...graph, nodes: ordered };
}
