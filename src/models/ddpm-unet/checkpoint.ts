/** The arguments of the original U-Net's constructor. */
import type { FieldReader } from "../../weights/config-fields.ts";
import type { DDPMUNetConfig } from "./config.ts";

/**
 * The arguments of UNetModel in openai/guided-diffusion.
 *
 * @throws FormatError that names the field at fault
 */
export function ddpmUNetConfig(read: FieldReader): DDPMUNetConfig {
  const channels = read.count("in_channels", 3);
  const headChannels = read.number("num_head_channels", -1);
  const classes = read.optionalCount("num_classes");
  return {
    size: read.size("image_size", 64),
    channels,
    learnedVariance: read.count("out_channels", channels) === 2 * channels,
    width: read.count("model_channels", 128),
    multipliers: read.numbers("channel_mult", [1, 2, 4, 8]),
    blocks: read.count("num_res_blocks", 2),
    attention: read.numbers("attention_resolutions", []),
    heads: headChannels > 0 ? { channels: headChannels } : { count: read.count("num_heads", 1) },
    headOrder: read.flag("use_new_attention_order", false) ? "new" : "legacy",
    scaleShift: read.flag("use_scale_shift_norm", false),
    residualResampling: read.flag("resblock_updown", false),
    condition: classes ? { kind: "class", classes, nullClass: false } : { kind: "none" },
  };
}
