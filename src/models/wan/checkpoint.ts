/** Reads the config of a Wan from the arguments of the original code, the shapes of a checkpoint, or diffusers' config. */
import { FormatError, quote } from "../../engine/errors.ts";
import { type KeyMap, renamedKeys, type Renaming } from "../../weights/check-keys.ts";
import type { FieldReader } from "../../weights/config-fields.ts";
import type { Weights } from "../../weights/safetensors/safetensors.ts";
import { type WanConfig, wanPresets } from "./config.ts";

/** The size for which a published model of as many channels is recommended; neither constructor says one. */
function recommended(channels: number): Pick<WanConfig, "size" | "frames"> {
  const known = Object.values(wanPresets).find((preset) => preset.channels === channels);
  const { size, frames } = known ?? wanPresets["Wan2.1-T2V-1.3B"];
  return { size, frames };
}

/**
 * The arguments of the original code's constructor; what they leave out has its defaults.
 *
 * @throws FormatError that names the field at fault
 */
export function wanConfig(read: FieldReader): WanConfig {
  read.choice("model_type", ["t2v", "ti2v"], "t2v");
  const window = read.numbers("window_size", [-1, -1]);
  if (window.some((side) => side !== -1)) {
    throw new FormatError(
      `${read.file} has "window_size" = [${window.join(", ")}], but only attention to the whole clip, [-1, -1], is supported.`,
    );
  }
  const config: WanConfig = {
    ...recommended(read.count("in_dim", 16)),
    patch: patchOf(read),
    channels: read.count("in_dim", 16),
    outputs: read.count("out_dim", 16),
    hidden: read.count("dim", 2048),
    inner: read.count("ffn_dim", 8192),
    depth: read.count("num_layers", 32),
    heads: read.count("num_heads", 16),
    frequencies: read.count("freq_dim", 256),
    condition: {
      kind: "text",
      width: read.count("text_dim", 4096),
      length: read.count("text_len", 512),
    },
    learnedVariance: false,
    qkNorm: read.flag("qk_norm", true),
    crossNorm: read.flag("cross_attn_norm", true),
    epsilon: read.number("eps", 1e-6),
  };
  read.finish("WanModel");
  return checked(config, read.file, "num_heads");
}

/**
 * The config.json of diffusers' WanTransformer3DModel; what it leaves out has diffusers' default.
 *
 * @throws FormatError that names the field at fault
 */
export function diffusersWanConfig(read: FieldReader): WanConfig {
  const heads = read.count("num_attention_heads", 40);
  // Parts of the models that draw from a picture's CLIP embedding.
  for (const name of ["image_dim", "added_kv_proj_dim", "pos_embed_seq_len"]) read.only(name);
  read.only("qk_norm", "rms_norm_across_heads");
  read.only("rope_max_seq_len", 1024);
  const config: WanConfig = {
    ...recommended(read.count("in_channels", 16)),
    patch: patchOf(read),
    channels: read.count("in_channels", 16),
    outputs: read.count("out_channels", 16),
    hidden: heads * read.count("attention_head_dim", 128),
    inner: read.count("ffn_dim", 13824),
    depth: read.count("num_layers", 40),
    heads,
    frequencies: read.count("freq_dim", 256),
    condition: { kind: "text", width: read.count("text_dim", 4096), length: 512 },
    learnedVariance: false,
    qkNorm: true,
    crossNorm: read.flag("cross_attn_norm", true),
    epsilon: read.number("eps", 1e-6),
  };
  read.finish("WanTransformer3DModel");
  return checked(config, read.file, "attention_head_dim");
}

function patchOf(read: FieldReader): WanConfig["patch"] {
  const patch = read.counts("patch_size", [1, 2, 2]);
  if (patch.length === 3) return patch as unknown as WanConfig["patch"];
  throw new FormatError(
    `${read.file} has "patch_size" = [${patch.join(", ")}], but it must have frames, rows and columns.`,
  );
}

