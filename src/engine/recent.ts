/** A value by its key, made where it is not remembered. */
export type RecentlyUsed<T> = (key: string, make: () => T) => T;

/** Returns a function that remembers the values of the keys that were asked for most recently. */
export function recentlyUsed<T>(kept: number): RecentlyUsed<T> {
  /** Least recently used first. */
  const values = new Map<string, T>();
  return (key, make) => {
    const value = values.get(key) ?? make();
    values.delete(key);
    values.set(key, value);
    for (const old of [...values.keys()].slice(0, -kept)) values.delete(old);
    return value;
  };
}
