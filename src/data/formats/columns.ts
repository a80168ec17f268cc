/** Which column of a table means what, and what its cells may hold. */
import { UsageError } from "../../engine/errors.ts";
import { nearestNames } from "../../engine/messages.ts";
import { quote } from "../../engine/messages.ts";

/** What the column of captions is usually called. */
export const captionNames = ["text", "caption", "captions", "prompt"] as const;

/** What the column of classes is usually called. */
export const labelNames = ["label", "labels", "class"] as const;

/**
 * The column that a config names, or the one of the usual names that is there; undefined where none is, or none is wanted.
 *
 * @param setting the field of the config that decides it
 * @param where how messages call the table
 * @throws UsageError when the one that is named is not there, or several of the usual ones are
 */
export function chooseColumn(
  setting: string,
  wanted: string | false | undefined,
  usual: readonly string[],
  available: readonly string[],
  where: string,
): string | undefined {
  if (wanted === false) return undefined;
  if (wanted === undefined) {
    const found = usual.filter((name) => available.includes(name));
    if (found.length < 2) return found[0];
    throw new UsageError(
      `${where} has the columns ${found.join(" and ")}; say with \`${setting}\` which one to use, or \`${setting}: false\` for none.`,
    );
  }
  if (available.includes(wanted)) return wanted;
  const near = nearestNames(wanted, available);
  const names = near.length > 0 ? near : available;
  throw new UsageError(
    `${where} has no column ${quote(wanted)}, which \`${setting}\` names; ${near.length > 0 ? "the nearest is" : "there are"} ${names.slice(0, 8).map(quote).join(", ") || "none"}.`,
  );
}

/** Captions in a cell: a text or a list of them; undefined where it holds something else. */
export function captionsOf(cell: unknown): readonly string[] | undefined {
  if (cell === null || cell === undefined) return [];
  const texts: readonly unknown[] = Array.isArray(cell) ? cell : [cell];
  if (!texts.every((text) => typeof text === "string")) return undefined;
  return texts.map((text) => text.trim()).filter((text) => text !== "");
}

/** Captions in a text file, one a line. */
export function captionLines(text: string): readonly string[] {
  return captionsOf(text.replace(/^\ufeff/, "").split(/\r\n|\r|\n/)) ?? [];
}

/** The distinct labels as class names: numbers by size, texts by their letters. */
export function classesOf(labels: Iterable<string>): string[] {
  const names = [...new Set(labels)];
  const numbers = names.every((name) => /^\d{1,15}$/.test(name));
  return names.sort((a, b) => (numbers ? Number(a) - Number(b) : byCodeUnits(a, b)));
}

/** The same order on every machine, whatever its language. */
export function byCodeUnits(a: string, b: string): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}
