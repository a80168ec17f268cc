import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { png } from "../data/support.ts";
import { oneSentence, patchwise } from "../support/cli.ts";

const scratch = mkdtempSync(path.join(tmpdir(), "patchwise-plan-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));
const plan = (...args: string[]) =>
  patchwise(["plan", path.join(scratch, "plan.yaml"), ...args], scratch);

beforeAll(async () => {
  mkdirSync(path.join(scratch, "photos"));
  for (let i = 0; i < 4; i++) writeFileSync(path.join(scratch, "photos", `${i}.png`), await png(i));
  writeFileSync(
    path.join(scratch, "plan.yaml"),
    `data: { kind: images, path: ${JSON.stringify(path.join(scratch, "photos"))} }
picture: { size: 16 }
model: { patch: 4, hidden: 32, depth: 1, heads: 1 }
training: { steps: 10, batch: 8, threads: 1 }
`,
  );
});

it("measures a step, and plans as many ranks as divide the batch", () => {
  const plot = path.join(scratch, "plan.svg");
  const { code, out } = plan("--json", "--price", "2", "--plot", plot);
  expect(code).toBe(0);
  const { costs, ranks, pictures } = JSON.parse(out) as {
    costs: { parameters: number; alone: { fixed: number; perRow: number } };
    ranks: Record<string, number>[];
    pictures: number;
  };
  expect(pictures).toBe(80);
  expect(costs.parameters).toBeGreaterThan(10_000);
  expect(ranks.map((row) => row["ranks"])).toEqual([1, 2, 8]);
  for (const row of ranks) {
    expect(row["cost"]).toBeCloseTo(2 * row["rankHours"]!);
    expect(row["stepSeconds"]).toBeGreaterThan(0);
    expect(row["memoryBytes"]).toBeGreaterThan(4 * 4 * costs.parameters);
  }
  expect(ranks[0]!["stepSeconds"]).toBeCloseTo(costs.alone.fixed + 8 * costs.alone.perRow);
  expect(readFileSync(plot, "utf8").match(/<circle/g)).toHaveLength(3);
});

it.runIf(availableParallelism() > 1)(
  "measures a rank while the others of this machine take their steps, and leaves none of them behind",
  () => {
    const { code, out } = plan("--json", "--link", "local", "--ranks", "1,2");
    expect(code).toBe(0);
    const { costs, ranks } = JSON.parse(out) as {
      costs: { beside: Record<string, { fixed: number; perRow: number }> };
      ranks: { stepSeconds: number; reduceSeconds: number; rows: number }[];
    };
    expect(Object.keys(costs.beside)).toEqual(["2"]);
    const [, { stepSeconds, reduceSeconds, rows }] = ranks as [object, (typeof ranks)[0]];
    const { fixed, perRow } = costs.beside["2"]!;
    expect(rows).toBe(4);
    expect(fixed).toBeGreaterThan(0);
    expect(stepSeconds - reduceSeconds).toBeCloseTo(fixed + 4 * perRow);
    const commands = spawnSync("ps", ["-eo", "args"], { encoding: "utf8" }).stdout;
    expect(commands).not.toMatch(/busy-rank-process-node/);
  },
  60_000,
);

it("prints a table and what it assumes, for a processor that is not here", () => {
  const { code, out } = plan(
    "--speed",
    "10",
    "--memory-rate",
    "50",
    "--ranks",
    "1,4",
    "--link",
    "100",
  );
  expect(code).toBe(0);
  expect(out).toMatch(
    /^ranks +rows +memory +step +all-reduce +images\/s +efficiency +80 pictures +rank-hours$/m,
  );
  expect(out).toMatch(/^ +4 +2 /m);
  expect(out).toContain("It assumes: 10 Tflop/s in every product, and 50 GB/s");
});

it.each([
  [["--ranks", "3"], "training.batch is 8, which 3 processes cannot share"],
  [["--ranks", "two"], "--ranks is"],
  [["--link", "0"], "--link is 0; give a number above 0"],
  [["--link", "1e300"], "--link is 1e+300; give a number from 1e-9 to 1000000000000000"],
  [["--speed", "1e-308"], "--speed is 1e-308; give a number from 1e-9 to"],
  [["--pictures", "0.5"], "--pictures is 0.5; give a whole number"],
  [
    ["--plot", path.join("missing", "plan.svg")],
    "Cannot write into the folder missing: there is no",
  ],
  [["--memory-rate", "50"], "--memory-rate belongs to --speed"],
  [["--plot", "plan.png"], "name a file that ends in .svg"],
])("refuses %j with a sentence", (args, message) => {
  const { code, err } = plan(...args);
  expect(code).toBe(2);
  expect(err).toMatch(oneSentence);
  expect(err).toContain(message);
});
