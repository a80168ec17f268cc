/** Reads the config of a DiT from the arguments of the original code, the shapes of a checkpoint, or diffusers' config. */
import { FormatError, quote } from "../../engine/errors.ts";
import { type KeyMap, renamed, type Renaming } from "../../weights/check-keys.ts";
import type { FieldReader } from "../../weights/config-fields.ts";
import { readFloat32, type Weights } from "../../weights/safetensors/safetensors.ts";
import { type DiTConfig, ditPaper, ditPresets } from "./config.ts";

/**
 * The arguments of the original code's constructor; what they leave out has its defaults.
 *
 * @throws FormatError that names the field at fault
 */
export function ditConfig(read: FieldReader): DiTConfig {
  const config: DiTConfig = {
    ...ditPaper,
    size: read.size("input_size", 32),
    patch: read.count("patch_size", 2),
    channels: read.count("in_channels", 4),
    hidden: read.count("hidden_size", 1152),
    depth: read.count("depth", 28),
    heads: read.count("num_heads", 16),
    mlpRatio: read.number("mlp_ratio", 4),
    learnedVariance: read.flag("learn_sigma", true),
    condition: {
      kind: "class",
      classes: read.count("num_classes", 1000),
      nullClass: read.number("class_dropout_prob", 0.1) > 0,
    },
  };
  read.finish("DiT");
  return config;
}

/**
 * The config.json of diffusers' DiTTransformer2DModel (or of its Transformer2DModel, as older releases wrote it);
 * what it leaves out has diffusers' default.
 *
 * @throws FormatError that names the field at fault
 */
export function diffusersDiTConfig(read: FieldReader): DiTConfig {
  const heads = read.count("num_attention_heads", 16);
  const channels = read.count("in_channels", 4);
  const outputs = read.count("out_channels", channels);
  if (outputs !== channels && outputs !== 2 * channels) {
    throw new FormatError(
      `${read.file} has "out_channels" = ${outputs}, but a DiT of ${channels} channels has ${channels}, or ${2 * channels} with a learned variance.`,
    );
  }
  // Transformer2DModel can be many models; with these arguments it is a DiT.
  read.only("norm_type", "ada_norm_zero");
  read.only("activation_fn", "gelu-approximate");
  read.only("attention_bias", true);
  read.only("norm_elementwise_affine", false);
  read.only("attention_type", "default");
  for (const name of ["only_cross_attention", "double_self_attention", "use_linear_projection"]) {
    read.only(name, false);
  }
  for (const name of ["cross_attention_dim", "num_vector_embeds", "caption_channels"]) {
    read.only(name);
  }
  for (const name of ["interpolation_scale", "use_additional_conditions"]) read.only(name);
  // See `configOfDiffusersWeights`.
  read.only("norm_eps", 1e-5, 1e-6);
  read.ignore("dropout", "norm_num_groups", "upcast_attention");
  const config: DiTConfig = {
    ...ditPaper,
    size: read.size("sample_size", 32),
    patch: read.count("patch_size", 2),
    channels,
    heads,
    hidden: heads * read.count("attention_head_dim", 72),
    depth: read.count("num_layers", 28),
    learnedVariance: outputs === 2 * channels,
    condition: { ...ditPaper.condition, classes: read.count("num_embeds_ada_norm", 1000) },
  };
  read.finish("DiTTransformer2DModel");
  return config;
}

/** Ours → diffusers', whose three projections of the attention are read as one, `to_qkv`. */
const diffusersNames: Renaming = [
  [/^pos_embed$/, "pos_embed.pos_embed"],
  [/^x_embedder\./, "pos_embed."],
  [/^(?=[ty]_embedder\.)/, "blocks.0."],
  [/\.t_embedder\.mlp\.0\./, ".norm1.emb.timestep_embedder.linear_1."],
  [/\.t_embedder\.mlp\.2\./, ".norm1.emb.timestep_embedder.linear_2."],
  [/\.y_embedder\./, ".norm1.emb.class_embedder."],
  [/^final_layer\.adaLN_modulation\.1\./, "proj_out_1."],
  [/^final_layer\.linear\./, "proj_out_2."],
  [/^blocks\./, "transformer_blocks."],
  [/\.attn\.qkv\./, ".attn1.to_qkv."],
  [/\.attn\.proj\./, ".attn1.to_out.0."],
  [/\.mlp\.fc1\./, ".ff.net.0.proj."],
  [/\.mlp\.fc2\./, ".ff.net.2."],
  [/\.adaLN_modulation\.1\./, ".norm1.linear."],
];

