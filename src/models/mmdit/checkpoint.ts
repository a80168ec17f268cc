/** Reads the config of an MMDiT from the arguments of the original code, the shapes of a checkpoint, or diffusers' config. */
import { FormatError, quote } from "../../engine/errors.ts";
import type { FeedForward } from "../../nn/mlp.ts";
import type { Norm } from "../../nn/norm.ts";
import { type KeyMap, renamedKeys, type Renaming } from "../../weights/check-keys.ts";
import type { FieldReader } from "../../weights/config-fields.ts";
import { joinQkv, swapHalves } from "../../weights/views.ts";
import type { Weights } from "../../weights/safetensors/safetensors.ts";
import { type MMDiTConfig, mmditPresets } from "./config.ts";

/** A network conditioned on embeddings of text encoders, as the published ones are. */
export type EncodedMMDiTConfig = Omit<MMDiTConfig, "condition"> & {
  readonly condition: {
    readonly kind: "text";
    readonly width: number;
    readonly length: number;
    readonly pooled: number;
  };
};

const published: EncodedMMDiTConfig = mmditPresets["SD3-medium"];

const qkNorms = {
  rms: { kind: "rms", affine: true, epsilon: 1e-6 },
  ln: { kind: "layer", affine: true, epsilon: 1e-6 },
} as const satisfies Record<string, Norm>;

/** Channels of a head in every published model. */
const headWidth = 64;

/**
 * The arguments of MMDiTX in Stability's code; what they leave out has its defaults.
 *
 * @param width in place of the original's, which follows from the depth: as many heads as blocks, of 64 channels each
 * @throws FormatError that names the field at fault
 */
export function mmditConfig(
  read: FieldReader,
  width: { readonly hidden?: number | undefined; readonly heads?: number | undefined } = {},
): EncodedMMDiTConfig {
  const depth = read.count("depth", 28);
  const channels = read.count("in_channels", 4);
  const learnedVariance = read.flag("learn_sigma", false);
  const outputs = (learnedVariance ? 2 : 1) * channels;
  if (read.count("out_channels", outputs) !== outputs) {
    throw new FormatError(
      `${read.file} has "out_channels" = ${read.count("out_channels")}, but an MMDiT with these "in_channels" and "learn_sigma" predicts ${outputs}; leave it out.`,
    );
  }
  // No MMDiT was published with other values of these.
  read.only("scale_mod_only", false);
  read.only("register_length", 0);
  read.only("attn_mode", "torch");
  read.only("pos_embed_scaling_factor");
  read.only("pos_embed_offset");
  read.ignore("dtype", "device", "verbose");
  const max = read.count("pos_embed_max_size");
  // The table of positions must be there, and a square of that side.
  read.only("num_patches", max ** 2);
  const patch = read.count("patch_size", 2);
  const qkNorm = read.choice("qk_norm", ["none", "rms", "ln"], "none");
  const hidden = width.hidden ?? headWidth * depth;
  const config: EncodedMMDiTConfig = {
    size: read.has("input_size")
      ? trainedSize(max, patch, read.size("input_size"))
      : trainedSize(max, patch),
    patch,
    channels,
    depth,
    hidden,
    heads: width.heads ?? depth,
    mlpRatio: read.number("mlp_ratio", 4),
    learnedVariance,
    condition: {
      ...published.condition,
      width: contextWidth(read, hidden),
      pooled: read.count("adm_in_channels"),
    },
    patches: published.patches,
    positions: { kind: "stored", max },
    norm: read.flag("rmsnorm", false) ? { ...published.norm, kind: "rms" } : published.norm,
    feedForward: read.flag("swiglu", false) ? { kind: "swiglu" } : published.feedForward,
    qkNorm: qkNorm === "none" ? null : qkNorms[qkNorm],
    qkvBias: read.flag("qkv_bias", true),
    dualAttention: blocksIn(read, "x_block_self_attn_layers", depth),
  };
  read.finish("MMDiTX");
  return config;
}

