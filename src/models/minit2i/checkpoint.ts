/** Reads the config of a MiniT2I from the arguments of its originals. */
import { FormatError } from "../../engine/errors.ts";
import type { KeyMap } from "../../weights/check-keys.ts";
import type { FieldReader } from "../../weights/config-fields.ts";
import type { MiniT2IConfig } from "./config.ts";

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
  const preamble = read.number("txt_preamble_depth", 2);
  if (!Number.isInteger(preamble) || preamble < 0) {
    throw new FormatError(
      `${read.file} has "txt_preamble_depth" = ${preamble}, but it must be a whole number of at least 0.`,
    );
  }
  return {
    size: [side, side],
    channels: read.count("in_channels", 3),
    patch,
    hidden,
    depth: read.count("depth_double", 17),
    preamble,
    heads,
    ...(heads * headSize !== hidden && { headSize }),
    mlpRatio: read.number("mlp_ratio", 8 / 3),
    bottleneck: read.count("pca_channels", 128),
    condition: {
      kind: "text",
      width: read.count("txt_input_size", 1024),
      length: read.count(promptLength, 256),
    },
    learnedVariance: false,
  };
}

/** The names of the published folders in diffusers' layout. */
export const diffusersMiniT2IKeys: KeyMap = {
  keyOf: (name) => `model.net.${name}`,
  owns: () => true,
};
