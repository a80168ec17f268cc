/** Single files of facebookresearch/DiT: what the model is shows in the keys and shapes. */
import { FormatError } from "../../engine/errors.ts";
import type { DiTConfig } from "../../models/dit/dit.ts";
import { ditPresets } from "../../models/dit/dit.ts";
import type { Recipe } from "../../diffusion/recipe.ts";
import { quote } from "../../engine/messages.ts";
import type { Weights } from "../../weights/safetensors/safetensors.ts";

/** The process of the published models. */
export const ditRecipe: Recipe = {
  process: "discrete",
  predicts: "epsilon",
  steps: 1000,
  schedule: { kind: "linear" },
  zeroTerminalSNR: false,
};

/** How the original `sample.py` draws. */
export const ditDefaults = { sampler: "ddpm", steps: 250, guidance: 4, guidedChannels: 3 } as const;

const patchKey = "x_embedder.proj.weight";
const tableKey = "y_embedder.embedding_table.weight";
const lastKey = "final_layer.linear.weight";
const positionsKey = "pos_embed";

/**
 * The config of a checkpoint; checking its keys in full is left to who loads it.
 *
 * @throws FormatError when it is none of a DiT
 */
export function checkpointConfig({ name, entries }: Weights): DiTConfig {
  const shapeOf = (key: string, rank: number) => {
    const shape = entries.get(key)?.shape;
    if (shape?.length === rank) return shape;
    const found = [...entries.keys()].slice(0, 2).map(quote).join(", ");
    throw new FormatError(
      `${name} is no checkpoint of a DiT under its original names: it has ${shape ? `a ${quote(key)} of another shape` : `no ${quote(key)}`}${found && `, but tensors such as ${found}`}; give a file of facebookresearch/DiT as safetensors, or a model's folder.`,
    );
  };
  const [hidden, channels, patch] = shapeOf(patchKey, 4) as [number, number, number, number];
  const [rows] = shapeOf(tableKey, 2) as [number, number];
  const [outputs] = shapeOf(lastKey, 2) as [number, number];
  const depth = [...entries.keys()].filter((key) => /^blocks\.\d+\.attn\.qkv\.weight$/.test(key));
  return {
    ...ditPresets["DiT-XL/2"],
    size: sizeOf(entries.get(positionsKey)?.shape, patch),
    channels,
    patch,
    hidden,
    depth: depth.length,
    heads: headsOf(hidden, name),
    mlpRatio: (entries.get("blocks.0.mlp.fc1.weight")?.shape[0] ?? 4 * hidden) / hidden,
    learnedVariance: outputs === 2 * channels * patch ** 2,
    // The last row is the class of images without one.
    condition: { kind: "class", classes: rows - 1, nullClass: true },
  };
}

/** Of a square, which is all that was published. */
function sizeOf(positions: readonly number[] | undefined, patch: number): [number, number] {
  const side = positions ? Math.round(Math.sqrt(positions[1] ?? 0)) * patch : 32;
  return [side, side];
}

/** The number of heads shows in no shape: those of the published widths, else 64 channels a head as most of them. */
function headsOf(hidden: number, name: string): number {
  const published = Object.values(ditPresets).find((preset) => preset.hidden === hidden);
  if (published) return published.heads;
  if (hidden % 64 === 0) return hidden / 64;
  throw new FormatError(
    `${name} is a DiT of width ${hidden}, from which its number of heads cannot be told; give a folder in diffusers' layout, whose config says it.`,
  );
}
