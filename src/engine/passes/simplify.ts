/**
 * Rewrites a graph into a smaller one with the same results: inlines the bodies of recomputed blocks, removes operations without
 * effect, folds constants, merges common subexpressions, and drops nodes that nothing reads.
 *
 * Algebraic rules return a simpler tensor of the same value, or undefined. Their inputs are already simplified, and nodes that
 * they add through `make` are simplified again.
 */
import { inlineBody } from "../graph/recompute.ts";
import { evaluateNode } from "../reference/evaluate.ts";
import { constant, full } from "../graph/functional.ts";
import { type Graph, graphOf, is } from "../graph/graph.ts";
import { castArray, type NdArray, ndarray, sizeOf } from "../arrays/ndarray.ts";
import type { OpName, Ops } from "../graph/ops.ts";
import { broadcast, isStatic, sameShape, type Shape } from "../graph/shape.ts";
import { applyMany, type Node, type Tensor } from "../graph/tensor.ts";

/** Adds a simplified node and returns its first output. */
type Make = <K extends OpName>(op: K, inputs: readonly Tensor[], attributes: Ops[K]) => Tensor;

interface Context<K extends OpName> {
  readonly inputs: readonly Tensor[];
  readonly attributes: Ops[K];
  readonly output: Tensor;
  readonly make: Make;
}

type Row<K extends OpName> = (context: Context<K>) => Tensor | undefined;

/** Returns a simpler form of the node on these inputs, or undefined if there is none. */
function simplifyNode<K extends OpName>(
  node: Node<K>,
  inputs: readonly Tensor[],
  make: Make,
): Tensor | undefined {
  return rows[node.op]?.({ inputs, attributes: node.attributes, output: node.outputs[0]!, make });
}

/** Returns the number that fills a tensor, or undefined if it is not filled with one. */
function uniform(x: Tensor): number | undefined {
  return is(x.node, "full") ? x.node.attributes.value : undefined;
}

/** Returns x if it has the shape of the output. */
function ifWhole(x: Tensor, output: Tensor): Tensor | undefined {
  return sameShape(x.shape, output.shape) ? x : undefined;
}

function fullLike(output: Tensor, value: number): Tensor {
  return full(output.shape, value, output.dtype);
}

/**
 * Removes repetition from elementwise operands: a `full` becomes a scalar and an `expand` is dropped if broadcasting gives the same
 * shape.
 */
function shrunk(inputs: readonly Tensor[], output: Tensor): Tensor[] | undefined {
  let changed = false;
  const kept = [...inputs];
  for (const [i, x] of inputs.entries()) {
    const smaller = smallerForm(x);
    if (!smaller) continue;
    const shapes = kept.map((other, j) => (j === i ? smaller.shape : other.shape));
    const result = shapes.reduce<Shape | undefined>(
      (shape, next) => shape && broadcast(shape, next),
      [],
    );
    if (!result || !sameShape(result, output.shape)) continue;
    kept[i] = smaller;
    changed = true;
  }
  return changed ? kept : undefined;
}

function smallerForm(x: Tensor): Tensor | undefined {
  if (is(x.node, "expand")) return x.node.inputs[0];
  const value = uniform(x);
  return value !== undefined && x.rank > 0 ? full([], value, x.dtype) : undefined;
}

type Elementwise =
  | "add"
  | "sub"
  | "mul"
  | "div"
  | "pow"
  | "minimum"
  | "maximum"
  | "equal"
  | "less"
  | "lessEqual"
  | "where";

function elementwise<K extends Elementwise>(op: K, row?: Row<K>): Row<K> {
  return (context) => {
    const simpler = row?.(context);
    if (simpler) return simpler;
    const { inputs, output, attributes, make } = context;
    const fewer = shrunk(inputs, output);
    return fewer && make(op, fewer, attributes);
  };
}

/** Computes the result of two operands that are each filled with one number. */
function fold(
  { inputs, output }: Context<OpName>,
  f: (a: number, b: number) => number,
): Tensor | undefined {
  const [a, b] = [uniform(inputs[0]!), uniform(inputs[1]!)];
  return a === undefined || b === undefined ? undefined : fullLike(output, f(a, b));
}

const add: Row<"add"> = (context) => {
  const { inputs, output } = context;
  const [a, b] = inputs as [Tensor, Tensor];
  if (uniform(a) === 0) return ifWhole(b, output);
  if (uniform(b) === 0) return ifWhole(a, output);
  return fold(context, (x, y) => x + y);
};

const sub: Row<"sub"> = (context) => {
  const { inputs, output } = context;
  if (uniform(inputs[1]!) === 0) return ifWhole(inputs[0]!, output);
  return fold(context, (x, y) => x - y);
};

