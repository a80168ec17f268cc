/** The config of FLUX.2 and its published sizes. */
import * as z from "zod";
import {
  checkAxes,
  checkSizes,
  count,
  type Refuse,
  transformerFields,
} from "../../nn/transformer-schema.ts";

const { size, channels, hidden, heads, mlpRatio } = transformerFields;

export const flux2Schema = z.strictObject({
  size,
  /** Channels of the packed latents; each place is a token. */
  channels,
  hidden,
  /** Blocks in which text and image have weights of their own. */
  depth: count,
  /** Blocks behind them, over all tokens together. */
  singleDepth: count,
  heads,
  /** Channels of a feed-forward part's gate, and of its value, as a multiple of the width. */
  mlpRatio,
  learnedVariance: z.literal(false),
  /** Hidden states of three layers of a language model, side by side. */
  condition: z.strictObject({ kind: z.literal("text"), width: count, length: count }),
  /** Channels of a head that the positions of each axis rotate: picture, row, column and place in the text. */
  axes: z.tuple([count, count, count, count]).readonly(),
  /** Base of the rotary frequencies. */
  theta: z.number().positive(),
  /** True if the guidance scale is an input, as in the model that was distilled with it. */
  guidance: z.boolean(),
});

export type Flux2Config = z.output<typeof flux2Schema>;

/** Reports fields that do not fit each other. */
export function checkFlux2(config: Flux2Config, refuse: Refuse): void {
  checkSizes({ ...config, patch: 1 }, refuse);
  checkAxes(config, refuse);
}

/** Packed latents of 64×64, as the published models draw them at 1024×1024 pixels. */
const published = {
  size: [64, 64],
  channels: 128,
  mlpRatio: 3,
  learnedVariance: false,
  axes: [32, 32, 32, 32],
  theta: 2000,
} as const;

export const flux2Presets = {
  "FLUX.2-klein-4B": {
    ...published,
    hidden: 3072,
    depth: 5,
    singleDepth: 20,
    heads: 24,
    condition: { kind: "text", width: 7680, length: 512 },
    guidance: false,
  },
  "FLUX.2-dev": {
    ...published,
    hidden: 6144,
    depth: 8,
    singleDepth: 48,
    heads: 48,
    condition: { kind: "text", width: 15_360, length: 512 },
    guidance: true,
  },
} satisfies Record<string, Flux2Config>;
