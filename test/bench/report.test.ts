import { expect, test } from "vitest";
import { disagreement, reportOf, type Run, tableOf } from "../../bench/report.ts";
import type { ContenderName } from "../../bench/roster.ts";
import type { Suite } from "../../bench/suites.ts";

const suite: Suite = {
  description: "nothing at all",
  work: { threads: 2 },
  flops: 2e9,
  partFlops: { all: 2e9 },
  rounds: 3,
  warmups: 2,
  patienceMs: 1000,
  valueName: "loss",
  tensors: () => [],
};

function run(times: readonly number[], values = times.map(() => 1)): Run {
  const steps = times.map((ms, i) => ({ ms, value: values[i]!, parts: { all: ms } }));
  return { settings: "plain", steps, peakMemoryMb: 100 };
}

const runs = new Map<ContenderName, Run>([
  ["ours", run([900, 900, 10, 30, 20])],
  ["pytorch", run([900, 900, 60, 40])],
]);

test("ignores warm-up steps, and reports ratios of medians and the share of the peak", () => {
  const report = reportOf("train", suite, runs, 400, { tfjs: "not installed" });
  expect(report.ours).toMatchObject({
    median_ms: 20,
    min_ms: 10,
    peak_memory_mb: 100,
    gflops: 100,
  });
  expect(report.peers["pytorch"]).toMatchObject({ median_ms: 50, min_ms: 40, timed_steps: 2 });
  expect(report.ratio).toEqual({ pytorch: 2.5 });
  expect(report.fma_peak_share).toBe(0.25);
  expect(report.work).toEqual({ description: "nothing at all", gflop: 2, threads: 2 });
});

test("the share is null without a measured peak", () => {
  expect(reportOf("train", suite, runs, null, {}).fma_peak_share).toBeNull();
});

test("reports ratio and share of the peak for each part", () => {
  const parts = { half: 5e8, none: 1 };
  const halves = new Map<ContenderName, Run>(
    [...runs].map(([name, given]) => {
      const steps = given.steps.map((step) => ({ ...step, parts: { half: step.ms / 2 } }));
      return [name, { ...given, steps }];
    }),
  );
  const report = reportOf("sample", { ...suite, partFlops: parts }, halves, 400, {});
  expect(report.parts?.["half"]).toEqual({
    gflop: 0.5,
    ratio: { pytorch: 2.5 },
    fma_peak_share: 50 / 400,
  });
  expect(report.parts?.["none"]).toEqual({ gflop: 1e-9, ratio: {}, fma_peak_share: null });
});

test("compares whole results", () => {
  const steps = (result: readonly number[]) => [{ ms: 1, value: 1, result }];
  const against = (result: readonly number[]) =>
    new Map<ContenderName, Run>([
      ["ours", { ...run([]), steps: steps([3, 4]) }],
      ["pytorch", { ...run([]), steps: steps(result) }],
    ]);
  expect(disagreement(against([3.00001, 4.00001]), "checksum")).toBeUndefined();
  expect(disagreement(against([4, 3]), "checksum")).toMatch(/step 1 of ours and pytorch are 0\.28/);
  expect(disagreement(against([3, NaN]), "checksum")).toContain("NaN apart");
  expect(disagreement(against([3]), "checksum")).toContain("Infinity apart");
  const { peers } = reportOf("sample", { ...suite, warmups: 0 }, against([3, 9]), null, {});
  expect(peers["pytorch"]?.distance).toBe(1);
});

test("the table names every contender, and why one is missing", () => {
  const table = tableOf(reportOf("train", suite, runs, 400, { tfjs: "not installed" }));
  expect(table).toContain("ours");
  expect(table).toMatch(/pytorch +50\.0 +40\.0 +40\.0 +10\.0 %/);
  expect(table).toContain("tfjs: skipped, not installed");
});

test("values that differ are told with step, names and numbers", () => {
  expect(disagreement(runs, "loss")).toBeUndefined();
  const other = new Map<ContenderName, Run>([
    ["ours", run([1, 1, 1], [2, 1.5, 1])],
    ["jax-js", run([1, 1], [2.0001, 1.51])],
  ]);
  expect(disagreement(other, "loss")).toMatch(
    /loss of step 2 is 1\.5 for ours but 1\.51 for jax-js/,
  );
  const broken = new Map<ContenderName, Run>([
    ["ours", run([1], [2])],
    ["tfjs", run([1], [NaN])],
  ]);
  expect(disagreement(broken, "loss")).toContain("NaN for tfjs");
});
