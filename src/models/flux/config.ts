/** The config of FLUX.1 and its published sizes. */
import * as z from "zod";
import {
  checkAxes,
  checkSizes,
  count,
  type Refuse,
  sizeFields,
} from "../../nn/transformer-schema.ts";

export const fluxSchema = z.strictObject({
  ...sizeFields,
  /** Blocks in which text and image have weights of their own. */
  depth: count,
  /** Blocks behind them, over all tokens together. */
  singleDepth: count,
  learnedVariance: z.literal(false),
  /** The tokens of T5 and the pooled text of CLIP. */
  condition: z.strictObject({
    kind: z.literal("text"),
    width: count,
    length: count,
    pooled: count,
  }),
  /** Channels of a head that the positions of each axis rotate: picture (0, or 1 for a reference), row and column. */
  axes: z.tuple([count, count, count]).readonly(),
  /** Base of the rotary frequencies. */
  theta: z.number().positive(),
  /** True if queries, keys and values of the blocks of two streams have a bias. */
  qkvBias: z.boolean(),
  /** True if the guidance scale is an input, as in the model that was distilled with it. */
  guidance: z.boolean(),
});

export type FluxConfig = z.output<typeof fluxSchema>;

/** Reports fields that do not fit each other. */
export function checkFlux(config: FluxConfig, refuse: Refuse): void {
  checkSizes(config, refuse);
  checkAxes(config, refuse);
}

/** Latents of 128×128, as the published models draw them at 1024×1024 pixels. */
const published: FluxConfig = {
  size: [128, 128],
  channels: 16,
  patch: 2,
  hidden: 3072,
  depth: 19,
  singleDepth: 38,
  heads: 24,
  mlpRatio: 4,
  learnedVariance: false,
  condition: { kind: "text", width: 4096, length: 512, pooled: 768 },
  axes: [16, 56, 56],
  theta: 10_000,
  qkvBias: true,
  guidance: true,
};

export const fluxPresets = {
  "FLUX.1-dev": published,
  "FLUX.1-schnell": {
    ...published,
    condition: { ...published.condition, length: 256 },
    guidance: false,
  },
} satisfies Record<string, FluxConfig>;
