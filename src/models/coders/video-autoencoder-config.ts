/** The config of a causal video autoencoder: presets, the arguments of Wan's original code, and diffusers' config.json. */
import { FormatError } from "../../engine/errors.ts";
import type { FieldReader } from "../../weights/config-fields.ts";

/** A causal autoencoder of clips, as Wan2.1 and Wan2.2 have it. */
export interface VideoAutoencoderConfig {
  /** Channels of the latents: 16 in Wan2.1, 48 in Wan2.2. */
  readonly latentChannels: number;
  /** Width of the first level of the encoder, and of the last of the decoder. */
  readonly encoderWidth: number;
  /** Width of the last level of the decoder, from which the frames come. */
  readonly decoderWidth: number;
  /** Width of each level as a multiple of the first; each further level halves height and width. */
  readonly multipliers: readonly number[];
  /** Residual blocks of a level of the encoder; the decoder has one more. */
  readonly layers: number;
  /** True if each level but the last also halves the frames. */
  readonly halvesFrames: readonly boolean[];
  /** Wan2.2's form: 2×2 pixels are channels of one place, and averages bridge every level. */
  readonly bridged: boolean;
  /** Mean and standard deviation of each latent channel, by which latents are normalized. */
  readonly mean: readonly number[];
  /** Standard deviation of each latent channel, above 0. */
  readonly deviation: readonly number[];
}

/** The frames of a chunk in the original code, all but the first, which is one frame. */
export const chunkFrames = 4;

/** Pixels along a side of one latent. */
export function spatialFactor({ multipliers, bridged }: VideoAutoencoderConfig): number {
  return 2 ** (multipliers.length - 1) * (bridged ? 2 : 1);
}

/** Frames of one latent, all but the first, which is one frame. */
export function temporalFactor({ halvesFrames }: VideoAutoencoderConfig): number {
  return 2 ** halvesFrames.filter(Boolean).length;
}

const published = {
  multipliers: [1, 2, 4, 4],
  layers: 2,
  halvesFrames: [false, true, true],
} as const;

export const videoAutoencoderPresets = {
  "Wan2.1-VAE": {
    ...published,
    latentChannels: 16,
    encoderWidth: 96,
    decoderWidth: 96,
    bridged: false,
    mean: [
      -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508, 0.4134, -0.0715, 0.5517,
      -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
    ],
    deviation: [
      2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743, 3.2687, 2.1526, 2.8652,
      1.5579, 1.6382, 1.1253, 2.8251, 1.916,
    ],
  },
  "Wan2.2-VAE": {
    ...published,
    latentChannels: 48,
    encoderWidth: 160,
    decoderWidth: 256,
    bridged: true,
    mean: [
      -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813,
      0.0891, 0.157, -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108,
      -0.2158, 0.2502, -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.123, -0.0313,
      -0.1649, 0.0117, 0.0723, -0.2839, -0.2083, -0.052, 0.3748, 0.0152, 0.1957, 0.1433, -0.2944,
      0.3573, -0.0548, -0.1681, -0.0667,
    ],
    deviation: [
      0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.499, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901,
      0.6885, 0.6165, 0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986,
      0.5659, 0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065,
      0.6415, 0.4944, 0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.06, 0.3943, 0.5537, 0.5444, 0.4089,
      0.7468, 0.7744,
    ],
  },
} satisfies Record<string, VideoAutoencoderConfig>;

type Statistics = Pick<VideoAutoencoderConfig, "mean" | "deviation">;

/**
 * The arguments of the original code's constructor, `WanVAE_`, in the file of Wan2.1 or, if `bridged`, of Wan2.2; what they leave out
 * has its defaults.
 *
 * @param statistics of the latents, which are no arguments
 * @throws FormatError that names the field at fault
 */
export function wanVAEConfig(
  read: FieldReader,
  bridged: boolean,
  statistics: Statistics,
): VideoAutoencoderConfig {
  const width = read.count("dim", bridged ? 160 : 128);
  const config: VideoAutoencoderConfig = {
    latentChannels: read.count("z_dim", bridged ? 16 : 4),
    encoderWidth: width,
    decoderWidth: bridged ? read.count("dec_dim", 256) : width,
    ...levelsOf(read, [true, true, false], bridged),
    bridged,
    ...statistics,
  };
  read.ignore("dropout");
  read.finish("WanVAE_");
  return config;
}

