/** An MMDiT's config as it stands in files. */
import { z } from "zod";
import type { MMDiTConfig } from "./mmdit.ts";

const count = z.int().min(1);

const norm = z.strictObject({
  kind: z.enum(["layer", "rms"]),
  affine: z.boolean(),
  epsilon: z.number().positive().default(1e-6),
});

/** Each field of `MMDiTConfig`, so that a config file may give some of them. */
export const mmditFields = {
  size: z.tuple([count, count]).readonly(),
  channels: count,
  patch: count,
  hidden: count,
  depth: count,
  heads: count,
  mlpRatio: z.number().positive(),
  learnedVariance: z.boolean(),
  condition: z.discriminatedUnion("kind", [
    z.strictObject({ kind: z.literal("class"), classes: count, nullClass: z.boolean() }),
    z.strictObject({
      kind: z.literal("text"),
      width: count,
      length: count,
      pooled: count.optional(),
    }),
  ]),
  patches: z.discriminatedUnion("kind", [
    z.strictObject({ kind: z.literal("linear") }),
    z.strictObject({ kind: z.literal("bottleneck"), width: count }),
  ]),
  positions: z.strictObject({ kind: z.enum(["sin-cos", "stored"]), max: count }),
  norm,
  feedForward: z.discriminatedUnion("kind", [
    z.strictObject({ kind: z.literal("gelu"), approximate: z.enum(["none", "tanh"]) }),
    z.strictObject({ kind: z.literal("swiglu") }),
  ]),
  qkNorm: norm.nullable(),
  qkvBias: z.boolean(),
  dualAttention: z.array(z.int().min(0)).readonly(),
  modulationRank: count.optional(),
} satisfies { readonly [K in keyof MMDiTConfig]-?: z.ZodType<MMDiTConfig[K]> };

/** A whole config whose sizes fit each other. */
export const mmditSchema = z
  .strictObject({ kind: z.literal("mmdit"), ...mmditFields })
  .superRefine(({ size, patch, hidden, heads, depth, positions, dualAttention }, context) => {
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
    if (Math.max(height, width) > positions.max * patch) {
      refuse(
        "positions",
        `positions for ${positions.max}×${positions.max} patches of ${patch}×${patch} do not cover a picture of ${height}×${width}; make max at least ${Math.ceil(Math.max(height, width) / patch)}`,
      );
    }
    if (hidden % heads !== 0) {
      refuse("heads", `${heads} heads do not divide the hidden width ${hidden}`);
    }
    if (positions.kind === "sin-cos" && hidden % 4 !== 0) {
      refuse(
        "hidden",
        `sin-cos positions need a width that is a multiple of 4, but it is ${hidden}`,
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
