/** The config of a U-Net of denoising diffusion, and published sizes. */
import * as z from "zod";
import { conditionSchema, count, type Refuse } from "../../nn/transformer-schema.ts";

/** Groups of channels in each norm. */
export const normGroups = 32;

/** The network accepts every size that its levels can halve. */
export const ddpmUNetSchema = z.strictObject({
  /** Height and width of the input in pixels or latents, each a multiple of 2^(levels − 1). */
  size: z.tuple([count, count]).readonly(),
  /** Channels of the input: 1 or 3 for pixels, those of the autoencoder for latents. */
  channels: count,
  /** True if the variance is predicted too, which doubles the output channels. */
  learnedVariance: z.boolean(),
  /** Base channels, which each level multiplies. */
  width: count,
  /** The factor of each level, from the highest resolution; each further level halves it. */
  multipliers: z.array(z.number().positive()).min(1).readonly(),
  /** Residual blocks of a level. */
  blocks: count,
  /** Levels with attention, by their downsampling factor: 1, 2, 4, … */
  attention: z.array(count).readonly(),
  /** The number of attention heads, or the channels of each. */
  heads: z.union([
    z.strictObject({
      /** The number of heads. */
      count,
    }),
    z.strictObject({
      /** Channels of a head. */
      channels: count,
    }),
  ]),
  /** The order of the attention's channels: q, k and v of each head together ("legacy"), or the heads of all q, then of all k, then of all v ("new"). */
  headOrder: z.enum(["legacy", "new"]),
  /** True if the time embedding scales and shifts the output of the second norm; false if it is added before that norm. */
  scaleShift: z.boolean(),
  /** True if residual blocks change the resolution between levels. */
  residualResampling: z.boolean(),
  /** Without residual resampling: changes the resolution by averaging and repetition instead of convolutions. */
  plainResampling: z.boolean().optional(),
  /** A text enters as the mean of its tokens. */
  condition: conditionSchema,
});

export type DDPMUNetConfig = z.output<typeof ddpmUNetSchema>;

/** Reports fields that do not fit each other. */
export function checkDDPMUNet(config: DDPMUNetConfig, refuse: Refuse): void {
  const { size, width, multipliers, attention, heads } = config;
  const unit = 2 ** (multipliers.length - 1);
  if (size.some((side) => side % unit !== 0)) {
    refuse(
      "multipliers",
      `a picture of ${size.join("×")} cannot be halved ${multipliers.length - 1} times, as ${multipliers.length} levels require; choose a size that is a multiple of ${unit}, or fewer levels`,
    );
  }
  const odd = multipliers.find((times) => (times * width) % normGroups !== 0);
  if (odd !== undefined) {
    refuse(
      "width",
      `a level of ${odd * width} channels cannot be normed in ${normGroups} groups; make width a multiple of ${normGroups}`,
    );
  }
  const levels = multipliers.map((_, level) => 2 ** level);
  const wrong = attention.find((times) => !levels.includes(times));
  if (wrong !== undefined) {
    refuse(
      "attention",
      `no level is ${wrong} times smaller than the picture; the levels are ${levels.join(", ")}`,
    );
  }
  // The middle has attention, whatever the levels have.
  const attending = [...attention, unit].map((times) => multipliers[Math.log2(times)]! * width);
  const parts = "count" in heads ? heads.count : heads.channels;
  const uneven = attending.find((channels) => channels % parts !== 0);
  if (wrong === undefined && uneven !== undefined) {
    refuse(
      "heads",
      `${uneven} channels do not divide into heads ${"count" in heads ? `by ${parts}` : `of ${parts}`}`,
    );
  }
}

/** Dhariwal & Nichol, 2021: of ImageNet's classes. */
const published = {
  channels: 3,
  learnedVariance: true,
  width: 256,
  blocks: 2,
  attention: [2, 4, 8],
  heads: { channels: 64 },
  headOrder: "legacy",
  scaleShift: true,
  residualResampling: true,
  condition: { kind: "class", classes: 1000, nullClass: false },
} as const;

export const ddpmUNetPresets = {
  /** Ho et al., 2020. */
  "DDPM-CIFAR10": {
    size: [32, 32],
    channels: 3,
    learnedVariance: false,
    width: 128,
    multipliers: [1, 2, 2, 2],
    blocks: 2,
    attention: [2],
    heads: { count: 1 },
    headOrder: "legacy",
    scaleShift: false,
    residualResampling: false,
    condition: { kind: "none" },
  },
  "ADM-64": {
    ...published,
    size: [64, 64],
    width: 192,
    multipliers: [1, 2, 3, 4],
    blocks: 3,
    headOrder: "new",
  },
  "ADM-128": {
    ...published,
    size: [128, 128],
    multipliers: [1, 1, 2, 3, 4],
    attention: [4, 8, 16],
    heads: { count: 4 },
  },
  "ADM-256": {
    ...published,
    size: [256, 256],
    multipliers: [1, 1, 2, 2, 4, 4],
    attention: [8, 16, 32],
  },
  "ADM-512": {
    ...published,
    size: [512, 512],
    multipliers: [0.5, 1, 1, 2, 2, 4, 4],
    attention: [16, 32, 64],
  },
} satisfies Record<string, DDPMUNetConfig>;
