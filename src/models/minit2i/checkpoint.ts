/** Reads the config of a MiniT2I from the arguments of its originals. */
import { FormatError } from "../../engine/errors.ts";
import type { KeyMap } from "../../weights/check-keys.ts";
import type { FieldReader } from "../../weights/config-fields.ts";
import type { TensorEntry } from "../../weights/safetensors/header.ts";
import { type Weights, weightsOf } from "../../weights/safetensors/safetensors.ts";
import { feedForwardWidth, type MiniT2IConfig } from "./config.ts";

/**
 * The arguments of MMJiTConfig, which are also the config.json of its diffusers folder; what they leave out has its defaults.
 *
 * @throws FormatError that names the field at fault
 */
export function miniT2IConfig(read: FieldReader): MiniT2IConfig {
  const config: MiniT2IConfig = {
    ...sharedFields(read, "image_size", "prompt_length"),
    unreadWidth: read.count("cond_vec_size", 768),
  };
  read.only("prediction", "x");
  read.only("sampler", "euler");
  // How its pipeline samples; the network does not depend on them, and nothing reads the number of guided channels.
  read.ignore("n_T", "cfg_channels", "cfg_interval", "llm");
  read.finish("MMJiTConfig");
  return config;
}

/**
 * The arguments of MeanFlowMMJiT, the network that draws in few steps.
 *
 * @throws FormatError that names the field at fault
 */
export function miniT2IMeanFlowConfig(read: FieldReader): MiniT2IConfig {
  const shared = sharedFields(read, "img_input_size", "txt_input_length");
  const config: MiniT2IConfig = {
    ...shared,
    meanFlow: {
      context: read.count("num_context_tokens", 8),
      guidance: read.count("num_cfg_tokens", 4),
      interval: read.count("num_interval_tokens", 2),
      time: read.count("num_time_tokens", 4),
    },
    unreadWidth: shared.hidden,
  };
  read.finish("MeanFlowMMJiT");
  return config;
}

function sharedFields(
  read: FieldReader,
  imageSize: string,
  promptLength: string,
): Omit<MiniT2IConfig, "unreadWidth" | "meanFlow"> {
  const hidden = read.count("hidden_size", 768);
  const textHidden = read.count("txt_hidden_size", 768);
  if (textHidden !== hidden) {
    throw new FormatError(
      `${read.file} has "txt_hidden_size" = ${textHidden}, but it must be ${hidden}, the "hidden_size", because both streams end in one layer.`,
    );
  }
  const [heads, headSize] = [read.count("num_heads", 12), read.count("head_dim", 64)];
  if (headSize % 4 !== 0) {
    throw new FormatError(
      `${read.file} has "head_dim" = ${headSize}, but it must be a multiple of 4, which rotary positions of rows and columns need.`,
    );
  }
  if (hidden % 4 !== 0) {
    throw new FormatError(
      `${read.file} has "hidden_size" = ${hidden}, but it must be a multiple of 4, which the sine-cosine positions need.`,
    );
  }
  const [patch, side] = [read.count("patch_size", 16), read.count(imageSize, 512)];
  if (side % patch !== 0) {
    throw new FormatError(
      `${read.file} has "${imageSize}" = ${side}, but it must be a multiple of ${patch}, the "patch_size".`,
    );
  }
  return {
    size: [side, side],
    channels: read.count("in_channels", 3),
    patch,
    hidden,
    depth: read.count("depth_double", 17),
    preamble: read.countOrZero("txt_preamble_depth", 2),
    heads,
    ...(heads * headSize !== hidden && { headSize }),
    // As the shapes of a file show it: MiniT2I-L/16 says 2.7, but its layers are a little wider.
    mlpRatio: feedForwardWidth({ hidden, mlpRatio: read.number("mlp_ratio", 8 / 3) }) / hidden,
    bottleneck: read.count("pca_channels", 128),
    condition: {
      kind: "text",
      width: read.count("txt_input_size", 1024),
      length: read.count(promptLength, 256),
    },
    learnedVariance: false,
  };
}

/** The prefix of every name in the published folders in diffusers' layout. */
const folderPrefix = "model.net.";

/** The names of these folders. */
export const diffusersMiniT2IKeys: KeyMap = {
  keyOf: (name) => folderPrefix + name,
  owns: () => true,
};

