/** Names what a picture shows by its nearest real pictures, and scores the names against the right answers. */
import type { Features } from "./distances.ts";

/** The real pictures that drawings are compared with. */
export interface Gallery {
  /** Of the pictures, one row each. */
  readonly features: Features;
  /** What each picture shows. */
  readonly names: readonly string[];
}

/** One name that a picture may show. */
export interface Match {
  readonly name: string;
  /** Index of the nearest picture of that name. */
  readonly index: number;
  /** Cosine of the angle between the features, at most 1. */
  readonly similarity: number;
}

/**
 * The names of the pictures nearest to a row of features of length 1, the nearest first, each name once.
 *
 * @param allowed pictures of the gallery that may be found; all unless given
 */
export function nearestNamesOf(
  features: Features,
  row: number,
  gallery: Gallery,
  count: number,
  allowed: (index: number) => boolean = () => true,
): readonly Match[] {
  const { width } = features;
  const best = new Map<string, Match>();
  for (const [index, name] of gallery.names.entries()) {
    if (!allowed(index)) continue;
    let similarity = 0;
    for (let k = 0; k < width; k++) {
      similarity += features.values[row * width + k]! * gallery.features.values[index * width + k]!;
    }
    const known = best.get(name);
    if (!known || similarity > known.similarity) best.set(name, { name, index, similarity });
  }
  return [...best.values()].sort((a, b) => b.similarity - a.similarity).slice(0, count);
}

/** Shares in [0, 1] of pictures for which a right answer is the nearest name, and among the five nearest. */
export interface Accuracy {
  /** How many pictures were scored. */
  readonly prompts: number;
  readonly top1: number;
  readonly top5: number;
}

/** The place of the first match that is a right answer, from 0; -1 if none is. */
export function rankOf(found: readonly Pick<Match, "name">[], answers: readonly string[]): number {
  return found.findIndex(({ name }) => answers.includes(name));
}

/** @param ranks as `rankOf` gives them, of at least one picture */
export function accuracyOf(ranks: readonly number[]): Accuracy {
  const within = (most: number) =>
    ranks.filter((rank) => rank >= 0 && rank < most).length / ranks.length;
  return { prompts: ranks.length, top1: within(1), top5: within(5) };
}
