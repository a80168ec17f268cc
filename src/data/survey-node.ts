/** Looks through what is known of all examples before anything is trained: what is missing, and what they are. */
import { createHash } from "node:crypto";
import { FormatError, UsageError } from "../engine/errors.ts";
import { charactersOf, type DataSet, type Described } from "./dataset.ts";

/** The most captions that a survey keeps. */
const MOST_CAPTIONS = 2000;

/** The number of examples that are looked at concurrently. */
const PARALLEL = 64;

/**
 * Adds its survey to a data set, and treats examples without a caption or label as `undescribed` says, if others have one.
 *
 * @throws UsageError if captions or labels are missing and `undescribed` is "refuse", or if none is left
 */
export async function surveyed(
  data: DataSet,
  undescribed: "refuse" | "skip" | "keep",
): Promise<DataSet> {
  const { name, count, classes, captioned, described } = data;
  if (!described) return data;
  const lacks = ({ label, captions }: Described) =>
    (captioned && captions.length === 0) || (classes !== undefined && label === undefined);
  const hash = createHash("sha256").update(JSON.stringify(classes ?? null));
  const captions: string[] = [];
  const characters = new Set<string>();
  const kept: number[] = [];
  const stride = Math.ceil(count / MOST_CAPTIONS);
  for (let start = 0; start < count; start += PARALLEL) {
    const indices = Array.from({ length: Math.min(PARALLEL, count - start) }, (_, i) => start + i);
    const some = await Promise.all(indices.map((index) => orUnreadable(described(index))));
    for (const [i, each] of some.entries()) {
      const index = start + i;
      hash.update(`\n${JSON.stringify([data.nameOf(index), each])}`);
      if (!each || undescribed === "keep" || !lacks(each)) kept.push(index);
      for (const caption of each?.captions ?? []) for (const one of caption) characters.add(one);
      if (each && index % stride === 0) captions.push(...each.captions.slice(0, 1));
    }
  }
  const missing = count - kept.length;
  const what = captioned ? "caption" : "label";
  if (missing > 0 && (undescribed === "refuse" || kept.length === 0)) {
    const first = kept.findIndex((index, i) => index !== i);
    throw new UsageError(
      kept.length === 0
        ? `${count === 1 ? "The only picture" : `None of the ${count} pictures`} in ${name} has ${count === 1 ? "no" : "a"} ${what}; add some, or set \`undescribed: keep\` or \`${what}: false\`.`
        : `${missing} of the ${count} pictures in ${name} ${missing === 1 ? "has" : "have"} no ${what} (the first is ${data.nameOf(first === -1 ? kept.length : first)}); add what is missing, or set \`undescribed\` to skip or keep.`,
    );
  }
  const survey = {
    captions,
    characters: charactersOf(characters),
    hash: hash.digest("hex"),
    notes: data.notes ?? [],
  };
  return { ...(missing > 0 ? picked(data, kept) : data), survey };
}

/** Unreadable descriptions are dealt with as unreadable pictures are: when they are used. */
function orUnreadable(described: Promise<Described>): Promise<Described | undefined> {
  return described.catch((error: unknown) => {
    if (error instanceof FormatError) return undefined;
    throw error;
  });
}

/** Some of the examples of a data set, by their indices. */
export function picked(data: DataSet, indices: readonly number[]): DataSet {
  const { described } = data;
  return {
    ...data,
    count: indices.length,
    nameOf: (index) => data.nameOf(indices[index]!),
    ...(described && { described: (index) => described(indices[index]!) }),
    example: (index) => data.example(indices[index]!),
  };
}
