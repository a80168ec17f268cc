/** The arguments of the original U-ViT's constructors. */
import type { FieldReader } from "../../weights/config-fields.ts";
import type { UViTConfig } from "./config.ts";

/**
 * The arguments of baofff/U-ViT's constructors. Those of `uvit_t2i.py` are recognised by `clip_dim` or `num_clip_token`;
 * what they leave out has their defaults.
 *
 * @throws FormatError that names an argument which is unsound, unknown or not supported
 */
export function uViTConfig(read: FieldReader): UViTConfig {
  const config: UViTConfig = {
    size: read.size("img_size", 224),
    channels: read.count("in_chans", 3),
    patch: read.count("patch_size", 16),
    hidden: read.count("embed_dim", 768),
    depth: 2 * Math.floor(read.count("depth", 12) / 2),
    heads: read.count("num_heads", 12),
    mlpRatio: read.number("mlp_ratio", 4),
    qkvBias: read.flag("qkv_bias", false),
    timeMlp: read.flag("mlp_time_embed", false),
    longSkips: read.flag("skip", true),
    finalConv: read.flag("conv", true),
    learnedVariance: false,
    condition: conditionOf(read),
  };
  read.only("qk_scale");
  read.only("norm_layer", "LayerNorm", "nn.LayerNorm", "torch.nn.LayerNorm");
  read.ignore("use_checkpoint");
  read.finish("UViT");
  return config;
}

function conditionOf(read: FieldReader): UViTConfig["condition"] {
  if (read.has("clip_dim") || read.has("num_clip_token")) {
    const width = read.count("clip_dim", 768);
    return { kind: "text", width, length: read.count("num_clip_token", 77) };
  }
  const classes = read.number("num_classes", -1);
  if (classes <= 0) return { kind: "none" };
  return { kind: "class", classes: read.count("num_classes"), nullClass: false };
}
