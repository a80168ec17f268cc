import { describe, expect, it } from "vitest";
import { type Comparison, comparisonTable } from "../../src/comparison/table.ts";

const measured = { fid: 3, kid: 0.01, kidDeviation: 0.001, precision: 1, recall: 0.5 };
const model = {
  ...measured,
  name: "small",
  parameters: 1e6,
  gflops: 1,
  images: 100,
  minutes: 1,
  tflop: 0.3,
  loss: 0.2,
  lossKind: "error of the velocity",
  recognised: 0.5,
  secondsAnImage: 0.1,
  sampling: "30 × euler",
};
const comparison: Comparison = {
  data: "photos",
  budget: "1 min",
  extractor: "a small network",
  reference: "400 held-out pictures",
  drawn: 1000,
  referenced: 400,
  classes: { count: 4, known: 0.9 },
  noise: { ...measured, fid: 90, precision: 0.01 },
  models: [model],
};
const tableOf = (changes: Partial<Comparison> = {}) =>
  comparisonTable({ ...comparison, ...changes });

describe("the table of a comparison", () => {
  it("names the level of chance, and has the measures of noise", () => {
    const table = tableOf();
    expect(table).toContain("| recognised (chance 25.0 %) |");
    const rows = table.split("\n").filter((line) => line.startsWith("| "));
    expect(new Set(rows.map((line) => line.split("|").length)).size).toBe(1);
    expect(rows.at(-1)).toMatch(/^\| \*noise\* \|.*\| 90 \| 10 \| 1\.0 % \| 50\.0 % \|/);
    expect(table).not.toContain("say little");
  });

  it("warns of few pictures, and of an extractor near chance", () => {
    expect(tableOf({ referenced: 4 })).toContain("With 1000 drawn pictures and 4 real ones, FID");
    expect(tableOf({ classes: { count: 4, known: 0.3 } })).toContain(
      "recognises 30.0 % of real pictures, where guessing gives 25.0 %",
    );
    expect(tableOf({ classes: { count: 4, known: 0.6 } })).not.toContain("guessing");
  });
});
