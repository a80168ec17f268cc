import { expect, it } from "vitest";
import { printable } from "../../src/engine/errors.ts";
import { writeJsonLine, writeLine, writeText } from "../../src/cli/terminal.ts";

const hostile = "a\u001b]0;pwned\u0007b\npatchwise: fake\u009b2J\u202e";
const shown = String.raw`a\u001b]0;pwned\u0007b\u000apatchwise: fake\u009b2J\u202e`;

function written(work: (stream: { write(text: string): void }) => void): string {
  let all = "";
  work({ write: (text) => void (all += text) });
  return all;
}

it("shows control characters instead of sending them to the terminal", () => {
  expect(printable(hostile)).toBe(shown);
  expect(printable("Grüße, 🧑‍🚀 “x” × 2")).toBe("Grüße, 🧑‍🚀 “x” × 2");
  expect(written((stream) => writeLine(stream, hostile))).toBe(`${shown}\n`);
});

it("keeps the lines of a text", () => {
  expect(written((stream) => writeText(stream, "a\u001b\nb\n"))).toBe("a\\u001b\nb\n");
});

it("writes JSON that says the same", () => {
  const line = written((stream) => writeJsonLine(stream, { error: hostile }));
  expect(line).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202e]/);
  expect(JSON.parse(line)).toEqual({ error: hostile });
});