/**
 * The names of diffusers' `transformer/` folder, after `joinQkv`. There every block holds embeddings of time and class, of which
 * the first block's count where they are shared.
 */
export const diffusersDiTKeys: KeyMap = {
  keyOf: (name) => renamed(name, diffusersNames),
  owns: (key) => !/^transformer_blocks\.[1-9]\d*\.norm1\.emb\./.test(key),
};

const patchKey = "x_embedder.proj.weight";
const tableKey = "y_embedder.embedding_table.weight";
const lastKey = "final_layer.linear.weight";
const positionsKey = "pos_embed";

/** Returns true if the keys are those of facebookresearch/DiT, and not of a network that was derived from it, whose frames have positions. */
export function isDiTCheckpoint({ entries }: Weights): boolean {
  if (entries.has("temp_embed")) return false;
  return entries.has(tableKey) || entries.has("blocks.0.attn.qkv.weight");
}

/**
 * The config of a checkpoint; checking its keys in full is left to who loads it.
 *
 * @param heads which no shape shows; those of the published width unless given, else 64 channels each
 * @throws FormatError when it is not the checkpoint of a DiT
 */
export function ditCheckpointConfig({ name, entries }: Weights, heads?: number): DiTConfig {
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
  const blocks = [...entries.keys()].filter((key) => /^blocks\.\d+\.attn\.qkv\.weight$/.test(key));
  return {
    ...ditPresets["DiT-XL/2"],
    size: sizeOf(entries.get(positionsKey)?.shape, patch),
    channels,
    patch,
    hidden,
    depth: blocks.length,
    heads: heads ?? likelyHeads(hidden, name),
    mlpRatio: (entries.get("blocks.0.mlp.fc1.weight")?.shape[0] ?? 4 * hidden) / hidden,
    learnedVariance: outputs === 2 * channels * patch ** 2,
    // The last row is the class of images without one.
    condition: { kind: "class", classes: rows - 1, nullClass: true },
  };
}

/** The size whose position table this is; all published models draw squares. */
function sizeOf(positions: readonly number[] | undefined, patch: number): [number, number] {
  const side = positions ? Math.round(Math.sqrt(positions[1] ?? 0)) * patch : 32;
  return [side, side];
}

function likelyHeads(hidden: number, name: string): number {
  const published = Object.values(ditPresets).find((preset) => preset.hidden === hidden);
  if (published) return published.heads;
  if (hidden % 64 === 0) return hidden / 64;
  throw new FormatError(
    `${name} is a DiT of width ${hidden}, from which its number of heads cannot be inferred; give --heads (heads).`,
  );
}

/**
 * Completes the config of diffusers' weights, whose blocks hold embeddings of time and class each. In the published models they
 * are copies, and times and norms are those of the original, whatever diffusers' config says. In a DiT that was trained in
 * diffusers they differ, times have the frequencies of diffusers, and the norms before the feed-forward layers have the epsilon
 * of the config (1e-5 unless given). The biases are compared, which any training changes.
 *
 * @param read the fields of config.json
 */
export async function configOfDiffusersWeights(
  config: DiTConfig,
  read: FieldReader,
  weights: Weights,
): Promise<DiTConfig> {
  if (await hasSharedEmbeddings(config, weights)) return config;
  const epsilon = read.number("norm_eps", 1e-5);
  return { ...config, embeddings: "per-block", feedForwardNorm: { ...config.norm, epsilon } };
}

async function hasSharedEmbeddings({ depth }: DiTConfig, { entries }: Weights): Promise<boolean> {
  // No published model has a single block.
  if (depth === 1) return false;
  for (const layer of ["linear_1", "linear_2"]) {
    const rest = `norm1.emb.timestep_embedder.${layer}.bias`;
    const first = entries.get(`transformer_blocks.0.${rest}`);
    if (!first) continue;
    const wanted = await readFloat32(first);
    for (let i = 1; i < depth; i++) {
      const entry = entries.get(`transformer_blocks.${i}.${rest}`);
      if (!entry) break;
      const { data } = await readFloat32(entry);
      if (!data.every((value, j) => value === wanted.data[j])) return false;
    }
  }
  return true;
}
