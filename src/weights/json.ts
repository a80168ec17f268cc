/**
 * A strict JSON scanner for untrusted text. `JSON.parse` is not used because it drops duplicate keys (a
 * tensor could be listed twice), builds every structure in a text of up to 100 MB before anything can be
 * checked, and finding duplicates would need a scanner anyway. Here the caller asks for the values that it
 * expects, and nothing else is built.
 */
import { FormatError } from "../engine/errors.ts";
import { clip, quote } from "../engine/messages.ts";

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

export interface JsonScanner {
  /** Calls `onKey` for each key, with the scanner before its value, which `onKey` must consume. */
  object(what: string, onKey: (key: string) => void): void;
  /** Calls `onItem` for each element, with the scanner before it; `onItem` must consume it. */
  array(what: string, onItem: (index: number) => void): void;
  string(what: string): string;
  /** A whole number from 0 to 2^53 − 1, as all sizes and offsets must be. */
  size(what: string): number;
  /** Consumes any valid JSON value. */
  skip(): void;
  /** Checks that only white space follows. */
  end(): void;
}

/**
 * Starts scanning UTF-8 bytes.
 *
 * @param file how errors name the file
 * @param part how errors name the scanned part of the file, such as "the header"
 * @throws FormatError here if the bytes are not UTF-8, and from each method if the text is not the expected
 *   JSON
 */
export function jsonScanner(bytes: Uint8Array, file: string, part: string): JsonScanner {
  const text = decodeUtf8(bytes, file, part);
  let at = 0;
  let depth = 0;
  const number = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
  const literal = /true|false|null/y;

  function match(pattern: RegExp): string {
    pattern.lastIndex = at;
    if (!pattern.test(text)) return "";
    const found = text.slice(at, pattern.lastIndex);
    at = pattern.lastIndex;
    return found;
  }

  function fail(expected: string): never {
    const found = at < text.length ? quote(text.slice(at, at + 12)) : "the end";
    throw new FormatError(
      `${file}: ${part} is not valid JSON: expected ${expected} at character ${at}, found ${found}.`,
    );
  }

  /** The next character that is not white space; "" at the end. */
  function peek(): string {
    for (;;) {
      const code = text.charCodeAt(at);
      if (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09) break;
      at++;
    }
    return text.charAt(at);
  }

  function take(character: string): boolean {
    if (peek() !== character) return false;
    at++;
    return true;
  }

  function expectKind(opening: string, what: string): void {
    const found = peek();
    if (found === opening) return;
    const kind = kinds[found] ?? (/[-\d]/.test(found) ? "a number" : undefined);
    if (!kind) fail("a value");
    throw new FormatError(`${file}: ${what} must be ${kinds[opening]}, but is ${kind}.`);
  }

  function nested(closing: string, item: () => void): void {
    at++;
    if (++depth > MAX_DEPTH) {
      throw new FormatError(
        `${file}: ${part} nests deeper than ${MAX_DEPTH} levels at character ${at}.`,
      );
    }
    if (!take(closing)) {
      do item();
      while (take(","));
      if (!take(closing)) fail(`"," or "${closing}"`);
    }
    depth--;
  }

  function stringToken(): string {
    const start = at++;
    let escaped = false;
    for (let code = text.charCodeAt(at); code !== QUOTE; code = text.charCodeAt(at)) {
      // Past the end the code is NaN, which fails this check, too.
      if (!(code >= 0x20)) fail("the end of a string");
      if (code === BACKSLASH) {
        escaped = true;
        at++;
      }
      at++;
    }
    at++;
    return escaped ? unescape(start) : text.slice(start + 1, at - 1);
  }

  /** Decodes the token from `start` by JSON.parse, which handles escapes. */
  function unescape(start: number): string {
    let value: string;
    try {
      value = JSON.parse(text.slice(start, at)) as string;
    } catch {
      at = start;
      return fail("a string with valid escapes");
    }
    // Only an escape can give a lone surrogate, because the text came from a strict UTF-8 decoder.
    if (!/\p{Cs}/u.test(value)) return value;
    throw new FormatError(`${file}: the string ${quote(value)} has a lone surrogate.`);
  }

  const scanner: JsonScanner = {
    object(what, onKey) {
      expectKind("{", what);
      const seen = new Set<string>();
      nested("}", () => {
        if (peek() !== '"') fail("a key in quotes");
        const key = stringToken();
        if (!take(":")) fail(`":"`);
        if (seen.has(key))
          throw new FormatError(`${file}: ${what} has the key ${quote(key)} twice.`);
        // Harmless here, but dangerous for code that uses the keys, or their dotted parts, as keys of plain
        // objects.
        if (key.includes("__proto__") && key.split(".").includes("__proto__")) {
          throw new FormatError(`${file}: ${what} has the forbidden key ${quote(key)}; rename it.`);
        }
        seen.add(key);
        if (seen.size > MAX_KEYS) {
          throw new FormatError(
            `${file}: ${what} has more than ${MAX_KEYS} keys, which no checkpoint needs; split it into shards.`,
          );
        }
        onKey(key);
      });
    },
    array(what, onItem) {
      expectKind("[", what);
      let index = 0;
      nested("]", () => onItem(index++));
    },
    string(what) {
      expectKind('"', what);
      return stringToken();
    },
    size(what) {
      peek();
      const token = match(number);
      const value = /^\d{1,16}$/.test(token) ? Number(token) : NaN;
      if (Number.isSafeInteger(value)) return value;
      if (!token) expectNumber(what);
      throw new FormatError(
        `${file}: ${what} must be a whole number from 0 to 2^53 - 1, but is ${clip(token)}.`,
      );
    },
    skip() {
      const opening = peek();
      if (opening === "{") scanner.object("an object", () => scanner.skip());
      else if (opening === "[") scanner.array("an array", () => scanner.skip());
      else if (opening === '"') stringToken();
      else if (!match(number) && !match(literal)) fail("a value");
    },
    end() {
      if (peek()) fail("the end");
    },
  };

  function expectNumber(what: string): void {
    const kind = kinds[peek()] ?? fail("a value");
    throw new FormatError(`${file}: ${what} must be a number, but is ${kind}.`);
  }

  return scanner;
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
