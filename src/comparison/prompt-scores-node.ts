/** Computes every measure of `patchwise evaluate` by comparing drawings with real emoji. */
import type { EmojiStyle } from "../data/formats/emoji/captions.ts";
import { quote, UsageError } from "../engine/errors.ts";
import { fork, randomKey, uniform } from "../engine/random/random.ts";
import { recordOf } from "../engine/records.ts";
import { type ColourName, colourAskedFor, colourShare, OBEYED } from "../evaluation/colour.ts";
import { type Features, type Measures, measuresOf, rowsAt } from "../evaluation/distances.ts";
import { judgeShape } from "../evaluation/judge.ts";
import {
  halved,
  type Memorisation,
  memorisation,
  nearestPictures,
} from "../evaluation/memorisation.ts";
import type { EvaluationPrompt } from "../evaluation/prompts.ts";
import {
  type Accuracy,
  accuracyOf,
  type Match,
  nearestNamesOf,
  rankOf,
} from "../evaluation/retrieval.ts";
import type { Picture } from "../pictures/picture.ts";
import { codePoints } from "../data/formats/emoji/emoji-node.ts";
import type { RealEmoji, RealEmojiSet } from "./emoji-gallery-node.ts";

/** The real emoji, as the judge sees them, and which of them a generator was trained on. */
export interface Reference {
  readonly set: RealEmojiSet;
  readonly seen: Features;
  /** What each picture shows, without variation selectors. */
  readonly names: readonly string[];
  /** Indices of the pictures in the generator's styles, held-out emoji included. */
  readonly inStyles: readonly number[];
  /** Half-sized pixels of every picture. */
  readonly small: readonly Float32Array[];
  /** Distances of held-out pictures in the generator's styles to their nearest training pictures. */
  readonly heldOutDistances: readonly number[];
  readonly isTraining: (index: number) => boolean;
}

/** @param styles that the generator was trained on */
export function referenceOf(
  set: RealEmojiSet,
  seen: Features,
  styles: readonly EmojiStyle[],
): Reference {
  const { pictures, pixels } = set;
  const inStyles = pictures.flatMap(({ style }, i) => (styles.includes(style) ? [i] : []));
  const isTraining = (index: number) =>
    styles.includes(pictures[index]!.style) && !pictures[index]!.heldOut;
  const small = halved(pixels, judgeShape);
  const heldOut = inStyles.filter((index) => pictures[index]!.heldOut);
  const heldOutDistances = nearestPictures(
    heldOut.map((index) => small[index]!),
    small,
    (_, index) => isTraining(index),
  ).map(({ distance }) => distance);
  const names = pictures.map(({ hexcode }) => hexcode);
  return { set, seen, names, inStyles, small, heldOutDistances, isTraining };
}

/** Drawings of prompts, one for each. */
export interface Drawings {
  /** The drawings in their own size. */
  readonly pictures: readonly Picture[];
  /** The drawings in the judge's size, [count, 40, 40, 3]. */
  readonly pixels: Uint8Array;
  readonly seen: Features;
  /** If the drawings are real pictures themselves: their indices, so that none is compared with itself. */
  readonly own?: readonly number[];
}

/** A share in [0, 1] of some prompts. */
export interface Share {
  readonly prompts: number;
  readonly share: number;
}

export interface Scores extends Accuracy {
  readonly byLang: Readonly<Record<string, Accuracy>>;
  readonly byKind: Readonly<
    Record<string, Accuracy & { readonly byLang: Readonly<Record<string, Accuracy>> }>
  >;
  /** Accuracy by form, of the prompts whose form is given. */
  readonly byForm: Readonly<Record<string, Accuracy>>;
  /** Prompts of kind "colour" whose drawing has mostly the colour that is asked for; null without such prompts. */
  readonly colour: (Share & { readonly byColour: Readonly<Record<string, Share>> }) | null;
  /**
   * Prompts that ask for a style whose drawing is nearest, by its pixels, to a real picture of that style; null without such
   * prompts, and for real pictures, which cannot be found when they are left out themselves.
   */
  readonly style: Share | null;
  /** Distances between the features of drawings and of real pictures; null for fewer than four prompts. */
  readonly fid: number | null;
  readonly kid: number | null;
  readonly kidDeviation: number | null;
  readonly precision: number | null;
  readonly recall: number | null;
  readonly memorisation: Memorisation;
}

/** The judge's answer for one drawing. */
export interface Verdict {
  /** The nearest emoji, at most five. */
  readonly found: readonly Match[];
  /** The place of the first right one among them, from 0; -1 for none. */
  readonly rank: number;
}

/** Finds what each drawing shows. */
export function verdictsOf(
  prompts: readonly EvaluationPrompt[],
  { seen, own }: Drawings,
  { seen: real, names }: Reference,
): readonly Verdict[] {
  const gallery = { features: real, names };
  return prompts.map(({ answers }, row) => {
    const allowed = (index: number) => index !== own?.[row];
    const found = nearestNamesOf(seen, row, gallery, 5, allowed);
    return { found, rank: rankOf(found, answers.map(codePoints)) };
  });
}

