/** Optimizers as pairs of pure functions on trees of tensors: the update is part of the graph. */
import type { Tensor } from "../../engine/graph/tensor.ts";

/** Tensors by name. */
export type Tree = Readonly<Record<string, Tensor>>;

export interface Optimizer {
  /** The state before the first step, one tree entry for each that the optimizer keeps. */
  init(params: Tree): Tree;
  /**
   * One step.
   *
   * @param step number of this step as a float scalar, from 1
   * @returns new parameters and new state
   */
  update(grads: Tree, state: Tree, params: Tree, step: Tensor): [params: Tree, state: Tree];
}

/** A tree with f applied to each tensor. */
export function mapTree(tree: Tree, f: (tensor: Tensor, name: string) => Tensor): Tree {
  return Object.fromEntries(Object.entries(tree).map(([name, tensor]) => [name, f(tensor, name)]));
}
