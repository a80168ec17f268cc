/** What a fuzzer needs to know about one kind of files, and what counts as a right answer to a damaged one. */
import { PatchwiseError } from "../../src/engine/errors.ts";
import type { Mutation } from "./mutations.ts";

export interface FuzzTarget {
  /** Files that are read without an error; copies of them are damaged. */
  readonly sound: readonly Uint8Array[];
  /** Kinds of damage, each as likely as the others. */
  readonly mutations: readonly Mutation[];
  /** Reads a file with everything that the project does to one of its kind. */
  read(input: Uint8Array): unknown;
}

/**
 * A file of `targets/` exports this as `open`.
 *
 * @param folder a folder for files that can only be read from disk
 */
export type OpenTarget = (folder: string) => FuzzTarget | Promise<FuzzTarget>;

/** More letters than an error message has, unless it repeats what a file holds. */
const LONGEST_MESSAGE = 1500;

/** The reason why an error is not a right answer to a damaged file; undefined for one clear sentence. */
export function flawOf(error: unknown): string | undefined {
  if (!(error instanceof PatchwiseError)) {
    return `not an error of the project: ${error instanceof Error ? error.stack : String(error)}`;
  }
  const { message } = error;
  if (/[\p{Cc}\p{Cs}\u2028\u2029]/u.test(message)) return `control characters: ${message}`;
  if (!/[.?]$/.test(message)) return `no sentence: ${message}`;
  if (message.length > LONGEST_MESSAGE) return `${message.length} letters: ${message}`;
  return undefined;
}

/** Messages that differ only in names and numbers are of one kind. */
export function kindOf(message: string): string {
  return message.replace(/"(?:[^"\\]|\\.)*"/g, '""').replace(/[-\d.…]+(?=\W)/g, "0");
}
