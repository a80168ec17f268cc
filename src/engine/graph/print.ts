/** Prints a graph as text in static single assignment form, one line for each node. */
import { type Graph, is, isLeaf, leafName } from "./graph.ts";
import { type NdArray, sizeOf, toNumbers } from "../arrays/ndarray.ts";
import { type Dim, formatDim, formatShape } from "./shape.ts";
import type { Node, Tensor } from "./tensor.ts";

/** Number of elements of a constant that are printed. */
const SHOWN = 4;

/** Attributes that the name before or the type after the colon already shows. */
const SAID_ELSEWHERE = new Set(["name", "shape", "dtype", "to", "body"]);

/**
 * Prints a graph. Tensors are numbered in the order of the nodes, leaves have their names, and scalars their values. The block of
 * a recompute node is indented below it.
 *
 * @example
 * x = input : float32 [B, 64, 384]
 * qkv.weight = parameter : float32 [1152, 384]
 * %0 = linear(x, qkv.weight) : float32 [B, 64, 1152]  // qkv
 * return y: %0
 */
export function graphToString(graph: Graph): string {
  let count = 0;
  const names: Names = { of: new Map(), fresh: () => `%${count++}` };
  return [...linesOf(graph, names), `return ${formatOutputs(graph, names)}`].join("\n");
}

interface Names {
  readonly of: Map<Tensor, string>;
  readonly fresh: () => string;
}

/** Returns the lines of nodes, and names every tensor that they make. */
function linesOf({ nodes }: Graph, names: Names): string[] {
  return nodes.flatMap((node) => {
    for (const output of node.outputs) names.of.set(output, nameOf(output) ?? names.fresh());
    if (isScalar(node)) return [];
    return [formatNode(node, names), ...(is(node, "recompute") ? linesOfBlock(node, names) : [])];
  });
}

/** Returns the lines of a recompute node's body. Captured tensors keep their names; its other inputs get new ones. */
function linesOfBlock(node: Node<"recompute">, outside: Names): string[] {
  const { body } = node.attributes;
  const names = { ...outside, of: new Map(outside.of) };
  for (const [i, inside] of body.inputs.entries()) {
    if (inside !== node.inputs[i]) names.of.set(inside, names.fresh());
  }
  const header = `block(${body.inputs.map((inside) => names.of.get(inside)).join(", ")})`;
  const lines = [header, ...linesOf(body, names), `return ${formatOutputs(body, names)}`];
  return lines.map((line) => `  ${line}`);
}

/** Returns the name of a leaf or the value of a scalar. */
function nameOf(tensor: Tensor): string | undefined {
  if (isLeaf(tensor)) return leafName(tensor);
  return isScalar(tensor.node) ? String(tensor.node.attributes.value) : undefined;
}

function isScalar(node: Node): node is Node<"full"> {
  return is(node, "full") && node.attributes.shape.length === 0;
}

function formatNode(node: Node, names: Names): string {
  const results = node.outputs.map((output) => names.of.get(output));
  const operands = [...node.inputs.map((x) => names.of.get(x) ?? "?"), ...formatAttributes(node)];
  const call = isLeaf(node.outputs[0]!) ? node.op : `${node.op}(${operands.join(", ")})`;
  const types = node.outputs.map(({ dtype, shape }) => `${dtype} ${formatShape(shape)}`);
  const scope = node.scope && !isLeaf(node.outputs[0]!) ? `  // ${node.scope}` : "";
  return `${results.join(", ")} = ${call} : ${types.join(", ")}${scope}`;
}

function formatOutputs({ outputs }: Graph, names: Names): string {
  return Object.entries(outputs)
    .map(([name, tensor]) => `${name}: ${names.of.get(tensor) ?? "?"}`)
    .join(", ");
}

function formatAttributes(node: Node): string[] {
  if (is(node, "constant")) return [formatConstant(node.attributes.value)];
  if (is(node, "full")) return [String(node.attributes.value)];
  return Object.entries(node.attributes).flatMap(([key, value]: [string, unknown]) => {
    if (SAID_ELSEWHERE.has(key) || value === false) return [];
    return [value === true ? key : `${key}: ${formatValue(value)}`];
  });
}

function formatValue(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(formatValue).join(", ")}]`;
  return typeof value === "string" ? value : formatDim(value as Dim);
}

function formatConstant({ shape, dtype, data }: NdArray): string {
  const first = toNumbers({ shape, dtype, data: data.slice(0, SHOWN) });
  const shown = first.map((value) => String(Number(value.toPrecision(4))));
  return `[${[...shown, ...(sizeOf(shape) > SHOWN ? ["…"] : [])].join(", ")}]`;
}
