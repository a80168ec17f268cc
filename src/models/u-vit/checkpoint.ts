/** The arguments of the original U-ViT's constructors. */
import type { FieldReader } from "../../weights/config-fields.ts";
import type { UViTConfig } from "./config.ts";

/**
 * The arguments of baofff/U-ViT's constructors; those of `uvit_t2i.py` have a `clip_dim`.
 *
 * @throws FormatError that names the field at fault
 */
export function uViTConfig(read: FieldReader): UViTConfig {
  const text = read.optionalCount("clip_dim");
  const classes = read.number("num_classes", -1);
  return {
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
    condition: text
      ? { kind: "text", width: text, length: read.count("num_clip_token", 77) }
      : classes > 0
        ? { kind: "class", classes, nullClass: false }
        : { kind: "none" },
  };
}
