/** A DiT's config as it stands in files. */
import { z } from "zod";
import {
  checkSizes,
  conditionSchema,
  type Refuse,
  transformerFields,
} from "../../nn/transformer-schema.ts";
import type { DiTConfig } from "./dit.ts";

const textRoute = z.enum(["in-context", "cross-attention"]);

/** Each field of `DiTConfig`, so that a config file may give some of them. */
export const ditFields = {
  ...transformerFields,
  condition: conditionSchema,
  block: z.discriminatedUnion("kind", [
    z.strictObject({ kind: z.literal("in-context") }),
    z.strictObject({ kind: z.literal("cross-attention") }),
    z.strictObject({ kind: z.literal("adaLN"), text: textRoute.optional() }),
    z.strictObject({ kind: z.literal("adaLN-zero"), text: textRoute.optional() }),
  ]),
  positions: z.strictObject({ kind: z.enum(["sin-cos", "learned", "none"]) }),
  rotary: z.strictObject({ theta: z.number().positive() }).nullable(),
} satisfies { readonly [K in keyof DiTConfig]-?: z.ZodType<DiTConfig[K]> };

/**
 * A whole config whose sizes fit each other.
 *
 * Messages name the value and what would do, because they are shown to who wrote the file.
 */
export const ditSchema = z
  .strictObject({ kind: z.literal("dit"), ...ditFields })
  .superRefine((config, context) => {
    const { hidden, heads, block, condition, rotary } = config;
    const refuse: Refuse = (field, message) =>
      context.addIssue({ code: "custom", path: [field], message });
    checkSizes(config, refuse);
    if (rotary && (hidden / heads) % 4 !== 0) {
      refuse(
        "heads",
        `rotary positions turn rows and columns in pairs, so the width of a head, ${hidden / heads}, must be a multiple of 4`,
      );
    }
    if ("text" in block && block.text && condition.kind !== "text") {
      refuse("block", `the block takes a text, but the condition is ${condition.kind}`);
    }
  });
