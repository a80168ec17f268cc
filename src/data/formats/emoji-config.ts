/** How the emoji set is asked for in a config. */
import { z } from "zod";
import { commonFields } from "../common-config.ts";
import { emojiGroups, emojiStyleNames } from "./emoji-captions.ts";

/** Captioned emoji in several drawing styles, from npm packages. */
export const emojiSchema = z.strictObject({
  kind: z.literal("emoji"),
  /** Which styles; all unless given. */
  styles: z.array(z.enum(emojiStyleNames)).min(1).default(emojiStyleNames),
  /** Which of Unicode's groups; everything unless given. */
  groups: z.array(z.enum(emojiGroups)).min(1).optional(),
  /** Whether people and hands come in each skin tone too. */
  skinTones: z.boolean().default(false),
  /** One emoji in twenty is held out, in all styles and skin tones. */
  split: z.enum(["train", "held-out", "all"]).default("train"),
  ...commonFields,
});

export type EmojiConfig = z.infer<typeof emojiSchema>;
