/** Values that components share and that outlive them. */
import { useEffect, useState } from "preact/hooks";

export interface Store<T> {
  readonly get: () => T;
  readonly set: (value: T) => void;
  /** Replaces some fields. */
  readonly patch: (fields: Partial<T>) => void;
  readonly subscribe: (listener: () => void) => () => void;
}

export function store<T>(initial: T): Store<T> {
  let value = initial;
  const listeners = new Set<() => void>();
  const set = (next: T) => {
    value = next;
    for (const listener of listeners) listener();
  };
  return {
    get: () => value,
    set,
    patch: (fields) => set({ ...value, ...fields }),
    subscribe(listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
  };
}

/** The value of a store, after whose changes the component is rendered again. */
export function useStore<T>({ get, subscribe }: Store<T>): T {
  const [, render] = useState({});
  useEffect(() => subscribe(() => render({})), [subscribe]);
  return get();
}

/** A store that is kept in the browser under a key. */
export function keptStore<T>(
  key: string,
  initial: T,
  valid: (value: unknown) => boolean,
): Store<T> {
  const found = readKept(key);
  const made = store<T>(found !== undefined && valid(found) ? (found as T) : initial);
  made.subscribe(() => localStorage.setItem(key, JSON.stringify(made.get())));
  return made;
}

function readKept(key: string): unknown {
  const text = localStorage.getItem(key);
  if (text === null) return undefined;
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
