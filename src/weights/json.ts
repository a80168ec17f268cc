/**
 * A strict JSON scanner for untrusted text. `JSON.parse` is not used because it drops duplicate keys (a
 * tensor could be listed twice), builds every structure in a text of up to 100 MB before anything can be
 * checked, and finding duplicates would need a scanner anyway. Here the caller asks for the values that it
 * expects, and nothing else is built.
 */
import { clip, FormatError, quote } from "../engine/errors.ts";

// A safetensors header has 3 levels and an index file 2; unknown fields may have a few more.
const MAX_DEPTH = 16;

// The largest public checkpoints have some 100,000 tensors. Each key takes ten times its text in memory, so
// the limit bounds what a hostile header of 100 MB can cost.
const MAX_KEYS = 1_000_000;

const QUOTE = 0x22;
const BACKSLASH = 0x5c;

const kinds: Record<string, string> = {
  "{": "an object",
  "[": "an array",
  '"': "a string",
  t: "true",
  f: "false",
  n: "null",
};

// Sticky: each is tried at the scanner's place only.
const number = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const literal = /true|false|null/y;

/** Reads a JSON text value by value. Every method throws a FormatError if the text is not the expected JSON. */
export class JsonScanner {
  readonly #text: string;
  readonly #file: string;
  readonly #part: string;
  #at = 0;
  #depth = 0;

  /**
   * Starts scanning UTF-8 bytes.
   *
   * @param file how errors name the file
   * @param part how errors name the scanned part of the file, such as "the header"
   * @throws FormatError if the bytes are not UTF-8
   */
  constructor(bytes: Uint8Array, file: string, part: string) {
    this.#text = decodeUtf8(bytes, file, part);
    this.#file = file;
    this.#part = part;
  }

  /** Calls `onKey` for each key, with the scanner before its value, which `onKey` must consume. */
  object(what: string, onKey: (key: string) => void): void {
    this.#expectKind("{", what);
    const seen = new Set<string>();
    this.#nested("}", () => {
      if (this.#peek() !== '"') this.#fail("a key in quotes");
      const key = this.#stringToken();
      if (!this.#take(":")) this.#fail(`":"`);
      if (seen.has(key)) {
        throw new FormatError(`${this.#file}: ${what} has the key ${quote(key)} twice.`);
      }
      // Harmless here, but dangerous for code that uses the keys, or their dotted parts, as keys of plain
      // objects.
      if (key.includes("__proto__") && key.split(".").includes("__proto__")) {
        throw new FormatError(
          `${this.#file}: ${what} has the forbidden key ${quote(key)}; rename it.`,
        );
      }
      seen.add(key);
      if (seen.size > MAX_KEYS) {
        throw new FormatError(
          `${this.#file}: ${what} has more than ${MAX_KEYS} keys, which no checkpoint needs; split it into shards.`,
        );
      }
      onKey(key);
    });
  }

  /** Calls `onItem` for each element, with the scanner before it; `onItem` must consume it. */
  array(what: string, onItem: (index: number) => void): void {
    this.#expectKind("[", what);
    let index = 0;
    this.#nested("]", () => onItem(index++));
  }

  string(what: string): string {
    this.#expectKind('"', what);
    return this.#stringToken();
  }

  /** A whole number from 0 to 2^53 − 1, as all sizes and offsets must be. */
  size(what: string): number {
    const opening = this.#peek();
    const token = this.#match(number);
    const value = /^\d{1,16}$/.test(token) ? Number(token) : NaN;
    if (Number.isSafeInteger(value)) return value;
    if (token) {
      throw new FormatError(
        `${this.#file}: ${what} must be a whole number from 0 to 2^53 - 1, but is ${clip(token)}.`,
      );
    }
    const kind = kinds[opening] ?? this.#fail("a value");
    throw new FormatError(`${this.#file}: ${what} must be a number, but is ${kind}.`);
  }

  /** Consumes any valid JSON value. */
  skip(): void {
    const opening = this.#peek();
    if (opening === "{") this.object("an object", () => this.skip());
    else if (opening === "[") this.array("an array", () => this.skip());
    else if (opening === '"') this.#stringToken();
    else if (!this.#match(number) && !this.#match(literal)) this.#fail("a value");
  }

  /** Checks that only white space follows. */
  end(): void {
    if (this.#peek()) this.#fail("the end");
  }

  #match(pattern: RegExp): string {
    pattern.lastIndex = this.#at;
    if (!pattern.test(this.#text)) return "";
    const found = this.#text.slice(this.#at, pattern.lastIndex);
    this.#at = pattern.lastIndex;
    return found;
  }

  #fail(expected: string): never {
    const at = this.#at;
    const found = at < this.#text.length ? quote(this.#text.slice(at, at + 12)) : "the end";
    throw new FormatError(
      `${this.#file}: ${this.#part} is not valid JSON: expected ${expected} at character ${at}, found ${found}.`,
    );
  }

  /** The next character that is not white space; "" at the end. */
  #peek(): string {
    for (;;) {
      const code = this.#text.charCodeAt(this.#at);
      if (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09) break;
      this.#at++;
    }
    return this.#text.charAt(this.#at);
  }

  #take(character: string): boolean {
    if (this.#peek() !== character) return false;
    this.#at++;
    return true;
  }

  #expectKind(opening: string, what: string): void {
    const found = this.#peek();
    if (found === opening) return;
    const kind = kinds[found] ?? (/[-\d]/.test(found) ? "a number" : undefined);
    if (!kind) this.#fail("a value");
    throw new FormatError(`${this.#file}: ${what} must be ${kinds[opening]}, but is ${kind}.`);
  }

  #nested(closing: string, item: () => void): void {
    this.#at++;
    if (++this.#depth > MAX_DEPTH) {
      throw new FormatError(
        `${this.#file}: ${this.#part} nests deeper than ${MAX_DEPTH} levels at character ${this.#at}.`,
      );
    }
    if (!this.#take(closing)) {
      do item();
      while (this.#take(","));
      if (!this.#take(closing)) this.#fail(`"," or "${closing}"`);
    }
    this.#depth--;
  }

  #stringToken(): string {
    const start = this.#at++;
    let escaped = false;
    for (;;) {
      const code = this.#text.charCodeAt(this.#at);
      if (code === QUOTE) break;
      // Past the end the code is NaN, which fails this check, too.
      if (!(code >= 0x20)) this.#fail("the end of a string");
      if (code === BACKSLASH) {
        escaped = true;
        this.#at++;
      }
      this.#at++;
    }
    this.#at++;
    return escaped ? this.#unescape(start) : this.#text.slice(start + 1, this.#at - 1);
  }

  /** Decodes the token from `start` by JSON.parse, which handles escapes. */
  #unescape(start: number): string {
    let value: string;
    try {
      value = JSON.parse(this.#text.slice(start, this.#at)) as string;
    } catch {
      this.#at = start;
      return this.#fail("a string with valid escapes");
    }
    // Only an escape can give a lone surrogate, because the text came from a strict UTF-8 decoder.
    if (!/\p{Cs}/u.test(value)) return value;
    throw new FormatError(`${this.#file}: the string ${quote(value)} has a lone surrogate.`);
  }
}

/** A value as indented JSON in UTF-8, with a line break at its end. */
export function jsonBytes(value: unknown): Uint8Array {
  return new TextEncoder().encode(`${JSON.stringify(value, null, 2)}\n`);
}

function decodeUtf8(bytes: Uint8Array, file: string, part: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    throw new FormatError(`${file}: ${part} is not valid UTF-8 text; the file is damaged.`, {
      cause,
    });
  }
}
