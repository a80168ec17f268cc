import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parseCsv } from "../../src/data/formats/metadata-node.ts";
import { FormatError } from "../../src/engine/errors.ts";
import { outcomeOf } from "./support.ts";

const letters = (text: string) => fc.constantFrom(...text.split(""));
const fieldsOf = (text: string) => parseCsv(text, "t.csv").map(({ fields }) => fields);

describe("parseCsv", () => {
  it("splits rows into fields, quoted or not", () => {
    expect(fieldsOf('a,b\n1,"x, ""y""\nz"\n,\n')).toEqual([
      ["a", "b"],
      ["1", 'x, "y"\nz'],
      ["", ""],
    ]);
  });

  it("accepts any line ending, a byte order mark and empty lines", () => {
    expect(fieldsOf("\ufeffa,b\r\n1,2\r\n\r\n3,4\r5,6")).toEqual([
      ["a", "b"],
      ["1", "2"],
      ["3", "4"],
      ["5", "6"],
    ]);
    expect(fieldsOf("")).toEqual([]);
  });

  it("reports the line on which a row begins", () => {
    const linesOf = (text: string) => parseCsv(text, "t.csv").map(({ line }) => line);
    expect(linesOf('a\n"1\n2"\n3')).toEqual([1, 2, 4]);
    expect(linesOf('a\r\n"1\r\n2"\r\n3\r\n"4\r\n5"\r\n\r\n6')).toEqual([1, 2, 4, 5, 8]);
  });

  it.each([
    ["line 2 has 3 fields, but the first row has 2", "a,b\n1,2,3\n"],
    ["line 2 opens a quote that is never closed", 'a\n"b\nc'],
    ["line 1 continues after a closing quote", '"a"b,c'],
    ["line 3 has a quote inside a field", 'a\nb\nc"d'],
  ])("refuses a table in which %s", (message, text) => {
    expect(() => fieldsOf(text)).toThrow(FormatError);
    expect(() => fieldsOf(text)).toThrow(message);
  });

  it("reads back any table that is written by RFC 4180", () => {
    const quoted = (field: string) => `"${field.replaceAll('"', '""')}"`;
    const field = fc.string({ unit: letters('ab,"\n\r é') });
    const table = fc
      .integer({ min: 1, max: 4 })
      .chain((width) =>
        fc.array(fc.array(field, { minLength: width, maxLength: width }), { maxLength: 5 }),
      );
    fc.assert(
      fc.property(table, fc.constantFrom("\n", "\r\n"), (rows, end) => {
        const text = rows.map((row) => row.map(quoted).join(",") + end).join("");
        // A row of one empty field is an empty line.
        const kept = rows.filter((row) => row.length > 1 || row[0] !== "");
        expect(fieldsOf(text)).toEqual(kept);
      }),
    );
  });

  it("parses any text or throws a FormatError", () => {
    fc.assert(
      fc.property(fc.string({ unit: letters('a,"\n\r') }), (text) => {
        const widths = new Set<number>();
        const outcome = outcomeOf(() => {
          for (const { length } of fieldsOf(text)) widths.add(length);
        });
        expect(["done", "FormatError"]).toContain(outcome);
        expect(widths.size).toBeLessThanOrEqual(1);
      }),
      { numRuns: 2000, seed: 3 },
    );
  });
});
