/** Reads the fields of a model's config.json and checks their types. */
import { FormatError } from "../engine/errors.ts";

/** The fields of a config file, by the argument names of the original code. */
export type ConfigFields = Readonly<Record<string, unknown>>;

export interface FieldReader {
  /** How errors name the source of the fields. */
  readonly file: string;
  /** A whole number of at least 1. */
  count(name: string, otherwise?: number): number;
  /** A whole number of at least 0. */
  countOrZero(name: string, otherwise?: number): number;
  /** A whole number of at least 1; undefined if the field is absent or null. */
  optionalCount(name: string): number | undefined;
  /** A non-empty list of whole numbers of at least 1. */
  counts(name: string, otherwise?: readonly number[]): readonly number[];
  /** Height and width: two whole numbers of at least 1, or one for both. */
  size(name: string, otherwise?: number): readonly [height: number, width: number];
  /** A finite number. */
  number(name: string, otherwise?: number): number;
  /** A number that may be infinite. */
  bound(name: string, otherwise?: number): number;
  numbers(name: string, otherwise?: readonly number[]): readonly number[];
  flag(name: string, otherwise?: boolean): boolean;
  /** A list of true and false. */
  flags(name: string, otherwise?: readonly boolean[]): readonly boolean[];
  text(name: string, otherwise?: string): string;
  /** A list of strings. */
  names(name: string, otherwise?: readonly string[]): readonly string[];
  /** An object of strings. */
  texts(
    name: string,
    otherwise?: Readonly<Record<string, string>>,
  ): Readonly<Record<string, string>>;
  /** One of several strings. */
  choice<T extends string>(name: string, choices: readonly T[], otherwise?: T): T;
  /** A list of such strings. */
  choices<T extends string>(
    name: string,
    choices: readonly T[],
    otherwise?: readonly T[],
  ): readonly T[];
  /** A reader for the fields of an object. */
  object(name: string): FieldReader;
  /** Returns true if the field is null, for fields in which null and absent differ. */
  isNull(name: string): boolean;
  /** Returns true if the field is there and does not say null. */
  has(name: string): boolean;
  /** Names of all fields. */
  readonly all: readonly string[];
  /** A reader for some of the fields, to which the others are absent. */
  among(names: readonly string[]): FieldReader;
  /** Returns true if the field says null, false, or nothing. */
  isOff(name: string): boolean;
  /** Refuses every value but those listed, null and none at all, for arguments that are supported with these alone. */
  only(name: string, ...values: readonly (string | number | boolean)[]): void;
  /** Accepts any value of arguments that do not change what is computed, such as dropout. */
  ignore(...names: readonly string[]): void;
  /**
   * Refuses fields that nothing has asked for, so that no argument of the original is ignored in silence. Names that begin
   * with "_" and fields that say null are no arguments.
   *
   * @param original what has these arguments
   */
  finish(original: string): void;
}

const WHOLE = "a whole number of at least 1";
const FROM_ZERO = "a whole number of at least 0";

/**
 * Creates a reader. An absent or null field has the value `otherwise`; without `otherwise`, the field is
 * required.
 *
 * @param file how errors name the source of the fields
 * @throws FormatError, from each method, that names the field, its value and what was expected
 */
