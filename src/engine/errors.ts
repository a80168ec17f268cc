/**
 * Errors that a user can cause. Each message is one sentence on one line that names the value, what was expected and what to do;
 * control characters of the files and names that it quotes are shown as escapes, and what is too long to read is shortened. Anything else that is thrown is a bug in this
 * library.
 */
export class PatchwiseError extends Error {
  override name = "PatchwiseError";
  /** The kind of the error, for programs that show messages of their own. */
  readonly code: "usage" | "shape" | "format" | "device" | "failed" = "failed";

  constructor(message: string, options?: ErrorOptions) {
    super(withoutMiddle(printable(message)), options);
  }
}

/** A command, an option or an argument is wrong. The command line exits with code 2. */
export class UsageError extends PatchwiseError {
  override name = "UsageError";
  override readonly code = "usage";
}

/** Shapes or dtypes do not match. The message quotes both, and the path of the nearest parameter. */
export class ShapeError extends PatchwiseError {
  override name = "ShapeError";
  override readonly code = "shape";
}

/** The bytes of a file, such as a checkpoint or a data set, do not follow its format. */
export class FormatError extends PatchwiseError {
  override name = "FormatError";
  override readonly code = "format";
}

/** A device or execution provider is not available on this machine, or has failed. */
export class DeviceError extends PatchwiseError {
  override name = "DeviceError";
  override readonly code = "device";
}

/**
 * Returns the known names nearest to a name, nearest first: at most three that contain it or differ from it by less than half of
 * its letters.
 *
 * @example nearestNames("DiT-XL/3", ["DiT-XL/2", "U-ViT-M/4"]) // ["DiT-XL/2"]
 */
export function nearestNames(name: string, known: Iterable<string>): string[] {
  const wanted = name.toLowerCase();
  if (wanted === "") return [];
  const apart = (other: string) =>
    other !== wanted && other.includes(wanted) ? 1 : distance(wanted, other);
  return [...known]
    .map((other) => ({ other, distance: apart(other.toLowerCase()) }))
    .filter((each) => each.distance < Math.max(2, wanted.length / 2))
    .sort((a, b) => a.distance - b.distance)
    .slice(0, 3)
    .map((each) => each.other);
}

/** Ends a sentence about an unknown name with the nearest known names; with `all` and the known names if none is near. */
export function didYouMean(name: string, known: readonly string[], all = "give one of"): string {
  const near = nearestNames(name, known);
  return near.length > 0 ? `did you mean ${near.join(" or ")}?` : `${all} ${firstOf(known, 40)}.`;
}

/**
 * A number with its noun.
 *
 * @example counted(1, "picture") // "1 picture"
 * @example counted(1200, "picture") // "1,200 pictures"
 */
export function counted(count: number, noun: string): string {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}

/** Lists the first names, with "…" for the others. */
export function firstOf(names: readonly string[], count: number): string {
  return names.slice(0, count).join(", ") + (names.length > count ? ", …" : "");
}

/** The first three of some names, and the number of the others. */
export function listed(names: readonly string[]): string {
  const rest = names.length - 3;
  return names.slice(0, 3).join(", ") + (rest > 0 ? ` and ${rest} more` : "");
}

/** The number of letters to insert, delete, replace or swap with a neighbour to turn one name into the other (Damerau, 1964). */
function distance(a: string, b: string): number {
  let before: number[] = [];
  let above = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1];
      const best = Math.min(above[j]! + 1, row[j - 1]! + 1, above[j - 1]! + (same ? 0 : 1));
      const swapped = a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      row.push(swapped ? Math.min(best, before[j - 2]! + 1) : best);
    }
    [before, above] = [above, row];
  }
  return above[b.length]!;
}

/** Quotes, escapes and shortens a string for a one-line message. */
export function quote(text: string): string {
  return JSON.stringify(clip(text)).replace(
    /[\u007f-\u009f\p{Cf}\u2028\u2029]/gu,
    (character) => `\\u{${character.codePointAt(0)!.toString(16)}}`,
  );
}

/** Shortens a text to at most 100 characters. */
export function clip(text: string): string {
  return text.length <= 100 ? text : `${text.slice(0, 99)}…`;
}

/** More letters than any sentence needs that does not repeat what a file holds. */
const LONGEST = 1400;

/** Shortens a message to at most 1,400 characters; its beginning says what is wrong, and its end what to do. */
function withoutMiddle(text: string): string {
  return text.length <= LONGEST ? text : `${text.slice(0, 1000)} … ${text.slice(-300)}`;
}

/** Control characters, those that change the direction of text or end a line for some programs, and halves of pairs. */
const controls = /[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]|\p{Cs}/gu;

/** A text without control characters; they are shown as \u001b, which is valid in JSON, too. */
export function printable(text: string): string {
  return text.replace(
    controls,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}
