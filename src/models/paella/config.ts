/** The config of a Paella that is trained here: a class or a text in the place of ByT5's, and no CLIP. */
import { z } from "zod";
import {
  conditionSchema,
  count,
  type Refuse,
  transformerFields,
} from "../../nn/transformer-schema.ts";

const level = z.strictObject({
  width: count,
  /** Heads of its attention, where it has one. */
  heads: count,
  blocks: count,
  /** What a block is made of: C convolution, T noise ratio, A attention, F feed-forward. */
  parts: z.string().regex(/^[CTAF]+$/, "a block is made of C, T, A and F, such as CTA"),
});

const { size, channels, patch, learnedVariance } = transformerFields;

export const paellaSchema = z.strictObject({
  /** Codes along each side. */
  size,
  /** Channels of a code's embedding. */
  channels,
  learnedVariance,
  condition: conditionSchema,
  /** Codes along a side that are one place of the highest resolution. */
  patch,
  /** Width of the embedding of the noise ratio. */
  shareWidth: z.int().min(4),
  conditionWidth: count,
  /** Width of the text's tokens. */
  textWidth: count,
  /** From the highest resolution; each further level halves it. */
  levels: z.array(level).min(1).readonly(),
  kernel: count.refine((value) => value % 2 === 1, "a kernel has a middle, so its size is odd"),
  /** Whether places attend to each other, too, and not to the condition alone. */
  selfAttention: z.boolean(),
  /** The codebook that the network embeds and predicts. */
  tokens: z.strictObject({ codebook: z.int().min(2) }),
});

export type TrainedPaellaConfig = z.output<typeof paellaSchema>;

/** Reports fields that do not fit each other. */
export function checkPaella(config: TrainedPaellaConfig, refuse: Refuse): void {
  const { size: sides, patch: places, levels, condition, textWidth } = config;
  const unit = places * 2 ** (levels.length - 1);
  if (sides.some((side) => side % unit !== 0)) {
    refuse(
      "levels",
      `${sides.join("×")} codes cannot be made ${unit} times smaller, as ${levels.length} levels on patches of ${places} do; give fewer levels, or smaller patches`,
    );
  }
  const odd = levels.find(({ width, heads, parts }) => parts.includes("A") && width % heads !== 0);
  if (odd) refuse("levels", `${odd.heads} heads do not divide a width of ${odd.width}`);
  if (condition.kind === "text" && condition.width !== textWidth) {
    refuse(
      "textWidth",
      `the text has vectors of ${condition.width}, but textWidth is ${textWidth}; give the same`,
    );
  }
  if (config.learnedVariance) refuse("learnedVariance", "codes have no variance; leave it out");
}
