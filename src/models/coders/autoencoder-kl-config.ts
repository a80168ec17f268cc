/** The config of a KL autoencoder: schema, presets, and the config.json of diffusers. */
import * as z from "zod";
import { FormatError } from "../../engine/errors.ts";
import type { FieldReader } from "../../weights/config-fields.ts";

const count = z.int().min(1);

const activationNames = ["silu", "swish", "gelu", "relu", "mish"] as const;

export const autoencoderKLSchema = z
  .strictObject({
    /** Channels of the images that are encoded. */
    inputs: count,
    /** Channels of the images that are decoded. */
    outputs: count,
    /** Channels of the latents: 4 in Stable Diffusion 1 and 2, 16 in Stable Diffusion 3. */
    latentChannels: count,
    /** Width of each level from the highest resolution; each further level halves height and width. */
    widths: z.array(count).min(1).readonly(),
    /** Width after the encoder's first convolution; that of the first level by default. */
    stem: count.optional(),
    /** Residual blocks of a level of the encoder; the decoder has one more. */
    layers: count,
    /** Groups of channels in each norm. */
    groups: count,
    /** The activation of residual blocks; "silu" in all published models. */
    activation: z.enum(activationNames),
    /** True if each level of the encoder, from the highest resolution, has attention after every residual block. */
    encoderAttention: z.array(z.boolean()).readonly(),
    /** The same for the decoder, also from the highest resolution. */
    decoderAttention: z.array(z.boolean()).readonly(),
    /** True for attention at the lowest resolution of encoder and decoder. */
    middleAttention: z.boolean(),
    /** True if a 1×1 convolution follows the encoder. */
    quantConv: z.boolean(),
    /** True if a 1×1 convolution precedes the decoder. */
    postQuantConv: z.boolean(),
    /**
     * FLUX.2: patches of latents are packed into channels, each of which is normalized by the mean and the variance that the
     * file stores, with `epsilon` added to the variance.
     */
    packing: z
      .strictObject({
        /** Height and width of a patch of latents. */
        patch: count,
        /** A number above 0 that is added to each variance. */
        epsilon: z.number().positive(),
      })
      .optional(),
    /** Diffusion models work on (z − shift)·scale, which has unit variance. */
    scale: z.number().positive(),
    /** Subtracted from the latents before they are scaled; 0 in Stable Diffusion 1 and 2. */
    shift: z.number(),
  })
  .superRefine(({ widths, encoderAttention, decoderAttention }, context) => {
    for (const [field, levels] of Object.entries({ encoderAttention, decoderAttention })) {
      if (levels.length === widths.length) continue;
      const message = `it describes ${levels.length} levels, but there are ${widths.length} widths`;
      context.addIssue({ code: "custom", path: [field], message });
    }
  });

export type AutoencoderKLConfig = z.output<typeof autoencoderKLSchema>;

const stableDiffusion: AutoencoderKLConfig = {
  inputs: 3,
  outputs: 3,
  latentChannels: 4,
  widths: [128, 256, 512, 512],
  layers: 2,
  groups: 32,
  activation: "silu",
  encoderAttention: [false, false, false, false],
  decoderAttention: [false, false, false, false],
  middleAttention: true,
  quantConv: true,
  postQuantConv: true,
  scale: 0.18215,
  shift: 0,
};

export const autoencoderKLPresets = {
  /** Stable Diffusion 1 and 2, DiT, PixArt-alpha. */
  "SD-VAE": stableDiffusion,
  /** Stable Diffusion XL, PixArt-Sigma. */
  "SDXL-VAE": { ...stableDiffusion, scale: 0.13025 },
  /** Stable Diffusion 3 and 3.5. */
  "SD3-VAE": {
    ...stableDiffusion,
    latentChannels: 16,
    quantConv: false,
    postQuantConv: false,
    scale: 1.5305,
    shift: 0.0609,
  },
  /** FLUX.1 and Z-Image. */
  "FLUX.1-ae": {
    ...stableDiffusion,
    latentChannels: 16,
    quantConv: false,
    postQuantConv: false,
    scale: 0.3611,
    shift: 0.1159,
  },
  /** FLUX.2. */
  "FLUX.2-ae": {
    ...stableDiffusion,
    latentChannels: 32,
    scale: 1,
    packing: { patch: 2, epsilon: 1e-4 },
  },
} satisfies Record<string, AutoencoderKLConfig>;

/** The name of a published autoencoder. */
export type AutoencoderKLName = keyof typeof autoencoderKLPresets;

