/**
 * Reverse-mode differentiation: walks the graph from the loss back to the leaves, gets the gradients of each node's inputs
 * from its rule in vjp.ts, and adds up the gradients that meet at a tensor. The backward pass is just more graph, so it can be
 * differentiated again.
 */
import { inlineBody } from "../graph/recompute.ts";
import { isFloat } from "../arrays/ndarray.ts";
import { ShapeError } from "../errors.ts";
import { is, nodesBehind } from "../graph/graph.ts";
import type { OpName } from "../graph/ops.ts";
import { formatShape, sameShape, type Shape } from "../graph/shape.ts";
import { onesLike, zerosLike } from "../graph/functional.ts";
import { apply, type Node, type Tensor } from "../graph/tensor.ts";
import { type VjpRule, vjpRules } from "./vjp.ts";

/**
 * Returns the gradient of a scalar loss with respect to each tensor, in the tensor's shape. Gradients are zero for tensors that the
 * loss does not depend on.
 *
 * @example const [dw] = gradient(prediction.sub(target).square().mean(), [w]);
 * @throws ShapeError if the loss is not a float scalar
 */
export function gradient(loss: Tensor, wrt: readonly Tensor[]): Tensor[] {
  if (loss.rank !== 0 || !isFloat(loss.dtype)) {
    throw new ShapeError(
      `gradient: the loss is ${loss.dtype} ${formatShape(loss.shape)}, expected a float scalar; take its mean or sum first.`,
    );
  }
  return backpropagate([loss], [onesLike(loss)], wrt);
}

/**
 * Returns the gradients of Σ outputs·cotangents with respect to tensors; outputs may have any shapes.
 *
 * @param nodes the only ones to walk through; all behind the outputs unless given
 */
export function backpropagate(
  outputs: readonly Tensor[],
  cotangents: readonly Tensor[],
  wrt: readonly Tensor[],
  nodes = nodesBehind(outputs),
): Tensor[] {
  const active = dependents(nodes, wrt);
  const gradients = new Map<Tensor, Tensor>();
  const add = (tensor: Tensor, part: Tensor) => {
    const before = gradients.get(tensor);
    gradients.set(tensor, before ? before.add(part) : part);
  };
  for (const [i, output] of outputs.entries()) add(output, cotangents[i]!);

  for (const node of nodes.toReversed()) {
    if (!active.has(node) || node.inputs.length === 0) continue;
    if (!node.outputs.some((output) => gradients.has(output))) continue;
    const dy = node.outputs.map((output) => gradients.get(output) ?? zerosLike(output));
    const inputGradients = applyRule(node, dy);
    for (const [i, tensor] of node.inputs.entries()) {
      const part = inputGradients[i];
      if (part && active.has(tensor.node)) add(tensor, sumToShape(part, tensor.shape));
    }
  }
  return wrt.map((tensor) => gradients.get(tensor) ?? zerosLike(tensor));
}

function applyRule<K extends OpName>(node: Node<K>, dy: readonly Tensor[]) {
  return rules[node.op](dy, node);
}

/** Computes the block again behind a barrier that waits for the gradient, and differentiates that copy. */
const recomputeRule: VjpRule<"recompute"> = (dy, node) => {
  // Weights exist all along. Without a barrier they remain weights for the passes that look for these.
  const waits = (x: Tensor) => isFloat(x.dtype) && !is(x.node, "parameter");
  const some = node.inputs.some(waits);
  const inputs = node.inputs.map((x) =>
    waits(x) || (!some && isFloat(x.dtype)) ? apply("barrier", [x, dy[0]!], {}) : x,
  );
  const outputs = inlineBody(node, inputs);
  // Not beyond the block: what lies behind may use the same weights, and its gradients are added there.
  const gradients = backpropagate(outputs, dy, inputs, nodesBehind(outputs, inputs));
  return gradients.map((dx) => (isFloat(dx.dtype) ? dx : null));
};

const rules: { readonly [K in OpName]: VjpRule<K> } = { ...vjpRules, recompute: recomputeRule };

/** Returns the nodes that depend on a tensor of `wrt`. */
function dependents(nodes: readonly Node[], wrt: readonly Tensor[]): Set<Node> {
  const active = new Set(wrt.map((tensor) => tensor.node));
  for (const node of nodes) {
    if (node.inputs.some((input) => active.has(input.node))) active.add(node);
  }
  return active;
}

/** Sums a gradient over the axes that broadcasting had repeated. No rule does this itself. */
function sumToShape(dy: Tensor, shape: Shape): Tensor {
  if (sameShape(dy.shape, shape)) return dy;
  const extra = dy.rank - shape.length;
  const axes = dy.shape.flatMap((dim, axis) =>
    axis < extra || (shape[axis - extra] === 1 && dim !== 1) ? [axis] : [],
  );
  const summed = axes.length > 0 ? dy.sum(axes, true).reshape(shapeAfter(dy, axes, extra)) : dy;
  // A rule may also return a gradient that is smaller than the input, such as a scalar, which is repeated here.
  return summed.expand(shape);
}

function shapeAfter(dy: Tensor, axes: readonly number[], extra: number): Shape {
  return dy.shape.map((dim, axis) => (axes.includes(axis) ? 1 : dim)).slice(Math.max(0, extra));
}
