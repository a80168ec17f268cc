/** A prompt encoder's config as it stands in files. */
import { z } from "zod";
import type { PromptEncoderConfig } from "./prompt-encoder.ts";

const count = z.int().min(1);

export const promptEncoderSchema = z
  .strictObject({
    vocabulary: count,
    wordWidth: count,
    width: count,
    depth: z.int().min(0),
    heads: count,
    length: count,
  } satisfies { readonly [K in keyof PromptEncoderConfig]: z.ZodType<PromptEncoderConfig[K]> })
  .superRefine(({ width, heads }, context) => {
    if (width % (2 * heads) === 0) return;
    const message = `${heads} heads do not divide the width ${width} into even parts, which rotary positions need`;
    context.addIssue({ code: "custom", path: ["heads"], message });
  });