/**
 * Reads the config.json of diffusers' AutoencoderKL or AutoencoderKLFlux2; missing fields have the defaults of diffusers.
 *
 * @throws FormatError that names the field at fault
 */
export function autoencoderKLConfig(read: FieldReader): AutoencoderKLConfig {
  const packed = read.text("_class_name", "") === "AutoencoderKLFlux2";
  const preset = packed ? autoencoderKLPresets["FLUX.2-ae"] : undefined;
  const widths = read.counts("block_out_channels", preset?.widths ?? [64]);
  const plain = <T>(block: T) => new Array<T>(widths.length).fill(block);
  const [down, attendingDown] = ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"] as const;
  const [up, attendingUp] = ["UpDecoderBlock2D", "AttnUpDecoderBlock2D"] as const;
  const downBlocks = read.choices("down_block_types", [down, attendingDown], plain(down));
  const upBlocks = read.choices("up_block_types", [up, attendingUp], plain(up));
  for (const blocks of [downBlocks, upBlocks]) {
    if (blocks.length === widths.length) continue;
    throw new FormatError(
      `${read.file} lists the blocks ${blocks.join(", ")}, but ${widths.length} "block_out_channels" (${widths.join(", ")}); give one width a block.`,
    );
  }
  // Without a mean and deviation of each channel, the latents are scaled and shifted as a whole.
  read.only("latents_mean");
  read.only("latents_std");
  // `trained` is what `patchwise train` adds about the training.
  read.ignore("sample_size", "force_upcast", "trained");
  const config: AutoencoderKLConfig = {
    inputs: read.count("in_channels", 3),
    outputs: read.count("out_channels", 3),
    latentChannels: read.count("latent_channels", preset?.latentChannels ?? 4),
    widths,
    layers: read.count("layers_per_block", preset?.layers ?? 1),
    groups: read.count("norm_num_groups", 32),
    activation: read.choice("act_fn", activationNames, "silu"),
    encoderAttention: downBlocks.map((block) => block === attendingDown),
    // Up blocks are listed in the order in which they run: from the smallest size up.
    decoderAttention: upBlocks.map((block) => block === attendingUp).toReversed(),
    middleAttention: read.flag("mid_block_add_attention", true),
    quantConv: read.flag("use_quant_conv", true),
    postQuantConv: read.flag("use_post_quant_conv", true),
    ...(packed
      ? { scale: 1, shift: 0, packing: packingOf(read) }
      : { scale: read.number("scaling_factor", 0.18215), shift: read.number("shift_factor", 0) }),
  };
  read.finish(packed ? "AutoencoderKLFlux2" : "AutoencoderKL");
  return config;
}

function packingOf(read: FieldReader): AutoencoderKLConfig["packing"] {
  // How the statistics followed the batches of its training.
  read.ignore("batch_norm_momentum");
  const [patch, across] = read.size("patch_size", 2);
  if (patch === across) return { patch, epsilon: read.number("batch_norm_eps", 1e-4) };
  throw new FormatError(
    `${read.file} has "patch_size" = ${patch}, ${across}, but latents are packed in squares; give one number.`,
  );
}

/** The fields that `autoencoderKLConfig` reads, for an autoencoder whose levels have no attention. */
export function autoencoderKLFields(
  config: AutoencoderKLConfig,
): Readonly<Record<string, unknown>> {
  const { widths } = config;
  return {
    _class_name: "AutoencoderKL",
    in_channels: config.inputs,
    out_channels: config.outputs,
    latent_channels: config.latentChannels,
    block_out_channels: widths,
    down_block_types: widths.map(() => "DownEncoderBlock2D"),
    up_block_types: widths.map(() => "UpDecoderBlock2D"),
    layers_per_block: config.layers,
    norm_num_groups: config.groups,
    act_fn: config.activation,
    mid_block_add_attention: config.middleAttention,
    use_quant_conv: config.quantConv,
    use_post_quant_conv: config.postQuantConv,
    scaling_factor: config.scale,
    shift_factor: config.shift,
  };
}

/** Pixels along a side of one latent as networks see it: each level but the first halves height and width, and packing follows. */
export function latentFactor({ widths, packing }: AutoencoderKLConfig): number {
  return 2 ** (widths.length - 1) * (packing?.patch ?? 1);
}

/** Channels of the latents as networks see them. */
export function latentWidth({ latentChannels, packing }: AutoencoderKLConfig): number {
  return latentChannels * (packing?.patch ?? 1) ** 2;
}