export function fieldReader(file: string, fields: ConfigFields): FieldReader {
  const asked = new Set<string>();
  /** Ignores inherited properties. */
  const valueOf = (name: string) => {
    asked.add(name);
    return Object.hasOwn(fields, name) ? fields[name] : undefined;
  };
  const has = (name: string) => (valueOf(name) ?? null) !== null;

  function read<T>(
    name: string,
    expected: string,
    accepts: (value: unknown) => value is T,
    otherwise?: T,
  ): T {
    const value = valueOf(name) ?? otherwise;
    if (value === undefined) {
      throw new FormatError(`${file} has no ${JSON.stringify(name)}; set it to ${expected}.`);
    }
    if (value === otherwise || accepts(value)) return value as T;
    throw new FormatError(
      `${file} has ${JSON.stringify(name)} = ${shown(value)}, but it must be ${expected}.`,
    );
  }

  return {
    file,
    count: (name, otherwise) => read(name, WHOLE, isCount, otherwise),
    countOrZero: (name, otherwise) => read(name, FROM_ZERO, isCountOrZero, otherwise),
    optionalCount: (name) => (has(name) ? read(name, WHOLE, isCount) : undefined),
    counts: (name, otherwise) =>
      read(name, "a list of whole numbers of at least 1", listOf(isCount), otherwise),
    size: (name, otherwise) => {
      const value = read(name, "a whole number of at least 1, or two", isSize, otherwise);
      return typeof value === "number" ? [value, value] : value;
    },
    number: (name, otherwise) => read(name, "a number", isNumber, otherwise),
    bound: (name, otherwise) => read(name, "a number", isBound, otherwise),
    numbers: (name, otherwise) => read(name, "a list of numbers", isNumbers, otherwise),
    flag: (name, otherwise) => read(name, "true or false", isFlag, otherwise),
    flags: (name, otherwise) => read(name, "a list of true and false", areFlags, otherwise),
    text: (name, otherwise) => read(name, "a string", isText, otherwise),
    names: (name, otherwise) => read(name, "a list of strings", listOf(isText), otherwise),
    texts: (name, otherwise) => read(name, "an object of strings", areTexts, otherwise),
    choice: (name, choices, otherwise) =>
      read(name, `one of ${choices.join(", ")}`, isOneOf(choices), otherwise),
    choices: (name, choices, otherwise) =>
      read(name, `a list of ${choices.join(" or ")}`, listOf(isOneOf(choices)), otherwise),
    object: (name) =>
      fieldReader(`${file} (${JSON.stringify(name)})`, read(name, "an object", isObject)),
    isNull: (name) => valueOf(name) === null,
    has,
    all: Object.keys(fields),
    among: (names) =>
      fieldReader(
        file,
        Object.fromEntries(Object.entries(fields).filter(([name]) => names.includes(name))),
      ),
    isOff: (name) => ["", "null", "false", '""', "[]"].includes(JSON.stringify(fields[name]) ?? ""),
    only(name, ...values) {
      const value = valueOf(name) ?? null;
      if (value === null || values.some((each) => each === value)) return;
      throw new FormatError(
        `${file} has ${JSON.stringify(name)} = ${shown(value)}, but only ${[...values.map(shown), "null"].join(" and ")} are supported.`,
      );
    },
    ignore(...names) {
      for (const name of names) asked.add(name);
    },
    finish(original) {
      const unknown = Object.keys(fields).filter(
        (name) => !asked.has(name) && !name.startsWith("_") && fields[name] !== null,
      );
      if (unknown.length === 0) return;
      throw new FormatError(
        `${file} has ${unknown.map((name) => JSON.stringify(name)).join(", ")}, which ${unknown.length > 1 ? "are no arguments" : "is no argument"} of ${original} that is known; it has ${[...asked].join(", ")}.`,
      );
    },
  };
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 1;
}

function isCountOrZero(value: unknown): value is number {
  return value === 0 || isCount(value);
}

function isNumber(value: unknown): value is number {
  return Number.isFinite(value);
}

function isBound(value: unknown): value is number {
  return typeof value === "number" && !Number.isNaN(value);
}

function isNumbers(value: unknown): value is readonly number[] {
  return Array.isArray(value) && value.every(isNumber);
}

function isFlag(value: unknown): value is boolean {
  return typeof value === "boolean";
}

function areFlags(value: unknown): value is readonly boolean[] {
  return Array.isArray(value) && value.every(isFlag);
}

function isSize(value: unknown): value is number | [number, number] {
  return isCount(value) || (Array.isArray(value) && value.length === 2 && value.every(isCount));
}

function listOf<T>(accepts: (value: unknown) => value is T) {
  return (value: unknown): value is readonly T[] =>
    Array.isArray(value) && value.length > 0 && value.every(accepts);
}

function isOneOf<T extends string>(choices: readonly T[]) {
  return (value: unknown): value is T => choices.includes(value as T);
}

function isText(value: unknown): value is string {
  return typeof value === "string";
}

function areTexts(value: unknown): value is Readonly<Record<string, string>> {
  return isObject(value) && Object.values(value).every(isText);
}

function isObject(value: unknown): value is ConfigFields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function shown(value: unknown): string {
  const text = typeof value === "number" ? String(value) : JSON.stringify(value);
  return text.length <= 80 ? text : `${text.slice(0, 79)}…`;
}
