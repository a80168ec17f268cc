/** From what a config says, and what its data is, to the network that is trained. */
import { UsageError } from "../engine/errors.ts";
import type { DataSet } from "../data/dataset.ts";
import { type DiTConfig, ditPresets } from "../models/dit.ts";
import { type NetworkConfig, networkSchema } from "../models/index.ts";
import { type MMDiTConfig, mmditPresets } from "../models/mmdit.ts";
import type { TrainingConfig } from "./config.ts";

type ModelSettings = TrainingConfig["model"];

/** What the network has to know of its data. */
export type DataFacts = Pick<DataSet, "name" | "classes" | "captioned">;

/** What it sees of a picture: pixels, or their latents. */
export interface ImageShape {
  readonly height: number;
  readonly width: number;
  readonly channels: number;
}

/** Words that a prompt encoder starts from. */
export interface Words {
  /** Pieces of the tokenizer. */
  readonly vocabulary: number;
  /** Width of each one's vector. */
  readonly width: number;
}

/** Head width that is common from ViT on. */
const headWidth = 64;
/** Tokens that a small model can afford on a CPU. */
const fewTokens = 64;
/** What JiT (Li & He, 2025) squeezes a patch of pixels through, for a network of this size. */
const bottleneckWidth = 96;

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
  const whole =
    kind === "mmdit"
      ? mmditOf(settings, picture, condition, data)
      : ditOf(settings, picture, condition);
  const encoder = condition === "text" && {
    vocabulary: words!.vocabulary,
    wordWidth: words!.width,
    width: prompt.width ?? whole.hidden,
    depth: prompt.depth,
    heads: prompt.heads ?? headsOf(prompt.width ?? whole.hidden, 2),
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
  };
  const result = networkSchema.safeParse(config);
  if (result.success) return result.data;
  const { path, message } = result.error.issues[0]!;
  throw new UsageError(`The model (${path.join(".")}): ${message}.`);
}

type Told = "none" | "class" | "text";

function ditOf(
  settings: Extract<ModelSettings, { kind: "dit" }>,
  picture: ImageShape,
  condition: Told,
) {
  const { preset } = settings;
  const given = architecture<DiTConfig>(settings);
  const whole = { ...(preset ? ditPresets[preset] : recent(picture, given)), ...given };
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
  const base = preset ? mmditPresets[preset] : small(picture, given);
  // Of a published table only checkpoints know what is in it.
  const positions = { kind: "sin-cos", max: base.positions.max } as const;
  return { ...base, positions, ...given };
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
}: ModelSettings) {
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

function recent(
  picture: ImageShape,
  given: Partial<DiTConfig>,
): Omit<DiTConfig, "size" | "channels" | "condition"> {
  const { patch, hidden, patches } = sizes(picture, given);
  return {
    patch,
    hidden,
    depth: 6,
    heads: headsOf(hidden, given.rotary === null ? 1 : 4),
    mlpRatio: 4,
    learnedVariance: false,
    block: { kind: "adaLN-zero" },
    patches,
    positions: { kind: "sin-cos" },
    rotary: { theta: 100 },
    norm: { kind: "rms", affine: false, epsilon: 1e-6 },
    feedForward: { kind: "swiglu" },
    qkNorm,
  };
}

const qkNorm = { kind: "rms", affine: true, epsilon: 1e-6 } as const;

/** Stable Diffusion 3.5's at another size, with places for pictures twice as large. */
function small(
  picture: ImageShape,
  given: Partial<MMDiTConfig>,
): Omit<MMDiTConfig, "size" | "channels" | "condition"> {
  const { patch, hidden, patches } = sizes(picture, given);
  return {
    ...mmditPresets["SD3-medium"],
    patch,
    hidden,
    depth: 6,
    heads: headsOf(hidden, 1),
    patches,
    positions: {
      kind: "sin-cos",
      max: 2 * Math.ceil(Math.max(picture.height, picture.width) / patch),
    },
    qkNorm,
  };
}

function sizes(
  picture: ImageShape,
  given: { readonly patch?: number; readonly hidden?: number },
): Pick<DiTConfig, "patch" | "hidden" | "patches"> {
  const { patch = patchFor(picture), hidden = 192 } = given;
  const values = patch * patch * picture.channels;
  return {
    patch,
    hidden,
    patches:
      values > bottleneckWidth
        ? { kind: "bottleneck", width: bottleneckWidth }
        : { kind: "linear" },
  };
}

/** As many heads of a width that is a multiple of `unit`, as rotary positions need it, as come nearest to `headWidth`. */
function headsOf(hidden: number, unit: number): number {
  const wanted = Math.max(1, Math.round(hidden / headWidth));
  const apart = (heads: number) => Math.abs(Math.log(hidden / heads / headWidth));
  return Array.from({ length: 2 * wanted }, (_, i) => i + 1)
    .filter((heads) => hidden % (unit * heads) === 0)
    .reduce((best, heads) => (apart(heads) < apart(best) ? heads : best), 1);
}

/** The patch that divides the picture and comes nearest to few tokens. */
function patchFor({ height, width }: ImageShape): number {
  const shorter = Math.min(height, width);
  const fitting = Array.from({ length: shorter }, (_, i) => i + 1).filter(
    (patch) => height % patch === 0 && width % patch === 0,
  );
  const distance = (patch: number) =>
    Math.abs(Math.log((height * width) / (patch * patch) / fewTokens));
  return fitting.reduce((best, patch) => (distance(patch) < distance(best) ? patch : best));
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