const mul: Row<"mul"> = (context) => {
  const { inputs, output, make } = context;
  for (const [i, factor] of inputs.map(uniform).entries()) {
    if (factor === undefined) continue;
    const other = inputs[1 - i]!;
    if (factor === 0) return fullLike(output, 0);
    if (factor === 1) return ifWhole(other, output);
    if (factor === -1 && ifWhole(other, output)) return make("neg", [other], {});
    // c·(d·x) = (c·d)·x holds for floats only: integers would overflow at other places.
    const inner = is(other.node, "mul") && output.dtype === "float32" ? other.node.inputs : [];
    const j = inner.findIndex((x) => uniform(x) !== undefined && x.rank === 0);
    if (j >= 0 && ifWhole(inner[1 - j]!, output)) {
      const product = full([], factor * uniform(inner[j]!)!, output.dtype);
      return make("mul", [inner[1 - j]!, product], {});
    }
  }
  return fold(context, (x, y) => x * y);
};

const div: Row<"div"> = (context) => {
  const { inputs, output } = context;
  if (uniform(inputs[1]!) === 1) return ifWhole(inputs[0]!, output);
  const isFloat = output.dtype === "float32";
  return isFloat && uniform(inputs[1]!) !== 0 ? fold(context, (x, y) => x / y) : undefined;
};

const pow: Row<"pow"> = ({ inputs, output, make }) => {
  const [x, exponent] = inputs as [Tensor, Tensor];
  if (!ifWhole(x, output)) return undefined;
  if (uniform(exponent) === 1) return x;
  return uniform(exponent) === 2 ? make("mul", [x, x], {}) : undefined;
};

const neg: Row<"neg"> = ({ inputs, output }) => {
  const [x] = inputs as [Tensor];
  if (is(x.node, "neg")) return x.node.inputs[0];
  const value = uniform(x);
  return value === undefined ? undefined : fullLike(output, -value);
};

const reshape: Row<"reshape"> = ({ inputs, output, make }) => {
  const [x] = inputs as [Tensor];
  if (sameShape(x.shape, output.shape)) return x;
  const value = uniform(x);
  if (value !== undefined) return fullLike(output, value);
  return is(x.node, "reshape")
    ? make("reshape", [x.node.inputs[0]!], { shape: output.shape })
    : undefined;
};

const transpose: Row<"transpose"> = ({ inputs, attributes: { permutation }, output, make }) => {
  const [x] = inputs as [Tensor];
  if (permutation.every((axis, i) => axis === i)) return x;
  const value = uniform(x);
  if (value !== undefined) return fullLike(output, value);
  if (!is(x.node, "transpose")) return undefined;
  const inner = x.node.attributes.permutation;
  return make("transpose", [x.node.inputs[0]!], {
    permutation: permutation.map((axis) => inner[axis]!),
  });
};

const expand: Row<"expand"> = ({ inputs, output }) => {
  const value = uniform(inputs[0]!);
  return value === undefined ? ifWhole(inputs[0]!, output) : fullLike(output, value);
};

/** A reduction over axes of size 1 is a reshape. */
const reduction: Row<"sum" | "mean" | "max"> = ({ inputs, attributes, output, make }) => {
  const [x] = inputs as [Tensor];
  return attributes.axes.every((axis) => x.shape[axis] === 1)
    ? make("reshape", [x], { shape: output.shape })
    : undefined;
};

/** Concatenating all parts of a split in their order gives the tensor that was split. */
const concat: Row<"concat"> = ({ inputs, attributes: { axis } }) => {
  const [first] = inputs as [Tensor];
  const { node } = first;
  if (!is(node, "split") || node.attributes.axis !== axis) return undefined;
  const whole =
    inputs.length === node.outputs.length &&
    inputs.every((x, i) => x.node === (node as unknown as Node) && x.index === i);
  return whole ? node.inputs[0] : undefined;
};

/** A product reads transposed operands at no cost, so it absorbs a transpose of the last two axes. */
const matmul: Row<"matmul"> = ({ inputs, attributes, make }) => {
  const [a, b] = inputs.map(withoutSwap) as [Tensor | undefined, Tensor | undefined];
  if (!a && !b) return undefined;
  return make("matmul", [a ?? inputs[0]!, b ?? inputs[1]!], {
    transposeA: attributes.transposeA !== (a !== undefined),
    transposeB: attributes.transposeB !== (b !== undefined),
  });
};

/** Returns the tensor whose last two axes were swapped to make this one, or undefined if it was not made so. */
function withoutSwap(x: Tensor): Tensor | undefined {
  if (!is(x.node, "transpose")) return undefined;
  const { permutation } = x.node.attributes;
  const last = permutation.length - 1;
  const swapped = permutation.every((axis, i) => {
    if (i === last) return axis === last - 1;
    return i === last - 1 ? axis === last : axis === i;
  });
  return swapped ? x.node.inputs[0] : undefined;
}

const cast: Row<"cast"> = ({ inputs, attributes: { to } }) =>
  inputs[0]!.dtype === to ? inputs[0] : undefined;

const rows: { readonly [K in OpName]?: Row<K> } = {
  add: elementwise("add", add),
  sub: elementwise("sub", sub),
  mul: elementwise("mul", mul),
  div: elementwise("div", div),
  pow: elementwise("pow", pow),
  minimum: elementwise("minimum"),
  maximum: elementwise("maximum"),
  equal: elementwise("equal"),
  less: elementwise("less"),
  lessEqual: elementwise("lessEqual"),
  where: elementwise("where"),
  neg,
  reshape,
  transpose,
  expand,
  sum: reduction,
  mean: reduction,
  max: reduction,
  concat,
  matmul,
  cast,
};