/** A layer that a MiniT2I has and no other model. */
const firstProjection = "double_blocks.0.img_qkv.weight";

/** The same layer in the tree of parameters of the JAX code, whose paths are joined with "/". */
const flaxProjection = "net/double_blocks/layers_0/img_qkv/_flax_linear/kernel";

/** Returns true if the keys are a MiniT2I's, with the prefix of its folders or without, or those of the JAX code. */
export function isMiniT2I({ entries }: Pick<Weights, "entries">): boolean {
  const names = [firstProjection, folderPrefix + firstProjection];
  return [...names, flaxProjection].some((name) => entries.has(name));
}

/** The name of a Flax parameter in PyTorch, from its path in the tree. */
function flaxName(path: string): string {
  return path
    .replace(/^net\//, "")
    .replaceAll(/layers_(\d+)/g, "$1")
    .replaceAll(/\/_flax_(linear|rmsnorm|param)/g, "")
    .replace(/\/param_tensor$/, "")
    .replace(/\/kernel$/, "/weight")
    .replaceAll("/", ".");
}

/** The weights of the JAX code in PyTorch's layout: linear kernels are [in, out] there, those of convolutions [height, width, in, out]. */
function flaxWeights(weights: Weights): Weights {
  const orders: Readonly<Record<number, readonly number[]>> = { 2: [1, 0], 4: [3, 2, 0, 1] };
  const entries = [...weights.entries].map(([path, entry]): [string, TensorEntry] => {
    const name = flaxName(path);
    const axes = path.endsWith("/kernel") ? orders[entry.shape.length] : undefined;
    if (!axes) return [name, { ...entry, name }];
    return [name, { ...entry, name, axes, shape: axes.map((axis) => entry.shape[axis]!) }];
  });
  return weightsOf(weights.name, weights.metadata, new Map(entries), () => weights.close());
}

/** The weights of a file without the prefix of the folders, in PyTorch's layout. */
export function originalMiniT2IWeights(weights: Weights): Weights {
  if (weights.entries.has(firstProjection)) return weights;
  if (weights.entries.has(flaxProjection)) return flaxWeights(weights);
  const entries = [...weights.entries].map(
    ([name, entry]) =>
      [name.startsWith(folderPrefix) ? name.slice(folderPrefix.length) : name, entry] as const,
  );
  return weightsOf(weights.name, weights.metadata, new Map(entries), () => weights.close());
}

/** The sides of published pictures in patches, and the tokens of their texts, which show in no shape. */
const published = { patches: 32, length: 256 };

/** Reads the config of a file from its keys and shapes; who loads the weights checks them in full. */
export function miniT2ICheckpointConfig({ entries }: Pick<Weights, "entries">): MiniT2IConfig {
  const size = (key: string, axis: number) => entries.get(key)?.shape[axis] ?? 1;
  const count = (blocks: string) => {
    let depth = 0;
    while (entries.has(`${blocks}.${depth}.q_norm.weight`)) depth++;
    return depth;
  };
  const patch = size("img_embedder.proj1.weight", 2);
  const hidden = size("txt_embedder.weight", 0);
  const headSize = size("double_blocks.0.q_norm.weight", 0);
  const heads = size(firstProjection, 0) / 3 / headSize;
  const side = published.patches * patch;
  const config: MiniT2IConfig = {
    size: [side, side],
    channels: size("img_embedder.proj1.weight", 1),
    patch,
    preamble: count("txt_preamble_blocks"),
    mlpRatio: size("double_blocks.0.img_mlp.w1.weight", 0) / hidden,
    bottleneck: size("img_embedder.proj1.weight", 0),
    condition: { kind: "text", width: size("txt_embedder.weight", 1), length: published.length },
    learnedVariance: false,
    hidden,
    depth: count("double_blocks"),
    heads,
    ...(heads * headSize !== hidden && { headSize }),
    ...(entries.has("pooled_embedder.weight") && {
      unreadWidth: size("pooled_embedder.weight", 0),
    }),
  };
  if (!entries.has("time_tokens")) return config;
  return {
    ...config,
    meanFlow: {
      context: size("context_tokens", 1),
      guidance: size("omega_tokens", 1),
      interval: size("t_min_tokens", 1),
      time: size("time_tokens", 1),
    },
  };
}
