/** A U-ViT's config as it stands in files. */
import { z } from "zod";
import {
  checkSizes,
  conditionSchema,
  count,
  type Refuse,
  transformerFields,
} from "../../nn/transformer-schema.ts";
import type { UViTConfig } from "./u-vit.ts";

const { size, channels, patch, hidden, heads, mlpRatio, learnedVariance } = transformerFields;

/** Each field of `UViTConfig`, so that a config file may give some of them. */
export const uViTFields = {
  size,
  channels,
  patch,
  hidden,
  depth: count,
  heads,
  mlpRatio,
  learnedVariance,
  condition: conditionSchema,
  qkvBias: z.boolean(),
  timeMlp: z.boolean(),
  longSkips: z.boolean(),
  finalConv: z.boolean(),
} satisfies { readonly [K in keyof UViTConfig]-?: z.ZodType<UViTConfig[K]> };

/** A whole config whose sizes fit each other. */
export const uViTSchema = z
  .strictObject({ kind: z.literal("u-vit"), ...uViTFields })
  .superRefine((config, context) => {
    const refuse: Refuse = (field, message) =>
      context.addIssue({ code: "custom", path: [field], message });
    checkSizes(config, refuse);
    if (config.depth % 2 !== 0) {
      refuse(
        "depth",
        `half of the blocks come before the one in the middle, and half behind it, so ${config.depth} cannot be; give an even number`,
      );
    }
  });
