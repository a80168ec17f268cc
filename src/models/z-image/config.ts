/** The config of Z-Image and its published size. */
import * as z from "zod";
import {
  checkAxes,
  checkSizes,
  count,
  type Refuse,
  transformerFields,
} from "../../nn/transformer-schema.ts";

const { size, channels, patch, hidden, depth, heads } = transformerFields;

export const zImageSchema = z.strictObject({
  size,
  channels,
  patch,
  hidden,
  /** Blocks over image and text together. */
  depth,
  /** Blocks over the image alone, and as many over the text alone, in front of them. */
  refiners: z.int().min(0),
  heads,
  learnedVariance: z.literal(false),
  /** Hidden states of a language model. */
  condition: z.strictObject({ kind: z.literal("text"), width: count, length: count }),
  /** Channels inside the embedding of the time. */
  timeWidth: count,
  /** The time at the clean image in the unit of the time embedding. */
  timeScale: z.number().positive(),
  /** True if queries and keys are normalized. */
  qkNorm: z.boolean(),
  /** Added to the mean square in the norms. */
  epsilon: z.number().positive(),
  /** Channels of a head that the positions of each axis rotate: place in the text, row and column. */
  axes: z.tuple([count, count, count]).readonly(),
  /** The number of positions along each axis. */
  places: z.tuple([count, count, count]).readonly(),
  /** Base of the rotary frequencies. */
  theta: z.number().positive(),
});

export type ZImageConfig = z.output<typeof zImageSchema>;

/** Reports fields that do not fit each other. */
export function checkZImage(config: ZImageConfig, refuse: Refuse): void {
  checkSizes(config, refuse);
  checkAxes(config, refuse);
}

/** Latents of 128×128, as the published models draw them at 1024×1024 pixels. */
export const zImagePresets = {
  "Z-Image-Turbo": {
    size: [128, 128],
    channels: 16,
    patch: 2,
    hidden: 3840,
    depth: 30,
    refiners: 2,
    heads: 30,
    learnedVariance: false,
    condition: { kind: "text", width: 2560, length: 512 },
    timeWidth: 1024,
    timeScale: 1000,
    qkNorm: true,
    epsilon: 1e-5,
    axes: [32, 48, 48],
    places: [1536, 512, 512],
    theta: 256,
  },
} satisfies Record<string, ZImageConfig>;
