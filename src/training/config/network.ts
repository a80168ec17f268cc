/** From what a config says, and what its data is, to the network that is trained. */
import { UsageError } from "../../engine/errors.ts";
import type { DataSet } from "../../data/dataset.ts";
import { type DiTConfig, ditPresets } from "../../models/dit/dit.ts";
import { type NetworkConfig, networkSchema } from "../../models/index.ts";
import { type MMDiTConfig, mmditPresets } from "../../models/mmdit/mmdit.ts";
import { type DDPMUNetConfig, ddpmUNetPresets } from "../../models/ddpm-unet/ddpm-unet.ts";
import { type UViTConfig, uViTPresets } from "../../models/u-vit/u-vit.ts";
import type { TrainingConfig } from "./config.ts";
import {
  defaultDiT,
  defaultMMDiT,
  defaultPaella,
  defaultUNet,
  defaultUViT,
  type DiTLike,
  headsOf,
  type ImageShape,
  type MMDiTLike,
  type PaellaLike,
  type UNetLike,
  type UViTLike,
} from "./default-networks.ts";

type ModelSettings = TrainingConfig["model"];

/** What the network has to know of its data. */
export type DataFacts = Pick<DataSet, "name" | "classes" | "captioned">;

/** Words that a prompt encoder starts from. */
export interface Words {
  /** Pieces of the tokenizer. */
  readonly vocabulary: number;
  /** Width of each one's vector. */
  readonly width: number;
}

/**
 * The network of a config. Without a preset, what is not said is as later recipes for pixels have it (JiT), at a size
 * that a few cores train in an hour.
 *
 * @param words where the condition is a text
 * @throws UsageError when data and condition, or sizes, do not fit each other
 */
export function networkOf(
  settings: ModelSettings,
  picture: ImageShape,
  data: DataFacts,
  words: Words | undefined,
): NetworkConfig {
  const { kind, condition: wanted, prompt } = settings;
  const condition = wanted ?? conditionOf(data);
  const whole = wholeOf(settings, picture, condition, data);
  const promptWidth = prompt.width ?? widthOf(whole);
  const encoder = condition === "text" && {
    vocabulary: words!.vocabulary,
    wordWidth: words!.width,
    width: promptWidth,
    depth: prompt.depth,
    heads: prompt.heads ?? headsOf(promptWidth, 2),
    length: prompt.length,
  };
  const config = {
    ...whole,
    kind,
    size: [picture.height, picture.width],
    channels: picture.channels,
    learnedVariance: settings.learnedVariance ?? false,
    condition: conditionConfig(condition, data, encoder),
    ...(encoder && { prompt: encoder }),
    ...(picture.codebook !== undefined && { tokens: { codebook: picture.codebook } }),
  };
  const result = networkSchema.safeParse(config);
  if (result.success) return result.data;
  const { path, message } = result.error.issues[0]!;
  throw new UsageError(`The model (${path.join(".")}): ${message}.`);
}

/** Of the tokens of a text. */
function widthOf(network: ReturnType<typeof wholeOf>): number {
  if ("textWidth" in network) return network.textWidth;
  return "hidden" in network ? network.hidden : promptWidthOfUNets;
}

type Told = "none" | "class" | "text";

/** Of a prompt encoder, where the network has no width of its own. */
const promptWidthOfUNets = 192;

/** The architecture, whatever it is told. */
function wholeOf(
  settings: ModelSettings,
  picture: ImageShape,
  condition: Told,
  data: DataFacts,
): DiTLike | MMDiTLike | UViTLike | UNetLike | PaellaLike {
  switch (settings.kind) {
    case "dit":
      return ditOf(settings, picture, condition);
    case "mmdit":
      return mmditOf(settings, picture, condition, data);
    case "u-vit": {
      const given = architecture<UViTConfig>(settings);
      const { preset } = settings;
      return { ...(preset ? uViTPresets[preset] : defaultUViT(picture, given)), ...given };
    }
    case "paella":
      return paellaOf(settings, picture, data);
    case "ddpm-unet": {
      const given = architecture<DDPMUNetConfig>(settings);
      const { preset } = settings;
      return { ...(preset ? ddpmUNetPresets[preset] : defaultUNet(picture)), ...given };
    }
  }
}

