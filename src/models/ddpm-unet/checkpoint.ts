/** The arguments of the original U-Net's constructor. */
import { FormatError } from "../../engine/errors.ts";
import type { FieldReader } from "../../weights/config-fields.ts";
import type { DDPMUNetConfig } from "./config.ts";

/**
 * The arguments of UNetModel in openai/guided-diffusion; what they leave out has its defaults.
 *
 * @throws FormatError that names an argument which is unsound, unknown or not supported
 */
export function ddpmUNetConfig(read: FieldReader): DDPMUNetConfig {
  const channels = read.count("in_channels", 3);
  const outputs = read.count("out_channels", channels);
  if (outputs !== channels && outputs !== 2 * channels) {
    throw new FormatError(
      `${read.file} has "out_channels" = ${outputs}, but a U-Net of ${channels} channels predicts ${channels}, or ${2 * channels} with a learned variance.`,
    );
  }
  const headChannels = read.number("num_head_channels", -1);
  const count = read.count("num_heads", 1);
  // Heads of a fixed width are as many as fit, on the way up, too.
  if (headChannels === -1) read.only("num_heads_upsample", -1, count);
  else read.ignore("num_heads_upsample");
  const classes = read.optionalCount("num_classes");
  const config: DDPMUNetConfig = {
    size: read.size("image_size", 64),
    channels,
    learnedVariance: outputs === 2 * channels,
    width: read.count("model_channels", 128),
    multipliers: read.numbers("channel_mult", [1, 2, 4, 8]),
    blocks: read.count("num_res_blocks", 2),
    attention: read.numbers("attention_resolutions", []),
    heads: headChannels === -1 ? { count } : { channels: read.count("num_head_channels") },
    headOrder: read.flag("use_new_attention_order", false) ? "new" : "legacy",
    scaleShift: read.flag("use_scale_shift_norm", false),
    residualResampling: read.flag("resblock_updown", false),
    plainResampling: !read.flag("conv_resample", true),
    condition: classes ? { kind: "class", classes, nullClass: false } : { kind: "none" },
  };
  read.only("dims", 2);
  read.only("use_fp16", false);
  read.ignore("dropout", "use_checkpoint");
  read.finish("UNetModel");
  return config;
}
