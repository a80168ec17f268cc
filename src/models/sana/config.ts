/** The config of a Sana and the size that the paper publishes. */
import { z } from "zod";
import { checkSizes, count, type Refuse, transformerFields } from "../../nn/transformer-schema.ts";

const { size, channels, patch, hidden, depth, heads, mlpRatio, learnedVariance } =
  transformerFields;

/** Every size of picture works whose sides the patch divides. */
export const sanaSchema = z.strictObject({
  size,
  channels,
  patch,
  hidden,
  depth,
  /** Heads of the linear attention among the patches. */
  heads,
  /** Heads of the attention to the text, and the channels of each. */
  textHeads: count,
  textHeadSize: count,
  /** Channels within a feed-forward layer, as a multiple of `hidden`. */
  mlpRatio,
  learnedVariance,
  condition: z.strictObject({ kind: z.literal("text"), width: count, length: count }),
  /** True if queries, keys and values of the linear attention have a bias. */
  attentionBias: z.boolean(),
  /** True if the norm in front of a feed-forward layer is affine. */
  affineNorms: z.boolean(),
  epsilon: z.number().positive(),
  /**
   * The divisor of sine and cosine positions, which span the range of `size`; null for none, because the convolutions between the
   * patches already tell where they are.
   */
  positions: z.number().positive().nullable(),
});

export type SanaConfig = z.output<typeof sanaSchema>;

/** Reports fields that do not fit each other. */
export function checkSana(config: SanaConfig, refuse: Refuse): void {
  const kind = config.positions === null ? "none" : "sin-cos";
  checkSizes({ ...config, positions: { kind } }, refuse);
}

/** Xie et al., 2024: for 1024×1024 pixels, in latents of a thirty-second of the size and texts of Gemma 2. */
export const sanaPresets = {
  "Sana-1.6B": {
    size: [32, 32],
    channels: 32,
    patch: 1,
    hidden: 2240,
    depth: 20,
    heads: 70,
    textHeads: 20,
    textHeadSize: 112,
    mlpRatio: 2.5,
    learnedVariance: false,
    condition: { kind: "text", width: 2304, length: 300 },
    attentionBias: false,
    affineNorms: false,
    epsilon: 1e-6,
    positions: null,
  },
} as const satisfies Record<string, SanaConfig>;
