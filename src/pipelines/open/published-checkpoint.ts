/** Single files of original repositories, which hold weights alone: keys and shapes show what the model is. */
import { FormatError, quote, UsageError } from "../../engine/errors.ts";
import { families } from "../../models/families.ts";
import type { NetworkFamily } from "../../models/family.ts";
import { type NetworkConfig, requireFewPatches } from "../../models/network.ts";
import { checkedWeights } from "../../weights/check-keys.ts";
import { isOfWeight, loraRole } from "../../weights/lora-forms.ts";
import { requirePlausible } from "../../weights/plausible.ts";
import type { Weights } from "../../weights/safetensors/safetensors.ts";
import { weightsUnder } from "../../weights/views.ts";
import { type ImageModel, tracedForDrawing } from "../image-model.ts";
import { partTitle } from "./lone-part.ts";
import { otherModel } from "./other-models.ts";
import { muOf, recipeProcess } from "../process.ts";

type Published = Pick<
  ImageModel,
  "network" | "process" | "defaults" | "missingParts" | "warnings"
> & {
  /** The file's weights under the names of the network. */
  readonly stored: Weights;
};

/**
 * The network of a file, and how its original repository draws with it.
 *
 * @param heads where no shape shows them
 * @throws FormatError when no family recognises the file, or its family cannot open it; UsageError if the network cannot have
 *   these heads
 */
export function publishedModel(weights: Weights, heads?: number): Published {
  const part = partTitle(weights);
  if (part) {
    throw new FormatError(
      `${weights.name} is ${part.title}, which draws nothing by itself; give the file of a network as the model, and this one as ${part.option}.`,
    );
  }
  const other = otherModel(weights);
  if (other !== undefined) {
    throw new FormatError(
      `${weights.name} is a ${other}, which is not supported; give one of ${supported().join(", ")}.`,
    );
  }
  for (const family of families.values()) {
    if (!family.original?.recognises(weights)) continue;
    const stored = family.original.weights?.(weights) ?? weights;
    const { config, recipe, sampling, missing } = family.original.open(
      stored,
      () => fittingPreset(family, stored),
      heads,
    );
    const { sampler, mu, ...defaults } = sampling;
    const network: NetworkConfig = { kind: family.kind, ...config };
    requireFewPatches(weights.name, network);
    requirePlausible(weights.name, config, stored);
    if (heads !== undefined && (!("heads" in network) || network.heads !== heads)) {
      throw new UsageError(`--heads (heads) does not apply to ${weights.name}; leave it out.`);
    }
    if (heads !== undefined && !(heads > 0 && Number(network.hidden) % heads === 0)) {
      throw new UsageError(
        `${heads} heads (heads) do not divide the width of ${weights.name}, ${Number(network.hidden)}; give the number that it was trained with.`,
      );
    }
    const warning = heads === undefined ? headsWarning(family, network) : undefined;
    return {
      stored,
      network,
      ...(warning !== undefined && { warnings: [warning] }),
      process: recipeProcess(recipe, sampler, mu && muOf(network, mu)),
      defaults,
      missingParts: missing,
    };
  }
  if (underDiffusersNames.some((name) => weights.entries.has(name))) {
    throw new FormatError(
      `${weights.name} holds a network under the names of diffusers, whose config and other parts are in its folder; give the folder of the whole model.`,
    );
  }
  const keys = [...weights.entries.keys()];
  if (keys.some((key) => isOfWeight(loraRole(key)?.role ?? "alpha"))) {
    throw new FormatError(
      `${weights.name} holds a LoRA, which changes how a model draws; give it as --lora (loras), and the model that it was trained on as the model.`,
    );
  }
  const found = keys.slice(0, 2).map(quote).join(", ");
  throw new FormatError(
    `${weights.name} is no checkpoint of a known model under its original names${found && `: it has tensors such as ${found}`}; give a file of a ${supported().join(", ")} as safetensors, or a model's folder.`,
  );
}

/** A sentence about the number of heads where it is that of no published model, and no shape shows it. */
function headsWarning({ title, presets, original }: NetworkFamily, network: NetworkConfig) {
  const { heads, hidden, depth } = network as { heads?: number; hidden?: number; depth?: number };
  const all = Object.values(presets) as { hidden?: number; depth?: number }[];
  if (!original?.headsUnshown) return undefined;
  if (all.some((preset) => preset.hidden === hidden && preset.depth === depth)) return undefined;
  return `No shape of this ${title} shows its number of heads, for which ${heads} is taken; if it was trained with others, give --heads (heads).`;
}

/** A layer of each family under the names of diffusers, of FLUX.1 and Stable Diffusion 3 and of FLUX.2. */
const underDiffusersNames = [
  "transformer_blocks.0.norm1.linear.weight",
  "double_stream_modulation_img.linear.weight",
];

/** Names of the models whose original files can be opened. */
function supported(): readonly string[] {
  return [...families.values()].filter(({ original }) => original).map(({ title }) => title);
}

/** The published size whose weights these are: the shapes alone do not show the number of heads. */
function fittingPreset({ kind, title, presets }: NetworkFamily, weights: Weights) {
  for (const config of Object.values(presets)) {
    if (fits({ kind, ...config }, weights)) return config;
  }
  throw new FormatError(
    `${weights.name} is a ${title}, but of none of the published sizes, which are ${Object.keys(presets).join(", ")}; give one of these.`,
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

/** Prefixes that other programs add to every weight name: PyTorch's parallel and compiled modules, moving averages, ComfyUI. */
const wrappers = [
  "module.",
  "_orig_mod.",
  "ema_model.",
  "ema.",
  "model.diffusion_model.",
  "diffusion_model.",
  "model.",
  "net.",
  "transformer.",
];

/** Weights without the prefixes that all of their names share. */
export function unwrapped(weights: Weights): Weights {
  const names = [...weights.entries.keys()];
  const prefix = wrappers.find(
    (each) => names.length > 0 && names.every((name) => name.startsWith(each)),
  );
  return prefix === undefined ? weights : unwrapped(weightsUnder(weights, prefix));
}
