/** An MMDiT's config as it stands in files. */
import { z } from "zod";
import { checkSizes, count, type Refuse, transformerFields } from "../../nn/transformer-schema.ts";
import type { MMDiTConfig } from "./mmdit.ts";

/** Each field of `MMDiTConfig`, so that a config file may give some of them. */
export const mmditFields = {
  ...transformerFields,
  condition: z.discriminatedUnion("kind", [
    z.strictObject({ kind: z.literal("class"), classes: count, nullClass: z.boolean() }),
    z.strictObject({
      kind: z.literal("text"),
      width: count,
      length: count,
      pooled: count.optional(),
    }),
  ]),
  positions: z.strictObject({ kind: z.enum(["sin-cos", "stored"]), max: count }),
  qkvBias: z.boolean(),
  dualAttention: z.array(z.int().min(0)).readonly(),
} satisfies { readonly [K in keyof MMDiTConfig]-?: z.ZodType<MMDiTConfig[K]> };

/** A whole config whose sizes fit each other. */
export const mmditSchema = z
  .strictObject({ kind: z.literal("mmdit"), ...mmditFields })
  .superRefine((config, context) => {
    const { size, patch, depth, positions, dualAttention } = config;
    const refuse: Refuse = (field, message) =>
      context.addIssue({ code: "custom", path: [field], message });
    checkSizes(config, refuse);
    const [height, width] = size;
    if (Math.max(height, width) > positions.max * patch) {
      refuse(
        "positions",
        `positions for ${positions.max}×${positions.max} patches of ${patch}×${patch} do not cover a picture of ${height}×${width}; make max at least ${Math.ceil(Math.max(height, width) / patch)}`,
      );
    }
    const wrong = dualAttention.find((block) => block >= depth);
    if (wrong !== undefined) {
      refuse(
        "dualAttention",
        `there is no block ${wrong}, as ${depth} blocks are numbered from 0 to ${depth - 1}`,
      );
    }
  });
