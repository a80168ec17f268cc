/** Captions of the emoji data set: its drawing styles, and several prompts for each emoji. */
import { fork, permutation, randomKey } from "../../../engine/random/random.ts";

/**
 * The styles by their word in a prompt, with the npm package of their pictures. All pictures may be used and
 * modified; NOTICE has the attributions.
 */
export const emojiStyles = {
  noto: { package: "@iconify-json/noto", kind: "iconify" },
  flat: { package: "@iconify-json/fluent-emoji-flat", kind: "iconify" },
  twemoji: { package: "@iconify-json/twemoji", kind: "iconify" },
  blob: { package: "@iconify-json/noto-v1", kind: "iconify" },
  emojione: { package: "@iconify-json/emojione", kind: "iconify" },
  firefox: { package: "@iconify-json/fxemoji", kind: "iconify" },
  "3d": { package: "@lobehub/fluent-emoji-3d", kind: "webp" },
} as const satisfies Record<string, { package: string; kind: "iconify" | "webp" }>;

export type EmojiStyle = keyof typeof emojiStyles;

export const emojiStyleNames = Object.keys(emojiStyles) as EmojiStyle[];

/** The groups of Unicode, in emojibase's numbering. */
export const emojiGroups = [
  "smileys-emotion",
  "people-body",
  "component",
  "animals-nature",
  "food-drink",
  "travel-places",
  "activities",
  "objects",
  "symbols",
  "flags",
] as const;

/**
 * Rewrites a label as people would say it: "flag: Japan" becomes "flag of Japan", and "woman: red hair" loses
 * its colon.
 */
export function subjectOf(label: string): string {
  return label
    .replace(/^flag: /, "flag of ")
    .replace(/^keycap: /, "keycap ")
    .replaceAll(": ", ", ");
}

/**
 * Returns captions for a picture: mostly its label, alone, with the style or with some tags, and sometimes
 * only tags, so that "car" finds what Unicode calls an automobile. Each style uses other tags of the same
 * emoji.
 */
export function emojiCaptions(
  label: string,
  tags: readonly string[],
  style: EmojiStyle,
): readonly string[] {
  const subject = subjectOf(label);
  const inStyle = `${style} style`;
  const captions = [
    subject,
    withArticle(subject),
    `${subject}, ${inStyle}`,
    `${style} ${subject}`,
    `${inStyle} emoji of ${withArticle(subject)}`,
  ];
  const said = subject.toLowerCase().split(", ");
  const others = tags.filter((tag) => !said.includes(tag.toLowerCase()));
  if (others.length === 0) return captions;
  const order = permutation(fork(fork(randomKey(0), label), style), others.length);
  // Takes the shuffled tags from..to, starting over if there are fewer.
  const some = (from: number, to: number) =>
    [...new Set(Array.from({ length: to - from }, (_, i) => (from + i) % others.length))]
      .map((i) => others[order[i]!]!)
      .join(", ");
  return [
    ...captions,
    `${subject}, ${some(0, 2)}`,
    `${subject}, ${some(2, 5)}, ${inStyle}`,
    some(5, 7),
    `${some(7, 9)}, ${inStyle}`,
  ];
}

/** Adds an article: "a red apple", "an umbrella". Plurals, numbers and proper names get none. */
export function withArticle(subject: string): string {
  if (/^[^a-z]/.test(subject) || /[^s]s(,|$)/.test(subject)) return subject;
  return `${/^[aeio](?!ne\b)|^um|^un(?!i)/.test(subject) ? "an" : "a"} ${subject}`;
}
