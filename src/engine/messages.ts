/** Pieces of one-line messages: text from outside, quoted, and what a person probably meant by an unknown name. */

/**
 * The known names nearest to a name, nearest first: those that contain it or differ by less than half of its
 * letters, three at most.
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

/** Letters to insert, delete or replace, or neighbours to swap, to make one name of the other (Damerau, 1964). */
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

/** A string from outside as it may stand in a one-line message: quoted, escaped, not longer than a glance takes. */
export function quote(text: string): string {
  return JSON.stringify(clip(text)).replace(
    /[\u007f-\u009f\p{Cf}\u2028\u2029]/gu,
    (character) => `\\u{${character.codePointAt(0)!.toString(16)}}`,
  );
}

/** At most 100 characters of a text. */
export function clip(text: string): string {
  return text.length <= 100 ? text : `${text.slice(0, 99)}…`;
}
