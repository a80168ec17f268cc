/** What keeps the code easy to carry on: a family is named in few places, and nothing is written twice. */
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { expect, it } from "vitest";
import { families } from "../../src/models/families.ts";

const root = path.resolve(import.meta.dirname, "../../src");
const sources = readdirSync(root, { recursive: true, encoding: "utf8" })
  .filter((file) => file.endsWith(".ts"))
  .map((file) => ({ file, text: readFileSync(path.join(root, file), "utf8") }));

it.each([...families.keys()])("names %s in at most three files", (kind) => {
  const naming = sources.filter(({ text }) => text.includes(`"${kind}"`)).map(({ file }) => file);
  expect(naming).not.toHaveLength(0);
  expect(naming.slice(3)).toEqual([]);
});

it("has no twelve equal lines in two places", () => {
  const first = new Map<string, string>();
  const twins: string[] = [];
  for (const { file, text } of sources) {
    const lines = text.split("\n").flatMap((line) => line.trim() || []);
    for (let i = 0; i + 12 <= lines.length; i++) {
      const run = lines.slice(i, i + 12).join("\n");
      const place = `${file}: ${lines[i]}`;
      const known = first.get(run);
      if (known === undefined) first.set(run, place);
      else twins.push(`${known} ~ ${place}`);
    }
  }
  expect(twins).toEqual([]);
});
