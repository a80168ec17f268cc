import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { expect, it } from "vitest";

const root = path.resolve(import.meta.dirname, "../..");
const page = readFileSync(path.join(root, "SECURITY.md"), "utf8");

/** The last cell of each row, such as "`test/a.test.ts`: reads a file". */
const shown = page
  .split("\n")
  .filter((line) => line.startsWith("|") && line.includes("`test/"))
  .map((line) => line.split(" | ").at(-1)!.replace(/ \|$/, ""));

it("names a test in every row of SECURITY.md", () => {
  const rows = page.split("\n").filter((line) => /^\| (?!---|what \|)/.test(line));
  expect(rows.length).toBeGreaterThan(20);
  expect(shown).toHaveLength(rows.length);
});

it.each(shown)("has the test %s", (cell) => {
  const [, file, title] = /^`(test\/[\w/-]+\.test\.ts)`: (.+)$/.exec(cell) ?? [];
  expect({ cell, file: typeof file }).toEqual({ cell, file: "string" });
  expect(existsSync(path.join(root, file!))).toBe(true);
  const text = readFileSync(path.join(root, file!), "utf8");
  expect(text.includes(`"${title}`) || text.includes(`\`${title}`)).toBe(true);
});