/** @throws UsageError if no real picture in the styles shows an answer, before anything is drawn */
export function requireAnswers(
  prompts: readonly EvaluationPrompt[],
  real: readonly Pick<RealEmoji, "hexcode" | "style">[],
  styles: readonly EmojiStyle[],
): void {
  const shown = new Set(
    real.flatMap(({ hexcode, style }) => (styles.includes(style) ? [codePoints(hexcode)] : [])),
  );
  for (const { prompt, answers } of prompts) {
    if (!answers.some((answer) => shown.has(codePoints(answer)))) throw unshown(prompt, answers);
  }
}

function unshown(prompt: string, answers: readonly string[]): UsageError {
  return new UsageError(
    `No picture of the set shows ${answers.join(" or ")}, the answer to ${quote(prompt)}; use emoji that exist in the styles of --styles, but no flags and components.`,
  );
}

/**
 * Chooses a real picture of a right answer for each prompt, in the style that the prompt asks for or else in a random one.
 *
 * @throws UsageError if no real picture shows an answer
 */
export function realPicturesFor(
  prompts: readonly EvaluationPrompt[],
  { set: { pictures }, names, inStyles }: Reference,
): readonly number[] {
  const byName = new Map<string, number[]>();
  for (const index of inStyles)
    byName.set(names[index]!, [...(byName.get(names[index]!) ?? []), index]);
  return prompts.map(({ prompt, answers, style }, row) => {
    const all = answers.flatMap((answer) => byName.get(codePoints(answer)) ?? []);
    const inStyle = all.filter((index) => style === undefined || pictures[index]!.style === style);
    const some = inStyle.length > 0 ? inStyle : all;
    if (some.length === 0) throw unshown(prompt, answers);
    const lot = uniform(fork(randomKey(0), row), [1]).data[0]!;
    return some[Math.floor(lot * some.length)]!;
  });
}

/**
 * Computes all scores of drawings.
 *
 * @param prompts one for each drawing, at least one
 * @param chosen indices of real pictures to exclude from the reference of FID, KID, precision and recall
 */
export function scoresOf(
  prompts: readonly EvaluationPrompt[],
  drawings: Drawings,
  verdicts: readonly Verdict[],
  reference: Reference,
  chosen: readonly number[],
): Scores {
  const of = (rows: readonly number[]) => accuracyOf(rows.map((row) => verdicts[row]!.rank));
  const byLang = (rows: readonly number[]) => grouped(rows, (row) => prompts[row]!.lang, of);
  const all = [...prompts.keys()];
  const small = halved(drawings.pixels, judgeShape);
  const formed = all.filter((row) => prompts[row]!.form !== undefined);
  return {
    ...of(all),
    byLang: byLang(all),
    byKind: grouped(
      all,
      (row) => prompts[row]!.kind,
      (rows) => ({ ...of(rows), byLang: byLang(rows) }),
    ),
    byForm: grouped(formed, (row) => prompts[row]!.form!, of),
    colour: colourScore(prompts, drawings.pictures),
    style: drawings.own ? null : styleScore(prompts, small, reference),
    ...distancesOf(drawings.seen, reference, chosen),
    memorisation: memorisation(
      nearestPictures(small, reference.small, (row, index) => {
        return reference.isTraining(index) && index !== drawings.own?.[row];
      }).map(({ distance }) => distance),
      reference.heldOutDistances,
    ),
  };
}

function colourScore(
  prompts: readonly EvaluationPrompt[],
  pictures: readonly Picture[],
): Scores["colour"] {
  const asked = prompts.flatMap(({ prompt, kind }, row): readonly [ColourName, boolean][] => {
    const colour = kind === "colour" ? colourAskedFor(prompt) : undefined;
    return colour ? [[colour, colourShare(pictures[row]!, colour) >= OBEYED]] : [];
  });
  if (asked.length === 0) return null;
  const share = (some: readonly (readonly [ColourName, boolean])[]): Share => ({
    prompts: some.length,
    share: some.filter(([, obeyed]) => obeyed).length / some.length,
  });
  return { ...share(asked), byColour: grouped(asked, ([colour]) => colour, share) };
}

function styleScore(
  prompts: readonly EvaluationPrompt[],
  small: readonly Float32Array[],
  { set: { pictures }, small: real }: Reference,
): Scores["style"] {
  const rows = prompts.flatMap(({ style }, row) => (style === undefined ? [] : [row]));
  if (rows.length === 0) return null;
  const nearest = nearestPictures(
    rows.map((row) => small[row]!),
    real,
  );
  const right = rows.filter(
    (row, i) => pictures[nearest[i]!.index]!.style === prompts[row]!.style,
  ).length;
  return { prompts: rows.length, share: right / rows.length };
}

/** The number of subsets for the KID: enough for its mean, in a few seconds. */
const SUBSETS = 20;

function distancesOf(
  drawn: Features,
  { seen, inStyles }: Reference,
  chosen: readonly number[],
): { readonly [K in keyof Measures]: number | null } {
  const out = new Set(chosen);
  const others = inStyles.filter((index) => !out.has(index));
  if (Math.min(drawn.count, others.length) < 4) {
    return { fid: null, kid: null, kidDeviation: null, precision: null, recall: null };
  }
  return measuresOf(rowsAt(seen, others), drawn, { subsets: SUBSETS });
}

/** Groups items by key, and maps each group with `of`. */
function grouped<T, U>(
  items: readonly T[],
  keyOf: (item: T) => string,
  of: (group: readonly T[]) => U,
): Record<string, U> {
  const keys = new Set(items.map(keyOf));
  return recordOf(keys, (key) => of(items.filter((item) => keyOf(item) === key)));
}
