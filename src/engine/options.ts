/** Checks of what a caller gives, so that a mistyped name is never ignored and a wrong type is named where it was given. */
import { didYouMean, quote, UsageError } from "./errors.ts";

/** The values that an option takes. */
export interface OptionKind {
  /** Completes the sentence "worker must be …". */
  readonly expected: string;
  readonly accepts: (value: unknown) => boolean;
}

const ofType = (type: string, expected: string): OptionKind => ({
  expected,
  accepts: (value) => typeof value === type,
});

/** The kinds that several functions take. */
export const kinds = {
  text: ofType("string", "a text"),
  flag: ofType("boolean", "true or false"),
  callback: ofType("function", "a function"),
  /** Any object, whose members are checked elsewhere. */
  object: { expected: "an object", accepts: isObject },
  list: { expected: "a list", accepts: Array.isArray },
  texts: {
    expected: "a list of texts",
    accepts: (value) => Array.isArray(value) && value.every((each) => typeof each === "string"),
  },
  count: {
    expected: "a whole number from 1",
    accepts: (value) => Number.isSafeInteger(value) && Number(value) >= 1,
  },
  bytes: {
    expected: "a number of bytes",
    accepts: (value) => typeof value === "number" && value >= 0,
  },
  address: {
    expected: "an address as a text or URL",
    accepts: (value) => typeof value === "string" || value instanceof URL,
  },
  abortSignal: {
    expected: "an AbortSignal, such as the signal of an AbortController",
    accepts: (value) => isObject(value) && "throwIfAborted" in value && "addEventListener" in value,
  },
  backend: {
    expected: 'a backend, such as webBackend({ device: "wasm" }) or nodeBackend("cpu")',
    accepts: (value) => isObject(value) && "compile" in value,
  },
} as const satisfies Readonly<Record<string, OptionKind>>;

/** One of two kinds. */
export function either(a: OptionKind, b: OptionKind): OptionKind {
  return {
    expected: `${a.expected} or ${b.expected}`,
    accepts: (value) => a.accepts(value) || b.accepts(value),
  };
}

/** The kind of each option of an interface. */
export type OptionKinds<O> = { readonly [K in keyof Required<O>]: OptionKind };

/**
 * Checks options; those that are undefined count as not given.
 *
 * @param of the function that takes them, as errors name it
 * @throws UsageError for an option that does not exist, with the nearest one that does; for one of another kind; for no object
 */
export function requireOptions<O>(of: string, given: O, expected: OptionKinds<O>): void {
  if (!isObject(given)) {
    throw new UsageError(`${of}: the options must be an object, got ${shown(given)}.`);
  }
  const known = expected as Readonly<Record<string, OptionKind>>;
  for (const [name, value] of Object.entries(given)) {
    if (value === undefined) continue;
    if (!Object.hasOwn(known, name)) {
      throw new UsageError(
        `${of}: there is no option ${quote(name)}; ${didYouMean(name, Object.keys(known))}`,
      );
    }
    requireKind(`${of}: ${name}`, value, known[name]!);
  }
}

/** @throws UsageError if a value is of another kind */
export function requireKind(name: string, value: unknown, { expected, accepts }: OptionKind): void {
  if (accepts(value)) return;
  throw new UsageError(`${name} must be ${expected}, got ${shown(value)}.`);
}

/** A value as messages show it. */
export function shown(value: unknown): string {
  if (typeof value === "string") return quote(value);
  if (typeof value === "number") return String(value);
  if (typeof value === "function") return "a function";
  if (ArrayBuffer.isView(value)) return "bytes";
  if (Array.isArray(value)) return `[${value.map(shown).join(", ")}]`;
  if (typeof value !== "object" || value === null) return String(value);
  const members = Object.entries(value).map(([name, member]) => `${name}: ${shown(member)}`);
  return `{ ${members.join(", ")} }`;
}

function isObject(value: unknown): value is object {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
