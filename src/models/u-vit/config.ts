/** The config of a U-ViT and the sizes that the paper publishes. */
import * as z from "zod";
import {
  checkMixing,
  checkSizes,
  conditionSchema,
  count,
  gridOf,
  mixingField,
  type Refuse,
  sizeFields,
} from "../../nn/transformer-schema.ts";

/** Positions are learned, so the network accepts no other size than that of its config. */
export const uViTSchema = z.strictObject({
  ...sizeFields,
  ...mixingField,
  /** Blocks beside the one in the middle, an even number; the paper counts the middle one, too. */
  depth: count,
  /** The condition: none, one of `classes`, or a text of `length` tokens of `width` channels. */
  condition: conditionSchema,
  /** True if queries, keys and values have a bias. */
  qkvBias: z.boolean(),
  /** True if the time goes through two linear layers, 4 times as wide between them, before it becomes a token. */
  timeMlp: z.boolean(),
  /** True if blocks of the second half see the tokens of the first. */
  longSkips: z.boolean(),
  /** True if a last convolution smooths the seams of the patches. */
  finalConv: z.boolean(),
});

export type UViTConfig = z.output<typeof uViTSchema>;

/** Reports fields that do not fit each other. */
export function checkUViT(config: UViTConfig, refuse: Refuse): void {
  checkSizes(config, refuse);
  checkMixing(config.attention, gridOf(config), refuse);
  if (config.depth % 2 !== 0) {
    refuse(
      "depth",
      `half of the blocks come before the middle one and half behind it, so ${config.depth} cannot be; give an even number`,
    );
  }
}

const paper = {
  size: [32, 32],
  channels: 4,
  patch: 2,
  mlpRatio: 4,
  qkvBias: false,
  timeMlp: false,
  longSkips: true,
  finalConv: true,
  learnedVariance: false,
  condition: { kind: "class", classes: 1000, nullClass: true },
} as const;

const small = { ...paper, hidden: 512, depth: 12, heads: 8 };
const middle = { ...paper, hidden: 768, depth: 16, heads: 12 };
const large = { ...paper, hidden: 1024, depth: 20, heads: 16 };
const huge = { ...paper, hidden: 1152, depth: 28, heads: 16 };
/** CLIP's tokens of a caption. */
const caption = { kind: "text", width: 768, length: 77 } as const;
const pixels64 = {
  size: [64, 64],
  channels: 3,
  patch: 4,
  condition: { kind: "class", classes: 1000, nullClass: false },
} as const;

/** The paper's models: name and patch, then what they draw. */
export const uViTPresets = {
  "U-ViT-S/2-CIFAR10": { ...small, channels: 3, condition: { kind: "none" } },
  "U-ViT-S/2-COCO": { ...small, condition: caption },
  "U-ViT-S/2-Deep-COCO": { ...small, depth: 16, condition: caption },
  "U-ViT-M/4-64": { ...middle, ...pixels64 },
  "U-ViT-L/4-64": { ...large, ...pixels64 },
  "U-ViT-L/2-256": large,
  "U-ViT-H/2-256": { ...huge, finalConv: false },
  "U-ViT-H/4-512": { ...huge, size: [64, 64], patch: 4, finalConv: false },
} satisfies Record<string, UViTConfig>;
