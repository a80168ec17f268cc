/** Single files of original repositories, which hold weights alone: what the model is shows in the keys and shapes. */
import type { Recipe } from "../../diffusion/recipe.ts";
import { FormatError } from "../../engine/errors.ts";
import { type NetworkConfig, networkPresets } from "../../models/index.ts";
import { checkedWeights } from "../../weights/check-keys.ts";
import type { Weights } from "../../weights/safetensors/safetensors.ts";
import { checkpointConfig, ditDefaults, ditRecipe } from "./dit-checkpoint.ts";
import type { SamplerName } from "../../diffusion/samplers/index.ts";
import { tracedForDrawing } from "../graphs.ts";
import type { ImageModel } from "../image-model.ts";
import { recipeProcess } from "../process.ts";

type Published = Pick<ImageModel, "network" | "process" | "defaults" | "lacks">;
type Schedule = Extract<Recipe, { process: "discrete" }>["schedule"];

/**
 * The network of a file, and how its origin draws with it.
 *
 * @throws FormatError when it is of none that is known
 */
export function publishedModel(weights: Weights): Published {
  const { entries } = weights;
  if (entries.has("mid_block.attn.qkv.weight")) {
    const network = presetOf("u-vit", weights);
    // Latents have the noise of Stable Diffusion, pixels that of Song et al.'s VP-SDE, which is DDPM's.
    const schedule = network.channels === 4 ? ({ kind: "scaled-linear" } as const) : linear;
    const lacks =
      network.condition.kind === "text"
        ? `${weights.name} takes captions as CLIP's embeddings, and holds no CLIP; it can be counted, but not drawn with.`
        : undefined;
    return { network, ...drawnBy("dpmpp-2m", 50, 1.4, schedule), lacks };
  }
  if (entries.has("middle_block.0.in_layers.2.weight")) {
    const network = presetOf("ddpm-unet", weights);
    // Of the published models the smallest alone was trained on the cosine schedule.
    const cosine = network.learnedVariance && network.size[0] === 64;
    return { network, ...drawnBy("ddpm", 250, 1, cosine ? { kind: "cosine" } : linear) };
  }
  if (entries.has("out_mapper.1.weight") || entries.has("down_blocks.0.0.cond_mapper.weight")) {
    throw new FormatError(
      `${weights.name} is a Paella, which is told embeddings of ByT5 or CLIP and draws tokens of a VQGAN, and holds none of these; count it as Paella-v1 or Paella-v3, run it by patchwise/models and patchwise/diffusion, or train one of your own (model.kind: paella).`,
    );
  }
  const network = { kind: "dit" as const, ...checkpointConfig(weights) };
  return {
    network,
    process: recipeProcess(ditRecipe, ditDefaults.sampler),
    defaults: ditDefaults,
  };
}

const linear = { kind: "linear" } as const;

function drawnBy(sampler: SamplerName, steps: number, guidance: number, schedule: Schedule) {
  const recipe: Recipe = {
    process: "discrete",
    predicts: "epsilon",
    steps: 1000,
    schedule,
    zeroTerminalSNR: false,
  };
  return { process: recipeProcess(recipe, sampler), defaults: { steps, guidance } };
}

/** Heads show in no shape, so that only published sizes can be told. */
function presetOf(kind: NetworkConfig["kind"], weights: Weights): NetworkConfig {
  const known = [...networkPresets].filter(([, network]) => network.kind === kind);
  for (const [, network] of known) {
    if (fits(network, weights)) return network;
  }
  throw new FormatError(
    `${weights.name} is a ${kind} of none of the published sizes, which are ${known.map(([name]) => name).join(", ")}; give one of these.`,
  );
}

function fits(network: NetworkConfig, weights: Weights): boolean {
  try {
    checkedWeights(tracedForDrawing(network).params, weights);
    return true;
  } catch (error) {
    if (error instanceof FormatError) return false;
    throw error;
  }
}
