/** Names that people and file systems spell in different ways. */

/**
 * Returns a function that finds a name among others: the same one, or else one that differs only in how its letters are composed.
 * macOS writes é as two characters (NFD), most other systems as one (NFC).
 */
export function nameFinder(names: Iterable<string>): (name: string) => string | undefined {
  const known = new Set(names);
  const composed = new Map([...known].map((name) => [name.normalize("NFC"), name]));
  return (name) => (known.has(name) ? name : composed.get(name.normalize("NFC")));
}