/**
 * The config.json of diffusers' AutoencoderKLWan; what it leaves out has diffusers' default.
 *
 * @throws FormatError that names the field at fault
 */
export function diffusersVideoAutoencoderConfig(read: FieldReader): VideoAutoencoderConfig {
  const bridged = read.flag("is_residual", false);
  const pixels = bridged ? 12 : 3;
  read.only("in_channels", pixels);
  read.only("out_channels", pixels);
  if (bridged) read.only("patch_size", 2);
  else read.only("patch_size");
  const width = read.count("base_dim", 96);
  const { mean, deviation } = videoAutoencoderPresets["Wan2.1-VAE"];
  const config: VideoAutoencoderConfig = {
    latentChannels: read.count("z_dim", 16),
    encoderWidth: width,
    decoderWidth: read.optionalCount("decoder_base_dim") ?? width,
    ...levelsOf(read, published.halvesFrames, bridged),
    bridged,
    mean: read.numbers("latents_mean", mean),
    deviation: read.numbers("latents_std", deviation),
  };
  read.only("scale_factor_spatial", spatialFactor(config));
  read.only("scale_factor_temporal", temporalFactor(config));
  read.ignore("dropout", "clip_output");
  read.finish("AutoencoderKLWan");
  for (const [name, values] of [
    ["latents_mean", config.mean],
    ["latents_std", config.deviation],
  ] as const) {
    if (values.length === config.latentChannels) continue;
    throw new FormatError(
      `${read.file} has ${values.length} numbers in "${name}", but "z_dim" = ${config.latentChannels}; give one for each channel.`,
    );
  }
  return config;
}

/** The arguments that both constructors have in common. */
function levelsOf(read: FieldReader, frames: readonly boolean[], bridged: boolean) {
  const multipliers = read.counts("dim_mult", [1, 2, 4, 4]);
  const given = read.flags("temperal_downsample", frames);
  const attention = read.numbers("attn_scales", []);
  if (attention.length > 0 && !bridged) {
    throw new FormatError(
      `${read.file} has "attn_scales" = [${attention.join(", ")}], but only [] is supported: the original cannot code clips in chunks with attention in its levels.`,
    );
  }
  if (!bridged && multipliers.length > 4) {
    throw new FormatError(
      `${read.file} has ${multipliers.length} levels in "dim_mult", but the original's decoder has at most 4; give as many.`,
    );
  }
  if (given.length !== multipliers.length - 1) {
    throw new FormatError(
      `${read.file} has ${given.length} values in "temperal_downsample", but ${multipliers.length} levels in "dim_mult"; give one for each level but the last.`,
    );
  }
  if (2 ** given.filter(Boolean).length > chunkFrames) {
    throw new FormatError(
      `${read.file} halves the frames at ${given.filter(Boolean).length} levels in "temperal_downsample", but the original codes ${chunkFrames} at a time, which can be halved twice.`,
    );
  }
  if (bridged) checkBridges(multipliers, given, read.file);
  return { multipliers, layers: read.count("num_res_blocks", 2), halvesFrames: given };
}

/** Checks that the averages and repetitions around the levels of Wan2.2 give whole channels. */
function checkBridges(
  multipliers: readonly number[],
  halvesFrames: readonly boolean[],
  file: string,
): void {
  for (const [level, width] of multipliers.entries()) {
    const before = level === 0 ? 1 : multipliers[level - 1]!;
    const last = level === multipliers.length - 1;
    const factor = last ? 1 : halvesFrames[level] ? 8 : 4;
    // The decoder runs from the last level to the first, which has no bridge.
    const below = multipliers[level + 1] ?? width;
    const back = halvesFrames[level - 1] ? 8 : 4;
    const fits = (before * factor) % width === 0 && (level === 0 || (width * back) % below === 0);
    if (fits) continue;
    throw new FormatError(
      `${file} has "dim_mult" = [${multipliers.join(", ")}], but the averages of the original cannot bridge level ${level} with these; its channels must be a divisor of those before it times ${factor}.`,
    );
  }
}
