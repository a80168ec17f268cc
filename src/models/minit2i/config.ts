/** The config of a MiniT2I network and its published sizes. */
import * as z from "zod";
import { checkSizes, count, type Refuse, sizeFields } from "../../nn/transformer-schema.ts";

export const miniT2ISchema = z.strictObject({
  ...sizeFields,
  /** Blocks that text and image go through together. */
  depth: count,
  /** Blocks that the text goes through alone before them. */
  preamble: z.int().min(0),
  /** Channels of a head, a multiple of 4; the heads share the width unless given. */
  headSize: count.multipleOf(4).optional(),
  /** Width of the feed-forward layers as a multiple of `hidden`, rounded up to a multiple of 8. */
  mlpRatio: sizeFields.mlpRatio,
  /** The width through which a patch of pixels is squeezed. */
  bottleneck: count,
  condition: z.strictObject({ kind: z.literal("text"), width: count, length: count }),
  learnedVariance: z.literal(false),
  /**
   * Numbers of the tokens in front of the text that tell a mean-flow network of the text as a whole, the guidance, the first
   * and the last time of its interval, and the span of the step; without them the network takes many small steps.
   */
  meanFlow: z
    .strictObject({
      context: count.default(8),
      guidance: count.default(4),
      interval: count.default(2),
      time: count.default(4),
    })
    .optional(),
  /**
   * Width of the embedders of time and pooled text that published files contain though nothing reads them. With it, the
   * last block has the half for the text too, which nothing reads either.
   */
  unreadWidth: count.optional(),
});

export type MiniT2IConfig = z.output<typeof miniT2ISchema>;

/** Channels inside the feed-forward layers. */
export function feedForwardWidth({
  hidden,
  mlpRatio,
}: Pick<MiniT2IConfig, "hidden" | "mlpRatio">): number {
  return 8 * Math.ceil(Math.trunc(hidden * mlpRatio) / 8);
}

/** Reports fields that do not fit each other. */
export function checkMiniT2I(config: MiniT2IConfig, refuse: Refuse): void {
  const { hidden: width, heads: number, headSize } = config;
  checkSizes(
    { ...config, heads: headSize === undefined ? number : 1, positions: { kind: "sin-cos" } },
    refuse,
  );
  if (headSize === undefined && width % (4 * number) !== 0) {
    refuse(
      "heads",
      `${number} heads do not divide the hidden width ${width} into multiples of 4, which rotary positions of rows and columns need`,
    );
  }
}

/** 256 tokens of flan-t5-large, and pictures of 512×512 pixels. */
const published = {
  size: [512, 512],
  channels: 3,
  patch: 16,
  preamble: 2,
  mlpRatio: 8 / 3,
  bottleneck: 128,
  condition: { kind: "text", width: 1024, length: 256 },
  learnedVariance: false,
} as const;

const base = { hidden: 768, depth: 17, heads: 12, unreadWidth: 768 };

export const miniT2IPresets = {
  "MiniT2I-B/16": { ...published, ...base },
  "MiniT2I-L/16": {
    ...published,
    hidden: 1248,
    depth: 23,
    heads: 24,
    // Published as 2.7, which is rounded up to this width.
    mlpRatio: 3376 / 1248,
    unreadWidth: 1248,
  },
  "MiniT2I-B/16-MF": {
    ...published,
    ...base,
    meanFlow: { context: 8, guidance: 4, interval: 2, time: 4 },
  },
} satisfies Record<string, MiniT2IConfig>;
