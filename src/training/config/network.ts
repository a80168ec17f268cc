/** Determines the network to train from its config and its data. */
import type { DataSet } from "../../data/dataset.ts";
import { UsageError } from "../../engine/errors.ts";
import { type ImageShape, headsOf } from "../../models/default-sizes.ts";
import { familyOf } from "../../models/families.ts";
import type { Architecture, NetworkCondition, NetworkFields } from "../../models/family.ts";
import { type NetworkConfig, networkSchema } from "../../models/network.ts";
import type { ModelSettings } from "./model-settings.ts";

/** The properties of a data set that the network depends on. */
export type DataFacts = Pick<DataSet, "name" | "classes" | "captioned">;

/** The sizes of the word table that a prompt encoder starts from. */
export interface Words {
  /** The number of pieces of the tokenizer. */
  readonly vocabulary: number;
  /** The width of the word vectors. */
  readonly width: number;
}

/**
 * Returns the network of a config. Fields that neither the config nor its preset sets have the family's defaults, at a size
 * that a few CPU cores train in an hour.
 *
 * @param words needed if the condition is a text
 * @throws UsageError when data and condition, or sizes, do not fit each other
 */
export function networkOf(
  settings: ModelSettings,
  picture: ImageShape,
  data: DataFacts,
  words: Words | undefined,
): NetworkConfig {
  const { kind, prompt } = settings;
  const condition = settings.condition ?? conditionOf(data);
  const { architecture, textWidth } = architectureOf(settings, picture, condition, data);
  const promptWidth = prompt.width ?? textWidth;
  const encoder = condition === "text" && {
    vocabulary: words!.vocabulary,
    wordWidth: words!.width,
    width: promptWidth,
    depth: prompt.depth,
    heads: prompt.heads ?? headsOf(promptWidth, 2),
    length: prompt.length,
  };
  const config = {
    ...architecture,
    kind,
    size: [picture.height, picture.width],
    channels: picture.channels,
    ...(picture.frames !== undefined && { frames: picture.frames }),
    learnedVariance: settings["learnedVariance"] ?? false,
    condition: conditionConfig(condition, data, encoder),
    ...(encoder && { prompt: encoder }),
    ...(picture.codebook !== undefined && { tokens: { codebook: picture.codebook } }),
  };
  const result = networkSchema().safeParse(config);
  if (result.success) return result.data;
  const { path, message } = result.error.issues[0]!;
  throw new UsageError(`The model (${path.join(".")}): ${message}.`);
}

/** Returns the architecture without its condition, and the width of its text embeddings. */
function architectureOf(
  { kind, preset, condition: _condition, prompt: _prompt, ...fields }: ModelSettings,
  picture: ImageShape,
  condition: NetworkCondition["kind"],
  { name: data }: DataFacts,
): { readonly architecture: Architecture<NetworkFields>; readonly textWidth: number } {
  const family = familyOf({ kind });
  const { title, presets, training } = family;
  if (!training) {
    throw new UsageError(`A ${title} cannot be trained from scratch; set model.kind to another.`);
  }
  if (picture.frames !== undefined && !family.timePer) {
    throw new UsageError(
      `A ${title} draws still pictures, but picture.frames is ${picture.frames}; set model.kind to video-dit, or leave frames out.`,
    );
  }
  const present = Object.entries(fields).filter(([, value]) => value !== undefined);
  const given = Object.fromEntries(present) as Partial<NetworkFields>;
  const base =
    preset === undefined ? training.defaults(picture, given) : (presets[preset] as NetworkFields);
  const whole = { ...base, ...given };
  const architecture = training.adapt?.(whole, { given, condition, picture, data }) ?? whole;
  return { architecture, textWidth: training.textWidth(architecture) };
}

/** The default condition for a data set: its captions, else its classes, else none. */
export function conditionOf({ captioned, classes }: DataFacts): NetworkCondition["kind"] {
  return captioned ? "text" : classes ? "class" : "none";
}

function conditionConfig(
  condition: NetworkCondition["kind"],
  { name, classes, captioned }: DataFacts,
  encoder: { readonly width: number; readonly length: number } | false,
): NetworkCondition {
  if (encoder) {
    if (!captioned) {
      throw new UsageError(
        `model.condition is text, but ${name} has no captions; set model.condition to ${classes ? "class" : "none"}, or add captions in metadata.jsonl.`,
      );
    }
    return { kind: "text", width: encoder.width, length: encoder.length };
  }
  if (condition !== "class") return { kind: "none" };
  if (!classes) {
    throw new UsageError(
      `model.condition is class, but ${name} has no classes; set model.condition to ${captioned ? "text" : "none"}, or sort the pictures into one folder per class.`,
    );
  }
  return { kind: "class", classes: classes.length, nullClass: true };
}
