/** What the pictures of the emoji set are called: the styles they are drawn in, and a few ways to ask for each. */
import { fork, permutation, randomKey } from "../../../engine/random/random.ts";

/**
 * The styles by the word that asks for them in a prompt, and the npm package that draws in each.
 * All art may be used and changed; NOTICE has the attributions.
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

/** Unicode's groups of emoji, in the order in which emojibase numbers them. */
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

/** An emoji's label as a person would say it: "flag: Japan" is "flag of Japan", "woman: red hair" loses its colon. */
export function subjectOf(label: string): string {
  return label
    .replace(/^flag: /, "flag of ")
    .replace(/^keycap: /, "keycap ")
    .replaceAll(": ", ", ");
}

/**
 * A picture in words: mostly its label, alone or with the style and with some of its tags, and at times tags alone,
 * so that "car" finds what Unicode calls an automobile. Each style shows other tags of the same emoji.
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
  // Tags from..to in their shuffled order, which begins again where there are fewer.
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

/** "a red apple", "an umbrella"; several things, numbers and proper names have no article. */
function withArticle(subject: string): string {
  if (/^[^a-z]/.test(subject) || /[^s]s(,|$)/.test(subject)) return subject;
  return `${/^[aeio](?!ne\b)|^um|^un(?!i)/.test(subject) ? "an" : "a"} ${subject}`;
}
