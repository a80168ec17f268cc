/** A DiT's config as it stands in files. */
import { z } from "zod";
import type { DiTConfig } from "./dit.ts";

const count = z.int().min(1);

const norm = z.strictObject({
  kind: z.enum(["layer", "rms"]),
  affine: z.boolean(),
  epsilon: z.number().positive().default(1e-6),
});

const textRoute = z.enum(["in-context", "cross-attention"]);

/** Each field of `DiTConfig`, so that a config file may give some of them. */
export const ditFields = {
  size: z.tuple([count, count]).readonly(),
  channels: count,
  patch: count,
  hidden: count,
  depth: count,
  heads: count,
  mlpRatio: z.number().positive(),
  learnedVariance: z.boolean(),
  condition: z.discriminatedUnion("kind", [
    z.strictObject({ kind: z.literal("none") }),
    z.strictObject({ kind: z.literal("class"), classes: count, nullClass: z.boolean() }),
    z.strictObject({ kind: z.literal("text"), width: count, length: count }),
  ]),
  block: z.discriminatedUnion("kind", [
    z.strictObject({ kind: z.literal("in-context") }),
    z.strictObject({ kind: z.literal("cross-attention") }),
    z.strictObject({ kind: z.literal("adaLN"), text: textRoute.optional() }),
    z.strictObject({ kind: z.literal("adaLN-zero"), text: textRoute.optional() }),
  ]),
  patches: z.discriminatedUnion("kind", [
    z.strictObject({ kind: z.literal("linear") }),
    z.strictObject({ kind: z.literal("bottleneck"), width: count }),
  ]),
  positions: z.strictObject({ kind: z.enum(["sin-cos", "learned", "none"]) }),
  rotary: z.strictObject({ theta: z.number().positive() }).nullable(),
  norm,
  feedForward: z.discriminatedUnion("kind", [
    z.strictObject({ kind: z.literal("gelu"), approximate: z.enum(["none", "tanh"]) }),
    z.strictObject({ kind: z.literal("swiglu") }),
  ]),
  qkNorm: norm.nullable(),
  modulationRank: count.optional(),
} satisfies { readonly [K in keyof DiTConfig]-?: z.ZodType<DiTConfig[K]> };

/**
 * A whole config whose sizes fit each other.
 *
 * Messages name the value and what would do, because they are shown to who wrote the file.
 */
export const ditSchema = z
  .strictObject({ kind: z.literal("dit"), ...ditFields })
  .superRefine(({ size, patch, hidden, heads, block, condition, rotary, positions }, context) => {
    const refuse = (field: string, message: string) =>
      context.addIssue({ code: "custom", path: [field], message });
    const [height, width] = size;
    if (height % patch !== 0 || width % patch !== 0) {
      const near = size.map((side) => Math.max(1, Math.round(side / patch)) * patch);
      refuse(
        "patch",
        `a picture of ${height}×${width} cannot be cut into patches of ${patch}×${patch}; choose a size that is a multiple of ${patch}, such as ${near.join("×")}, or another patch`,
      );
    }
    if (hidden % heads !== 0) {
      refuse("heads", `${heads} heads do not divide the hidden width ${hidden}`);
    }
    if (rotary && (hidden / heads) % 4 !== 0) {
      refuse(
        "heads",
        `rotary positions turn rows and columns in pairs, so the width of a head, ${hidden / heads}, must be a multiple of 4`,
      );
    }
    if (positions.kind === "sin-cos" && hidden % 4 !== 0) {
      refuse(
        "hidden",
        `sin-cos positions need a width that is a multiple of 4, but it is ${hidden}`,
      );
    }
    if ("text" in block && block.text && condition.kind !== "text") {
      refuse("block", `the block takes a text, but the condition is ${condition.kind}`);
    }
  });
