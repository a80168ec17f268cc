import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { FormatError, quote } from "../../src/engine/errors.ts";
import { JsonScanner } from "../../src/weights/json.ts";

const scan = (text: string) => new JsonScanner(new TextEncoder().encode(text), "f", "the text");

/** Why the scanner refuses the text; undefined when it does not. */
function refusal(text: string): string | undefined {
  try {
    const scanner = scan(text);
    scanner.skip();
    scanner.end();
    return undefined;
  } catch (error) {
    return error instanceof FormatError ? error.message : `not a FormatError: ${String(error)}`;
  }
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

describe("JsonScanner", () => {
  it("accepts every document that JSON.stringify writes", () => {
    fc.assert(
      fc.property(
        fc.jsonValue({ maxDepth: 6, noUnicodeString: false }).filter((value) => {
          const text = JSON.stringify(value);
          return !/__proto__|\\ud[89a-f]/i.test(text);
        }),
        fc.constantFrom(undefined, 1, "\t"),
        (value, indent) => {
          expect(refusal(JSON.stringify(value, null, indent))).toBe(undefined);
        },
      ),
      { numRuns: 500, seed: 3 },
    );
  });

  it("refuses whatever JSON.parse refuses, and beyond that only what it should", () => {
    const onPurpose = /twice\.$|has a lone surrogate\.$|forbidden key|nests deeper/;
    const accepted = { count: 0 };
    fc.assert(
      fc.property(
        fc.json({ maxDepth: 4 }),
        fc.array(
          fc.tuple(
            fc.nat(),
            fc.nat(3),
            fc.constantFrom(...'{}[],:"\\-+.0123456789eEutrfalsn \t\n\0'.split("")),
          ),
          {
            minLength: 1,
            maxLength: 3,
          },
        ),
        (json, edits) => {
          let text = json;
          for (const [position, removed, inserted] of edits) {
            const at = position % (text.length + 1);
            text = text.slice(0, at) + inserted + text.slice(at + removed);
          }
          // An edit may split a surrogate pair, which UTF-8 cannot carry to the scanner.
          text = text.replace(/\p{Cs}/gu, "?");
          const reason = refusal(text);
          if (reason === undefined) accepted.count++;
          const right =
            reason === undefined ? isJson(text) : !isJson(text) || onPurpose.test(reason);
          expect(right, `${text} → ${reason}`).toBe(true);
        },
      ),
      { numRuns: 20_000, seed: 4 },
    );
    expect(accepted.count).toBeGreaterThan(1000);
  });

  it("reads strings as JSON.parse does", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (value) => {
        const token = JSON.stringify(value).replace(/[aé😀]/gu, escapeAll);
        expect(scan(token).string("x")).toBe(value);
      }),
      { numRuns: 500, seed: 5 },
    );
  });

  it("reads sizes up to 2^53 - 1", () => {
    expect(scan(" 0").size("x")).toBe(0);
    expect(scan("9007199254740991").size("x")).toBe(Number.MAX_SAFE_INTEGER);
    expect(() => scan("9007199254740992").size("x")).toThrow(
      "f: x must be a whole number from 0 to 2^53 - 1, but is 9007199254740992.",
    );
    expect(() => scan("true").size("x")).toThrow("f: x must be a number, but is true.");
    expect(() => scan("").size("x")).toThrow(
      "f: the text is not valid JSON: expected a value at character 0, found the end.",
    );
  });

  it("numbers the elements of an array", () => {
    const scanner = scan("[7, 8 ,9]");
    const items: [number, number][] = [];
    scanner.array("x", (index) => items.push([index, scanner.size("item")]));
    scanner.end();
    expect(items).toEqual([
      [0, 7],
      [1, 8],
      [2, 9],
    ]);
  });
});

describe("quote", () => {
  it("formats any string as one short visible line", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary", maxLength: 300 }), (text) => {
        const quoted = quote(text);
        expect(quoted).not.toMatch(/[\p{Cc}\p{Cf}\p{Cs}\u2028\u2029]/u);
        expect(quoted.length).toBeLessThan(1002);
      }),
      { numRuns: 500, seed: 6 },
    );
    expect(quote("model.blocks.0")).toBe('"model.blocks.0"');
  });
});

function escapeAll(character: string): string {
  return Array.from(
    { length: character.length },
    (_, i) => `\\u${character.charCodeAt(i).toString(16).padStart(4, "0")}`,
  ).join("");
}
