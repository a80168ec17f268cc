/** The config of a Latte and the sizes that the paper publishes. */
import { z } from "zod";
import {
  checkSizes,
  conditionSchema,
  count,
  type Refuse,
  sizeFields,
} from "../../nn/transformer-schema.ts";

/** Positions are fixed tables of one clip size, as in the published checkpoints. */
export const latteSchema = z.strictObject({
  ...sizeFields,
  /** Frames of a clip; each is cut into patches by itself. */
  frames: count,
  /** Blocks, an even number: attention within the frames and attention over time take turns. */
  depth: count,
  /** The condition: none, one of `classes`, or a text of `length` tokens of `width` channels. */
  condition: conditionSchema,
});

export type LatteConfig = z.output<typeof latteSchema>;

/** Reports fields that do not fit each other. */
export function checkLatte(config: LatteConfig, refuse: Refuse): void {
  checkSizes({ ...config, positions: { kind: "sin-cos" } }, refuse);
  if (config.depth % 2 !== 0) {
    refuse(
      "depth",
      `blocks within the frames and over time take turns, so ${config.depth} cannot be; give an even number`,
    );
  }
}

/** UCF-101 at 16 frames of 256×256 pixels, in latents of an eighth of the size. */
const paper = {
  size: [32, 32],
  frames: 16,
  channels: 4,
  mlpRatio: 4,
  learnedVariance: true,
  condition: { kind: "class", classes: 101, nullClass: true },
} as const;

const small = { ...paper, depth: 12, hidden: 384, heads: 6 };
const base = { ...paper, depth: 12, hidden: 768, heads: 12 };
const large = { ...paper, depth: 24, hidden: 1024, heads: 16 };
const extraLarge = { ...paper, depth: 28, hidden: 1152, heads: 16 };
const unconditional = { condition: { kind: "none" } } as const;

/** The paper's models, with the classes of UCF-101, and the one without condition. */
export const lattePresets = {
  "Latte-S/2": { ...small, patch: 2 },
  "Latte-B/2": { ...base, patch: 2 },
  "Latte-L/2": { ...large, patch: 2 },
  "Latte-XL/2": { ...extraLarge, patch: 2 },
  "Latte-XL/2-unconditional": { ...extraLarge, ...unconditional, patch: 2 },
} satisfies Record<string, LatteConfig>;
