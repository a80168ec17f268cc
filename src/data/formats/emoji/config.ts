/** The config fields of the emoji data set. */
import * as z from "zod";
import { emojiGroups, emojiStyleNames } from "./captions.ts";

export const emojiFields = {
  /** The drawing styles; all by default. */
  styles: z.array(z.enum(emojiStyleNames)).min(1).default(emojiStyleNames),
  /** The groups of Unicode; all by default. */
  groups: z.array(z.enum(emojiGroups)).min(1).optional(),
  /** True if people and hands come in each skin tone, too. */
  skinTones: z.boolean().default(false),
  /** One emoji in twenty is held out, in all styles and skin tones. */
  split: z.enum(["train", "held-out", "all"]).default("train"),
};