function ditOf(
  settings: Extract<ModelSettings, { kind: "dit" }>,
  picture: ImageShape,
  condition: Told,
) {
  const { preset } = settings;
  const given = architecture<DiTConfig>(settings);
  const whole = { ...(preset ? ditPresets[preset] : defaultDiT(picture, given)), ...given };
  return { ...whole, block: textBlock(whole.block, condition, given.block !== undefined) };
}

/** @throws UsageError where there is nothing to tell it */
function mmditOf(
  settings: Extract<ModelSettings, { kind: "mmdit" }>,
  picture: ImageShape,
  condition: Told,
  { name }: DataFacts,
) {
  if (condition === "none") {
    throw new UsageError(
      `An MMDiT is told a text or a class, but ${name} has neither captions nor classes; set model.kind to dit, or add captions in metadata.jsonl.`,
    );
  }
  const { preset } = settings;
  const given = architecture<MMDiTConfig>(settings);
  const base = preset ? mmditPresets[preset] : defaultMMDiT(picture, given);
  // Of a published table only checkpoints know what is in it.
  const positions = { kind: "sin-cos", max: base.positions.max } as const;
  return { ...base, positions, ...given };
}

/** @throws UsageError where it is shown no tokens */
function paellaOf(
  settings: Extract<ModelSettings, { kind: "paella" }>,
  picture: ImageShape,
  { name }: DataFacts,
): PaellaLike {
  if (picture.codebook === undefined) {
    throw new UsageError(
      `A Paella draws tokens, but ${name} would be shown to it as numbers; name a tokenizer that patchwise train made as latents.autoencoder, and set diffusion.process to tokens.`,
    );
  }
  return { ...defaultPaella(picture), ...architecture<PaellaLike>(settings) };
}

/** What data can tell a network. */
export function conditionOf({ captioned, classes }: DataFacts): Told {
  return captioned ? "text" : classes ? "class" : "none";
}

/** The fields that are there, for spreading over others. */
function architecture<Config>({
  kind: _kind,
  preset: _preset,
  condition: _condition,
  prompt: _prompt,
  ...fields
}: ModelSettings & { readonly preset?: unknown }) {
  const present = Object.entries(fields).filter(([, value]) => value !== undefined);
  return Object.fromEntries(present) as Partial<Config>;
}

function conditionConfig(
  condition: Told,
  { name, classes, captioned }: DataFacts,
  encoder: { readonly width: number; readonly length: number } | false,
): DiTConfig["condition"] {
  if (encoder) {
    if (!captioned) {
      throw new UsageError(
        `The model is to be told a text, but ${name} has no captions; set model.condition to ${classes ? "class" : "none"}, or add captions in metadata.jsonl.`,
      );
    }
    return { kind: "text", width: encoder.width, length: encoder.length };
  }
  if (condition !== "class") return { kind: "none" };
  if (!classes) {
    throw new UsageError(
      `The model is to be told a class, but ${name} has no classes; set model.condition to ${captioned ? "text" : "none"}, or sort the pictures into one folder a class.`,
    );
  }
  return { kind: "class", classes: classes.length, nullClass: true };
}

/** Tokens of a text join the patches, unless the config says another way. */
function textBlock(
  block: DiTConfig["block"],
  condition: Told,
  asGiven: boolean,
): DiTConfig["block"] {
  const modulated = block.kind === "adaLN" || block.kind === "adaLN-zero";
  if (asGiven || condition !== "text" || !modulated) return block;
  return { ...block, text: "in-context" };
}
