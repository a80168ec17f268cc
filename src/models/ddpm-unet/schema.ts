/** A U-Net's config as it stands in files. */
import { z } from "zod";
import { conditionSchema, count } from "../../nn/transformer-schema.ts";
import { type DDPMUNetConfig, normGroups } from "./ddpm-unet.ts";

/** Each field of `DDPMUNetConfig`, so that a config file may give some of them. */
export const ddpmUNetFields = {
  size: z.tuple([count, count]).readonly(),
  channels: count,
  learnedVariance: z.boolean(),
  width: count,
  multipliers: z.array(z.number().positive()).min(1).readonly(),
  blocks: count,
  attention: z.array(count).readonly(),
  heads: z.union([z.strictObject({ count }), z.strictObject({ channels: count })]),
  headOrder: z.enum(["legacy", "new"]),
  scaleShift: z.boolean(),
  residualResampling: z.boolean(),
  condition: conditionSchema,
} satisfies { readonly [K in keyof DDPMUNetConfig]-?: z.ZodType<DDPMUNetConfig[K]> };

/** A whole config whose sizes fit each other. */
export const ddpmUNetSchema = z
  .strictObject({ kind: z.literal("ddpm-unet"), ...ddpmUNetFields })
  .superRefine(({ size, width, multipliers, attention, heads }, context) => {
    const refuse = (field: string, message: string) =>
      context.addIssue({ code: "custom", path: [field], message });
    const unit = 2 ** (multipliers.length - 1);
    if (size.some((side) => side % unit !== 0)) {
      refuse(
        "multipliers",
        `a picture of ${size.join("×")} cannot be halved ${multipliers.length - 1} times, as ${multipliers.length} levels ask; choose a size that is a multiple of ${unit}, or fewer levels`,
      );
    }
    const odd = multipliers.find((times) => (times * width) % normGroups !== 0);
    if (odd !== undefined) {
      refuse(
        "width",
        `a level of ${odd * width} channels cannot be normed in ${normGroups} groups; make width a multiple of ${normGroups}`,
      );
    }
    const levels = multipliers.map((_, level) => 2 ** level);
    const wrong = attention.find((times) => !levels.includes(times));
    if (wrong !== undefined) {
      refuse(
        "attention",
        `no level is ${wrong} times smaller than the picture; the levels are ${levels.join(", ")}`,
      );
    }
    // The middle attends whatever the levels do.
    const attending = [...attention, unit].map((times) => multipliers[Math.log2(times)]! * width);
    const parts = "count" in heads ? heads.count : heads.channels;
    const uneven = attending.find((channels) => channels % parts !== 0);
    if (wrong === undefined && uneven !== undefined) {
      refuse(
        "heads",
        `${uneven} channels do not divide into heads ${"count" in heads ? `by ${parts}` : `of ${parts}`}`,
      );
    }
  });
