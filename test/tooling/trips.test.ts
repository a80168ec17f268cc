import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";

const root = path.join(import.meta.dirname, "../..");
const architecture = readFileSync(path.join(root, "ARCHITECTURE.md"), "utf8");

/** The first word of each line of the first fenced list below a heading. */
function tripBelow(heading: string): string[] {
  const [, section] = architecture.split(`\n## ${heading}\n`);
  const [, list] = /\n```text\n([^`]*(?:`(?!``)[^`]*)*)\n```\n/.exec(section ?? "") ?? [];
  expect(list, `no list below "${heading}"`).toBeDefined();
  return list!.split("\n").map((line) => line.split(/\s/)[0]!);
}

/** Paths of the files of src/ that a file imports, itself or in a thread that it starts. */
function importsOf(file: string): string[] {
  const text = readFileSync(path.join(root, file), "utf8");
  const own = [...text.matchAll(/(?:from |import\()"(\.{1,2}\/[^"]+)"/g)].map(([, specifier]) =>
    path.posix.join(path.posix.dirname(file), specifier!),
  );
  const threads = [...text.matchAll(/moduleFile\("([^"]+)"\)/g)].map(
    ([, name]) => `src/${name}.ts`,
  );
  return [...own, ...threads.flatMap(importsOf)];
}

describe.each<[heading: string, most: number]>([
  ["From pictures to a model", 14],
  ["From a prompt to pictures: the bundled model", 9],
  ["From a prompt to pictures: a Stable Diffusion 3 folder", 15],
])("%s", (heading, most) => {
  it(`can be followed in at most ${most} files`, () => {
    const trip = tripBelow(heading);
    expect(trip.length).toBeGreaterThan(5);
    expect(trip.length).toBeLessThanOrEqual(most);
    expect(new Set(trip).size).toBe(trip.length);
  });

  it("lists files that exist, each of which is imported by one above it", () => {
    const trip = tripBelow(heading);
    expect(trip.filter((file) => !existsSync(path.join(root, file)))).toEqual([]);
    const strangers = trip.filter(
      (file, i) => i > 0 && !trip.slice(0, i).some((above) => importsOf(above).includes(file)),
    );
    expect(strangers).toEqual([]);
  });
});
