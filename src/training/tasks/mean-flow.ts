/** The objective of a network that learns the steps of a mean flow. */
import { meanFlowRecipeLoss, type Recipe } from "../../diffusion/recipe.ts";
import { UsageError } from "../../engine/errors.ts";
import { input } from "../../engine/graph/functional.ts";
import { batch } from "../../engine/graph/shape.ts";
import type { Tensor } from "../../engine/graph/tensor.ts";
import {
  canDrop,
  isMeanFlow,
  type NetworkConfig,
  type TracedNetwork,
  traceNetwork,
} from "../../models/network.ts";
import type { ParamsRoot } from "../../nn/params.ts";
import type { FeatureLosses } from "./feature-losses.ts";

interface MeanFlowObjective {
  /** Computes each block again in the backward pass instead of keeping its activations. */
  readonly recompute: boolean;
  /** The network's weights, which are declared. */
  readonly params: ParamsRoot;
  /** Losses on features, which do not apply. */
  readonly features: FeatureLosses | undefined;
}

/**
 * The mean loss of a batch under a mean flow, a float scalar.
 *
 * @throws UsageError if the network is not told its step, or cannot run without its condition
 */
export function meanFlowObjective(
  network: NetworkConfig,
  recipe: Extract<Recipe, { process: "flow" }>,
  x0: Tensor,
  { recompute, params, features }: MeanFlowObjective,
): Tensor {
  if (!isMeanFlow(network) || !canDrop(network)) {
    throw new UsageError(
      `diffusion.meanFlow trains a network that is told its step, such as a minit2i with model.meanFlow: {}, but the model is a ${network.kind} without it; set both, or leave diffusion.meanFlow out.`,
    );
  }
  if (features) {
    throw new UsageError(
      "diffusion.meanFlow learns velocities of whole steps, to which losses on features do not apply; leave one of them out.",
    );
  }
  let inputs: TracedNetwork["inputs"] | undefined;
  const drop = input("drop", [batch], "bool");
  const everyRow = drop.or(drop.not());
  const losses = meanFlowRecipeLoss(
    recipe,
    x0,
    (x, t, step, { unconditional }) => {
      const from = { x, t, step, inputs, drop: unconditional ? everyRow : drop };
      const traced = traceNetwork(network, { from, recompute }, params);
      inputs ??= traced.inputs;
      return traced.output;
    },
    drop,
  );
  return losses.mean();
}

/** @throws UsageError if the network is told its step, which no other training than that of a mean flow has */
export function checkToldNoStep(network: NetworkConfig): void {
  if (!isMeanFlow(network)) return;
  throw new UsageError(
    "The model is told the steps of a mean flow, but the training has none; give diffusion.meanFlow: {}, or leave model.meanFlow out.",
  );
}
