/** An autoencoder's config as it stands in files. */
import { z } from "zod";
import { activationNames, type AutoencoderKLConfig } from "./autoencoder-kl.ts";

const count = z.int().min(1);

export const autoencoderKLSchema = z
  .strictObject({
    inputs: count,
    outputs: count,
    latentChannels: count,
    widths: z.array(count).min(1).readonly(),
    stem: count.optional(),
    layers: count,
    groups: count,
    activation: z.enum(activationNames),
    encoderAttention: z.array(z.boolean()).readonly(),
    decoderAttention: z.array(z.boolean()).readonly(),
    middleAttention: z.boolean(),
    quantConv: z.boolean(),
    postQuantConv: z.boolean(),
    scale: z.number().positive(),
    shift: z.number(),
  } satisfies { readonly [K in keyof AutoencoderKLConfig]-?: z.ZodType<AutoencoderKLConfig[K]> })
  .superRefine(({ widths, encoderAttention, decoderAttention }, context) => {
    for (const [field, levels] of Object.entries({ encoderAttention, decoderAttention })) {
      if (levels.length === widths.length) continue;
      const message = `it tells of ${levels.length} levels, but there are ${widths.length} widths`;
      context.addIssue({ code: "custom", path: [field], message });
    }
  });
