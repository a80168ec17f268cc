/** Reads the config of a Latte from the arguments of the original code, or from the shapes of a checkpoint. */
import { FormatError, quote } from "../../engine/errors.ts";
import type { FieldReader } from "../../weights/config-fields.ts";
import type { Weights } from "../../weights/safetensors/safetensors.ts";
import { type LatteConfig, lattePresets } from "./config.ts";

/** The text of the original's third kind of condition: CLIP's 77 tokens of 768 channels. */
const caption = { kind: "text", width: 768, length: 77 } as const;

/** The original's `extras`: what else the network is conditioned on besides the time. */
const conditionKinds = { 1: "none", 2: "class", 78: "text" } as const;

/**
 * The arguments of the original code's constructor; what they leave out has its defaults.
 *
 * @throws FormatError that names the field at fault
 */
export function latteConfig(read: FieldReader): LatteConfig {
  read.only("extras", 1, 2, 78);
  const kind = conditionKinds[read.number("extras", 1) as keyof typeof conditionKinds];
  const classes = read.count("num_classes", 1000);
  const nullClass = read.number("class_dropout_prob", 0.1) > 0;
  const depth = read.count("depth", 28);
  if (depth % 2 !== 0) {
    throw new FormatError(
      `${read.file} has "depth" = ${depth}, but the blocks of a Latte come in pairs; give an even number.`,
    );
  }
  // Ways to compute the same attention.
  read.ignore("attention_mode");
  const config: LatteConfig = {
    size: read.size("input_size", 32),
    frames: read.count("num_frames", 16),
    channels: read.count("in_channels", 4),
    patch: read.count("patch_size", 2),
    hidden: read.count("hidden_size", 1152),
    depth,
    heads: read.count("num_heads", 16),
    mlpRatio: read.number("mlp_ratio", 4),
    learnedVariance: read.flag("learn_sigma", true),
    condition:
      kind === "class" ? { kind, classes, nullClass } : kind === "text" ? caption : { kind },
  };
  read.finish("Latte");
  return config;
}

const timeTable = "temp_embed";
const classTable = "y_embedder.embedding_table.weight";
const textKey = "text_embedding_projection.1.weight";

/** Returns true if the keys are those of Vchitect/Latte. */
export function isLatteCheckpoint({ entries }: Weights): boolean {
  return entries.has(timeTable);
}

/**
 * The config of a checkpoint; checking its keys in full is left to who loads it.
 *
 * @param heads which no shape shows; those of the published width unless given
 * @throws FormatError when it is not the checkpoint of a Latte, or its number of heads is unknown
 */
export function latteCheckpointConfig({ name, entries }: Weights, heads?: number): LatteConfig {
  const shapeOf = (key: string, rank: number) => {
    const shape = entries.get(key)?.shape;
    if (shape?.length === rank) return shape;
    throw new FormatError(
      `${name} is no checkpoint of a Latte under its original names: it has ${shape ? `a ${quote(key)} of another shape` : `no ${quote(key)}`}; give a file of Vchitect/Latte as safetensors.`,
    );
  };
  const [hidden, channels, patch] = shapeOf("x_embedder.proj.weight", 4) as [
    number,
    number,
    number,
  ];
  const [, frames] = shapeOf(timeTable, 3) as [number, number];
  const [, places] = shapeOf("pos_embed", 3) as [number, number];
  const [outputs] = shapeOf("final_layer.linear.weight", 2) as [number];
  const blocks = [...entries.keys()].filter((key) => /^blocks\.\d+\.attn\.qkv\.weight$/.test(key));
  const rows = entries.get(classTable)?.shape[0];
  const published = Object.values(lattePresets).find((preset) => preset.hidden === hidden);
  const known = heads ?? published?.heads;
  if (known === undefined) {
    throw new FormatError(
      `${name} is a Latte of width ${hidden}, from which its number of heads cannot be inferred; give --heads (heads).`,
    );
  }
  const side = Math.round(Math.sqrt(places)) * patch;
  return {
    size: [side, side],
    frames,
    channels,
    patch,
    hidden,
    depth: blocks.length,
    heads: known,
    mlpRatio: (entries.get("blocks.0.mlp.fc1.weight")?.shape[0] ?? 4 * hidden) / hidden,
    learnedVariance: outputs === 2 * channels * patch ** 2,
    condition:
      rows !== undefined
        ? { kind: "class", classes: rows - 1, nullClass: true }
        : entries.has(textKey)
          ? caption
          : { kind: "none" },
  };
}
