/** Fields of `training` that change what a denoiser learns from a batch: losses on features, and patches that are left out. */
import * as z from "zod";

const count = z.int().min(1);

/** Losses on the features of a fixed convolutional network, each with its weight beside the diffusion loss. */
export const featureSchema = z
  .strictObject({
    /** The `extractor.safetensors` of a comparison; random weights, which capture texture and shape, if absent. */
    extractor: z.string().min(1, "a path cannot be empty").optional(),
    /** The weight of the distance between the predicted and the clean picture in features (Zhang et al., 2018). */
    perceptual: z.number().min(0).default(0),
    /** The weight of the alignment of a block's tokens with the features of the clean picture (REPA; Yu et al., 2025). */
    alignment: z.number().min(0).default(0),
    /** The block that is aligned, from 0. */
    block: z.int().min(0).default(2),
  })
  .refine(({ perceptual, alignment }) => perceptual + alignment > 0, {
    error: "without a weight it has no effect; give perceptual, alignment or both",
  });

export type FeatureSettings = z.output<typeof featureSchema>;

/** The share of the patches that some blocks do not see, below 1; at 0 all blocks see all patches. */
const routedShare = z.number().min(0).lt(1).default(0.5);

/** Lets patches pass blocks unseen, which saves time where there are many (TREAD; Krause et al., 2025). For `model.kind: dit`. */
export const routingSchema = z.strictObject({
  /** The share of the patches of each example that pass, in [0, 1); 0.5 by default. */
  share: routedShare,
  /** The first block that they pass, from 0; 1 by default. */
  from: z.int().min(0).default(1),
  /** The first block behind those, at most the number of blocks; the last block by default. */
  to: count.optional(),
});

/** Hides patches from the first blocks; the others predict them from a learned token and those that are seen (MDT; Gao et al., 2023). */
export const maskedSchema = z.strictObject({
  /** The share of the patches of each example that is hidden, in [0, 1); 0.5 by default. */
  share: routedShare,
  /** The number of blocks that do not see them, from 1; the first half by default. */
  blocks: count.optional(),
});