/** Simplifies a graph. The output names stay the same; inputs that no output depends on disappear. */
export function simplify(graph: Graph): Graph {
  return mergeEqual(inlineRecomputed(graph));
}

/** Replaces each recomputed block by its body. A barrier keeps the copies of the backward pass from being merged with it. */
export function inlineRecomputed(graph: Graph): Graph {
  if (!graph.nodes.some((node) => node.op === "recompute")) return graph;
  const inlined = rewrite(graph, (node, inputs) => {
    if (is(node, "recompute")) return inlineBody(node, inputs);
    return remake(node, inputs);
  });
  return inlineRecomputed(inlined);
}

/** Applies algebraic rules and merges common subexpressions, in one walk from the leaves up. */
function mergeEqual(graph: Graph): Graph {
  const known = new Map<string, readonly Tensor[]>();
  const identities = new Map<object, number>();

  const merged = (node: Node, inputs: readonly Tensor[]): readonly Tensor[] => {
    const key = keyOf(node.op, inputs, node.attributes, identities);
    const before = known.get(key);
    if (before) return before;
    const remade = remake(node, inputs);
    const outputs = folded(remade) ?? remade;
    known.set(key, outputs);
    return outputs;
  };

  /** Nodes that a rule makes go through the rules again. */
  const make: Make = (op, inputs, attributes) => {
    const [candidate] = applyMany(op, inputs, attributes);
    return visit(candidate!.node, inputs)[0]!;
  };

  const visit = (node: Node, inputs: readonly Tensor[]): readonly Tensor[] => {
    const simpler = simplifyNode(node, inputs, make);
    return simpler ? [simpler] : merged(node, inputs);
  };

  return rewrite(graph, visit);
}

/** Constants of more elements than this are not folded, to keep them out of the model file. */
const LARGEST_CONSTANT = 4096;

/** Returns the outputs of a node as constants if all its inputs are known, and undefined otherwise. */
function folded(outputs: readonly Tensor[]): Tensor[] | undefined {
  const { node } = outputs[0]!;
  if (node.inputs.length === 0 || ![...node.inputs, ...outputs].every(isSmall)) return undefined;
  const values = node.inputs.map(valueOf);
  if (!values.every((value) => value !== undefined)) return undefined;
  return evaluateNode(node, values).map((value, i) =>
    constant(castArray(value, outputs[i]!.dtype)),
  );
}

function isSmall({ shape }: Tensor): boolean {
  return isStatic(shape) && sizeOf(shape) <= LARGEST_CONSTANT;
}

function valueOf({ node, shape, dtype }: Tensor): NdArray | undefined {
  if (is(node, "constant")) return node.attributes.value;
  if (!is(node, "full") || !isStatic(shape)) return undefined;
  return ndarray(dtype, shape, new Array<number>(sizeOf(shape)).fill(node.attributes.value));
}

/** Walks a graph from the leaves up, replacing the outputs of every node. */
function rewrite(
  graph: Graph,
  replace: (node: Node, inputs: readonly Tensor[]) => readonly Tensor[],
): Graph {
  const made = new Map<Tensor, Tensor>();
  for (const node of graph.nodes) {
    const outputs = replace(
      node,
      node.inputs.map((tensor) => made.get(tensor)!),
    );
    for (const [i, output] of node.outputs.entries()) made.set(output, outputs[i]!);
  }
  const named = Object.entries(graph.outputs).map(([name, tensor]) => [name, made.get(tensor)!]);
  return graphOf(Object.fromEntries(named) as Record<string, Tensor>);
}

/** Returns the node's own outputs if its inputs are unchanged, and those of a copy otherwise. */
function remake(node: Node, inputs: readonly Tensor[]): readonly Tensor[] {
  return inputs.every((tensor, i) => tensor === node.inputs[i])
    ? node.outputs
    : applyMany(node.op, inputs, node.attributes, node.scope);
}

/** Returns a key that is equal only for nodes with equal values. Constants are compared by identity. */
function keyOf<K extends OpName>(
  op: K,
  inputs: readonly Tensor[],
  attributes: Ops[K],
  identities: Map<object, number>,
): string {
  const operands = inputs.map((tensor) => `${tensor.node.id}:${tensor.index}`).join();
  return `${op}(${operands})${attributeKey(attributes, identities)}`;
}

function attributeKey(attributes: object, identities: Map<object, number>): string {
  if (!("value" in attributes) || typeof attributes.value === "number") {
    // JSON cannot represent −0, infinities and NaN.
    return JSON.stringify(attributes, (_, value: unknown) =>
      typeof value === "number" && (!Number.isFinite(value) || Object.is(value, -0))
        ? `#${Object.is(value, -0) ? "-0" : value}`
        : value,
    );
  }
  const array = attributes.value as object;
  const id = identities.get(array) ?? identities.size;
  identities.set(array, id);
  return `@${id}`;
}