/** Width of the text's tokens: the inputs of the linear layer that brings them to the width of the network. */
function contextWidth(read: FieldReader, hidden: number): number {
  const layer = read.object("context_embedder_config");
  layer.only("target", "torch.nn.Linear");
  const params = layer.has("params") ? layer.object("params") : layer;
  const width = params.count("in_features");
  params.only("out_features", hidden);
  params.only("bias", true);
  layer.finish("the context embedder");
  params.finish("torch.nn.Linear");
  return width;
}

/**
 * The config.json of diffusers' SD3Transformer2DModel; what it leaves out has diffusers' default.
 *
 * @throws FormatError that names the field at fault
 */
export function diffusersMMDiTConfig(read: FieldReader): EncodedMMDiTConfig {
  const depth = read.count("num_layers", 18);
  const heads = read.count("num_attention_heads", 18);
  const hidden = heads * read.count("attention_head_dim", 64);
  const channels = read.count("in_channels", 16);
  const patch = read.count("patch_size", 2);
  for (const [name, only, reason] of [
    ["caption_projection_dim", hidden, "the width of its tokens"],
    ["out_channels", channels, "its in_channels"],
  ] as const) {
    const value = read.count(name, name === "out_channels" ? 16 : 1152);
    if (value === only) continue;
    throw new FormatError(
      `${read.file} has "${name}" = ${value}, but it must be ${only}, ${reason}; give the config of a Stable Diffusion 3.`,
    );
  }
  const max = read.count("pos_embed_max_size", 96);
  const config: EncodedMMDiTConfig = {
    ...published,
    size: trainedSize(max, patch, read.size("sample_size", 128)),
    patch,
    channels,
    depth,
    hidden,
    heads,
    condition: {
      ...published.condition,
      width: read.count("joint_attention_dim", 4096),
      pooled: read.count("pooled_projection_dim", 2048),
    },
    positions: { kind: "stored", max },
    qkNorm: read.choice("qk_norm", ["none", "rms_norm"], "none") === "none" ? null : qkNorms.rms,
    dualAttention: blocksIn(read, "dual_attention_layers", depth),
  };
  read.finish("SD3Transformer2DModel");
  return config;
}

/** Names of blocks, which must be there. */
function blocksIn(read: FieldReader, name: string, depth: number): readonly number[] {
  const blocks = read.numbers(name, []);
  const wrong = blocks.find((block) => !Number.isInteger(block) || block < 0 || block >= depth);
  if (wrong === undefined) return blocks;
  throw new FormatError(
    `${read.file} has ${wrong} among its ${quote(name)}, but its blocks are numbered from 0 to ${depth - 1}; correct the list.`,
  );
}

/** The default size of images, limited by the position table. */
function trainedSize(max: number, patch: number, size = published.size): [number, number] {
  const [height, width] = size;
  return [Math.min(height, max * patch), Math.min(width, max * patch)];
}

/**
 * Infers the config of a checkpoint with Stability's names from keys and shapes, which are not checked completely.
 *
 * @throws FormatError if it is not an MMDiT conditioned on embeddings of text encoders
 */
export function mmditCheckpointConfig({
  name,
  entries,
}: Pick<Weights, "name" | "entries">): EncodedMMDiTConfig {
  const shapeOf = (key: string): readonly number[] => {
    const shape = entries.get(key)?.shape;
    if (shape) return shape;
    throw new FormatError(
      `${name} has no ${quote(key)}, which every MMDiT of Stable Diffusion 3 has; give a checkpoint with the original names.`,
    );
  };
  const sizeOf = (key: string, axis: number) => shapeOf(key)[axis] ?? 0;
  const block = (i: number, rest: string) => `joint_blocks.${i}.${rest}`;

  const [hidden = 0, channels = 0, patch = 0] = shapeOf("x_embedder.proj.weight");
  const depth = Math.max(-1, ...[...entries.keys()].map(numberOfBlock)) + 1;
  const max = Math.round(Math.sqrt(sizeOf("pos_embed", 1)));
  const normKey = block(0, "x_block.attn.ln_q.weight");
  const swiglu = entries.has(block(0, "x_block.mlp.w1.weight"));
  const headSize = entries.get(normKey)?.shape[0] ?? headWidth;
  if (hidden % headSize !== 0) {
    throw new FormatError(
      `${name} is an MMDiT of width ${hidden}, from which its number of heads cannot be inferred; give a folder in diffusers' layout, whose config has it.`,
    );
  }
  const feedForward: FeedForward = swiglu ? { kind: "swiglu" } : published.feedForward;
  return {
    ...published,
    size: trainedSize(max, patch),
    channels,
    patch,
    hidden,
    depth,
    heads: hidden / headSize,
    mlpRatio: swiglu ? published.mlpRatio : sizeOf(block(0, "x_block.mlp.fc1.weight"), 0) / hidden,
    learnedVariance: sizeOf("final_layer.linear.weight", 0) === 2 * channels * patch ** 2,
    condition: {
      ...published.condition,
      width: sizeOf("context_embedder.weight", 1),
      pooled: sizeOf("y_embedder.mlp.0.weight", 1),
    },
    positions: { kind: "stored", max },
    feedForward,
    qkNorm: !entries.has(normKey)
      ? null
      : qkNorms[entries.has(normKey.replace(/weight$/, "bias")) ? "ln" : "rms"],
    qkvBias: entries.has(block(0, "x_block.attn.qkv.bias")),
    dualAttention: Array.from({ length: depth }, (_, i) => i).filter((i) =>
      entries.has(block(i, "x_block.attn2.qkv.weight")),
    ),
  };
}

