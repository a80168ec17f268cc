/** Chooses the columns of a table and reads their cells. */
import { nearestNames, quote, UsageError } from "../../engine/errors.ts";

/** Usual names of the column of captions. */
export const captionNames = ["text", "caption", "captions", "prompt"] as const;

/** Usual names of the column of classes. */
export const labelNames = ["label", "labels", "class"] as const;

/**
 * Returns the column that a config names, or the usual name that exists. Returns undefined if there is none,
 * or if the config asks for none.
 *
 * @param setting the config field that names the column
 * @param where how errors name the table
 * @throws UsageError if the named column does not exist, or several of the usual ones do
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

/** Reads captions from a cell with a string or a list of strings; undefined for any other content. */
export function captionsOf(cell: unknown): readonly string[] | undefined {
  if (cell === null || cell === undefined) return [];
  const texts: readonly unknown[] = Array.isArray(cell) ? cell : [cell];
  if (!texts.every((text) => typeof text === "string")) return undefined;
  return texts.map((text) => text.trim()).filter((text) => text !== "");
}

/** Reads captions from a text file with one caption per line. */
export function captionLines(text: string): readonly string[] {
  return captionsOf(text.replace(/^\ufeff/, "").split(/\r\n|\r|\n/)) ?? [];
}

/** Returns the distinct labels as class names, sorted by value if all are numbers and by code units otherwise. */
export function classesOf(labels: Iterable<string>): string[] {
  const names = [...new Set(labels)];
  const numbers = names.every((name) => /^\d{1,15}$/.test(name));
  return names.sort((a, b) => (numbers ? Number(a) - Number(b) : byCodeUnits(a, b)));
}

/** An order that does not depend on the language of the machine. */
export function byCodeUnits(a: string, b: string): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}