/** Checks sizes that have to fit each other; `headField` is the field that, with others, gives the width of a head. */
function checked(config: WanConfig, file: string, headField: string): WanConfig {
  const { hidden, heads, frequencies } = config;
  if (hidden % (2 * heads) !== 0 || hidden / heads < 6) {
    throw new FormatError(
      `${file} has "${headField}" that gives ${heads} heads for a width of ${hidden}, but each head needs an even width of at least 6; correct it.`,
    );
  }
  if (frequencies % 2 === 0) return config;
  throw new FormatError(
    `${file} has "freq_dim" = ${frequencies}, but times need an even number; give one.`,
  );
}

const lastKey = "head.head.weight";

/** Returns true if the keys are those of Wan-Video's transformer. */
export function isWanCheckpoint({ entries }: Weights): boolean {
  return entries.has("time_projection.1.weight") && entries.has(lastKey);
}

/**
 * The config of a checkpoint; checking its keys in full is left to who loads it. The length of the text and the epsilon of the norms
 * are those of the published models.
 *
 * @param heads which no shape shows; 128 channels each unless given, as in the published models
 * @throws FormatError when it is not the checkpoint of a Wan
 */
export function wanCheckpointConfig({ name, entries }: Weights, heads?: number): WanConfig {
  const shapeOf = (key: string) => {
    const shape = entries.get(key)?.shape;
    if (shape) return shape;
    throw new FormatError(
      `${name} is no checkpoint of a Wan under its original names: it has no ${quote(key)}; give a file of Wan-Video as safetensors, or a model's folder.`,
    );
  };
  const [hidden, channels, ...patch] = shapeOf("patch_embedding.weight") as [number, number];
  const [values] = shapeOf(lastKey) as [number];
  const blocks = [...entries.keys()].filter((key) => /^blocks\.\d+\.modulation$/.test(key));
  const published = Object.values(wanPresets).find(
    (preset) => preset.hidden === hidden && preset.channels === channels,
  );
  return {
    ...(published ?? wanPresets["Wan2.1-T2V-1.3B"]),
    patch: patch as unknown as WanConfig["patch"],
    channels,
    outputs: values / patch.reduce((product, side) => product * side, 1),
    hidden,
    inner: shapeOf("blocks.0.ffn.0.weight")[0]!,
    depth: blocks.length,
    heads: heads ?? hidden / 128,
    frequencies: shapeOf("time_embedding.0.weight")[1]!,
    condition: { kind: "text", width: shapeOf("text_embedding.0.weight")[1]!, length: 512 },
    qkNorm: entries.has("blocks.0.self_attn.norm_q.weight"),
    crossNorm: entries.has("blocks.0.norm3.weight"),
  };
}

/** Ours → diffusers'. */
const diffusersNames: Renaming = [
  [/^time_embedding\.0\./, "condition_embedder.time_embedder.linear_1."],
  [/^time_embedding\.2\./, "condition_embedder.time_embedder.linear_2."],
  [/^text_embedding\.0\./, "condition_embedder.text_embedder.linear_1."],
  [/^text_embedding\.2\./, "condition_embedder.text_embedder.linear_2."],
  [/^time_projection\.1\./, "condition_embedder.time_proj."],
  [/^head\.head\./, "proj_out."],
  [/^head\.modulation$/, "scale_shift_table"],
  [/\.modulation$/, ".scale_shift_table"],
  [/\.self_attn\./, ".attn1."],
  [/\.cross_attn\./, ".attn2."],
  [/\.([qkv])\./, ".to_$1."],
  [/\.o\./, ".to_out.0."],
  // Diffusers numbers the norms in the order in which they run.
  [/\.norm3\./, ".norm2."],
  [/\.ffn\.0\./, ".ffn.net.0.proj."],
  [/\.ffn\.2\./, ".ffn.net.2."],
];

/** The names of diffusers' `transformer/` folder. */
export const diffusersWanKeys: KeyMap = renamedKeys(diffusersNames);