function numberOfBlock(key: string): number {
  return Number(/^joint_blocks\.(\d+)\./.exec(key)?.[1] ?? -1);
}

/** Ours → diffusers', whose projections of an attention are read as one each. */
const diffusersNames: Renaming = [
  [/^pos_embed$/, "pos_embed.pos_embed"],
  [/^x_embedder\./, "pos_embed."],
  [/^t_embedder\.mlp\./, "time_text_embed.timestep_embedder.mlp."],
  [/^y_embedder\.mlp\./, "time_text_embed.text_embedder.mlp."],
  [/_embedder\.mlp\.0\./, "_embedder.linear_1."],
  [/_embedder\.mlp\.2\./, "_embedder.linear_2."],
  [/^final_layer\.adaLN_modulation\.1\./, "norm_out.linear."],
  [/^final_layer\.linear\./, "proj_out."],
  [/^joint_blocks\./, "transformer_blocks."],
  [/\.x_block\.adaLN_modulation\.1\./, ".norm1.linear."],
  [/\.context_block\.adaLN_modulation\.1\./, ".norm1_context.linear."],
  [/\.x_block\.(attn2?)\.qkv\./, ".$1.to_qkv."],
  [/\.x_block\.(attn2?)\.proj\./, ".$1.to_out.0."],
  [/\.x_block\.(attn2?)\.ln_/, ".$1.norm_"],
  [/\.context_block\.attn\.qkv\./, ".attn.add_qkv_proj."],
  [/\.context_block\.attn\.proj\./, ".attn.to_add_out."],
  [/\.context_block\.attn\.ln_/, ".attn.norm_added_"],
  [/\.x_block\.mlp\.fc1\./, ".ff.net.0.proj."],
  [/\.x_block\.mlp\.fc2\./, ".ff.net.2."],
  [/\.context_block\.mlp\.fc1\./, ".ff_context.net.0.proj."],
  [/\.context_block\.mlp\.fc2\./, ".ff_context.net.2."],
];

/** The names of diffusers' `transformer/` folder, after `diffusersMMDiTWeights`. */
export const diffusersMMDiTKeys: KeyMap = renamedKeys(diffusersNames);

/**
 * Weights of diffusers' SD3Transformer2DModel in the original's layout, where they lie: queries, keys and values in one;
 * and shift before scale also in the two norms that nothing is gated behind, where diffusers has them the other way round.
 */
export function diffusersMMDiTWeights(
  weights: Weights,
  { depth }: Pick<MMDiTConfig, "depth">,
): Weights {
  return swapHalves(joinQkv(weights), (layer) => hasSwappedHalves(layer, { depth }));
}

/** Returns true if diffusers' layer of this name makes scale before shift, where the original makes shift before scale. */
export function hasSwappedHalves(layer: string, { depth }: Pick<MMDiTConfig, "depth">): boolean {
  return (
    layer === "norm_out.linear" || layer === `transformer_blocks.${depth - 1}.norm1_context.linear`
  );
}
