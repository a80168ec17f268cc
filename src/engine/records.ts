/** Records are objects used as maps from names to values. */
type Of<T> = Readonly<Record<string, T>>;

/** Applies `f` to each value. */
export function mapValues<T, U>(
  record: Of<T>,
  f: (value: T, name: string) => U,
): Record<string, U> {
  return recordOf(Object.keys(record), (name) => f(record[name]!, name));
}

/** Returns the entries whose names are wanted. */
export function pick<T>(record: Of<T>, wanted: (name: string) => boolean): Record<string, T> {
  return Object.fromEntries(Object.entries(record).filter(([name]) => wanted(name)));
}

/** Puts a prefix before each name. */
export function prefixed<T>(prefix: string, record: Of<T>): Record<string, T> {
  return Object.fromEntries(Object.entries(record).map(([name, value]) => [prefix + name, value]));
}

/** Returns a record with a value for each name. */
export function recordOf<U>(
  names: Iterable<string>,
  f: (name: string, index: number) => U,
): Record<string, U> {
  return Object.fromEntries(Array.from(names, (name, i) => [name, f(name, i)]));
}

/** Leaves out values that are undefined. */
export function defined<T extends object>(
  record: T,
): { [K in keyof T]?: Exclude<T[K], undefined> } {
  const entries = Object.entries(record).filter(([, value]) => value !== undefined);
  return Object.fromEntries(entries) as { [K in keyof T]?: Exclude<T[K], undefined> };
}

/** Returns true if a value, such as of parsed JSON, is an object with named members. */
export function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
