/** What a training minimises, as a graph from images and conditions to one number. */
import { input } from "../engine/functional.ts";
import { batch } from "../engine/shape.ts";
import type { Tensor } from "../engine/tensor.ts";
import { type Recipe, recipeLoss } from "../diffusion/recipe.ts";
import { canDrop, type NetworkConfig, promptScope, traceNetwork } from "../models/index.ts";
import { type LoraOptions, withLora } from "../nn/lora.ts";
import { createParams, type ParamsRoot } from "../nn/params.ts";

export interface Objective {
  /** The mean loss of a batch, a float scalar. */
  readonly loss: Tensor;
  readonly params: ParamsRoot;
}

/** With LoRA where it is asked for. Inputs: `x0` [B, C, H, W], what the recipe draws, and what the network is told. */
export function objective(
  network: NetworkConfig,
  recipe: Recipe,
  { recompute, lora }: { readonly recompute: boolean; readonly lora?: LoraOptions },
): Objective {
  const params = lora ? withLora(createParams(), lora) : createParams();
  const x0 = input("x0", [batch, network.channels, ...network.size]);
  const predict = (x: Tensor, t: Tensor) =>
    traceNetwork(network, { from: { x, t }, drop: canDrop(network), recompute }, params).output;
  return { loss: recipeLoss(recipe, x0, predict, network.learnedVariance).mean(), params };
}

/** The prompt encoder's table of words, which is given, not drawn. */
export const wordsKey = `${promptScope}.words`;
