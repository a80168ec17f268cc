/** What a training minimises, as a graph from images and conditions to one number. */
import { input } from "../../engine/graph/functional.ts";
import type { Tensor } from "../../engine/graph/tensor.ts";
import { recipeLoss } from "../../diffusion/recipe.ts";
import { type AnyRecipe, tokenRecipeLoss } from "../../diffusion/discrete/token-recipe.ts";
import {
  canDrop,
  type NetworkConfig,
  networkInput,
  promptScope,
  traceNetwork,
} from "../../models/network.ts";
import { type LoraOptions, withLora } from "../../nn/lora.ts";
import { createParams, type ParamsRoot } from "../../nn/params.ts";

export interface Objective {
  /** The mean loss of a batch, a float scalar. */
  readonly loss: Tensor;
  readonly params: ParamsRoot;
}

/**
 * With LoRA where it is asked for. Inputs: `x0` [B, C, H, W], or tokens [B, h, w], what the recipe draws, and what the network
 * is told.
 */
export function objective(
  network: NetworkConfig,
  recipe: AnyRecipe,
  { recompute, lora }: { readonly recompute: boolean; readonly lora?: LoraOptions },
): Objective {
  const params = lora ? withLora(createParams(), lora) : createParams();
  const predict = (x: Tensor, t: Tensor) =>
    traceNetwork(network, { from: { x, t }, drop: canDrop(network), recompute }, params).output;
  return { loss: lossOf().mean(), params };

  function lossOf(): Tensor {
    const [x0, dtype] = networkInput(network);
    const truth = input("x0", x0, dtype);
    return recipe.process === "tokens"
      ? tokenRecipeLoss(recipe, truth, predict)
      : recipeLoss(recipe, truth, predict, network.learnedVariance);
  }
}

/** The prompt encoder's table of words, which is given, not drawn. */
export const wordsKey = `${promptScope}.words`;
