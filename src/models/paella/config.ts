/** The config of a Paella trained by this library: conditioned on a class or a prompt in place of ByT5's text, without CLIP. */
import * as z from "zod";
import {
  conditionSchema,
  count,
  type Refuse,
  transformerFields,
} from "../../nn/transformer-schema.ts";

const level = z.strictObject({
  /** Channels of the level. */
  width: count,
  /** Attention heads, if the parts contain A. */
  heads: count,
  /** The number of blocks of the level, each with all `parts`. */
  blocks: count,
  /** The parts of a block: C convolution, T noise ratio, A attention, F feed-forward. */
  parts: z.string().regex(/^[CTAF]+$/, "a block is made of C, T, A and F, such as CTA"),
});

const { size, channels, patch, learnedVariance } = transformerFields;

export const paellaSchema = z.strictObject({
  /** Codes along each side. */
  size,
  /** Channels of a code's embedding. */
  channels,
  /** False: codes have no variance. */
  learnedVariance,
  /** The condition: none, one of `classes`, or a text of `length` tokens of `width` channels, which is `textWidth`. */
  condition: conditionSchema,
  /** Number of codes along each side of a patch, which is one pixel of the highest resolution. */
  patch,
  /** Width of the embedding of the noise ratio. */
  shareWidth: z.int().min(4),
  /** Channels of the tokens of the condition, to which pixels attend. */
  conditionWidth: count,
  /** Width of the text's tokens. */
  textWidth: count,
  /** The levels from the highest resolution; each further level halves it. */
  levels: z.array(level).min(1).readonly(),
  /** Side of the depthwise convolutions, an odd number. */
  kernel: count.refine((value) => value % 2 === 1, "the kernel size must be odd"),
  /** True if pixels attend to each other and not only to the condition. */
  selfAttention: z.boolean(),
  /** The codebook that the network embeds and predicts. */
  tokens: z.strictObject({
    /** The number of codes, from 2. */
    codebook: z.int().min(2),
  }),
});

export type TrainedPaellaConfig = z.output<typeof paellaSchema>;

/** Reports fields that do not fit each other. */
export function checkPaella(config: TrainedPaellaConfig, refuse: Refuse): void {
  const { size: sides, patch: places, levels, condition, textWidth } = config;
  const unit = places * 2 ** (levels.length - 1);
  if (sides.some((side) => side % unit !== 0)) {
    refuse(
      "levels",
      `${sides.join("×")} codes cannot be divided by ${unit}, as ${levels.length} levels on patches of ${places} require; give fewer levels or smaller patches`,
    );
  }
  const odd = levels.find(({ width, heads, parts }) => parts.includes("A") && width % heads !== 0);
  if (odd) refuse("levels", `${odd.heads} heads do not divide a width of ${odd.width}`);
  if (condition.kind === "text" && condition.width !== textWidth) {
    refuse(
      "textWidth",
      `the text has width ${condition.width}, but textWidth is ${textWidth}; make them equal`,
    );
  }
  if (config.learnedVariance) refuse("learnedVariance", "codes have no variance; remove it");
}
