import { expect, test } from "vitest";
import { disagreement, reportOf, type Run, tableOf } from "../../bench/report.ts";
import type { ContenderName } from "../../bench/roster.ts";
import { isOneOf, refused } from "../../bench/settings.ts";
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
  expect(disagreement(against([3.00001, 4.00001]), { valueName: "checksum" })).toBeUndefined();
  expect(disagreement(against([4, 3]), { valueName: "checksum" })).toMatch(
    /step 1 of ours and pytorch are 0\.28/,
  );
  expect(disagreement(against([3, NaN]), { valueName: "checksum" })).toContain("NaN apart");
  expect(disagreement(against([3]), { valueName: "checksum" })).toContain("Infinity apart");
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
  expect(disagreement(runs, suite)).toBeUndefined();
  const other = new Map<ContenderName, Run>([
    ["ours", run([1, 1, 1], [2, 1.5, 1])],
    ["jax-js", run([1, 1], [2.0001, 1.51])],
  ]);
  expect(disagreement(other, suite)).toMatch(
    /loss of step 2 is 1\.5 for ours but 1\.51 for jax-js/,
  );
  const apart: Run = { ...run([], []), steps: [{ ms: 1, value: 0, comparable: false }] };
  const timed = new Map<ContenderName, Run>([
    ["ours", run([1], [2])],
    ["qvac", apart],
  ]);
  expect(disagreement(timed, suite)).toBeUndefined();
  const broken = new Map<ContenderName, Run>([
    ["ours", run([1], [2])],
    ["tfjs", run([1], [NaN])],
  ]);
  expect(disagreement(broken, suite)).toContain("NaN for tfjs");
});

test("what ours computes approximately may differ, and its distance is stated", () => {
  const steps = (result: readonly number[]) => [
    { ms: 1, value: 1, result, processorMs: 4, skipped: { asked: 4, reused: 1 } },
  ];
  const given = new Map<ContenderName, Run>([
    ["ours", { ...run([]), steps: steps([0, 10]) }],
    ["pytorch", { ...run([]), steps: steps([0, 10.1]) }],
  ]);
  const int8 = { ...suite, warmups: 0, approximate: true };
  expect(disagreement(given, suite)).toContain("must agree to 0.00001");
  expect(disagreement(given, int8)).toBeUndefined();
  const { ours, peers, processor_ratio } = reportOf("sample", int8, given, null, {});
  expect(ours).toMatchObject({ processor_ms: 4, skipped_share: 0.25 });
  expect(processor_ratio).toEqual({ pytorch: 1 });
  expect(peers["pytorch"]!.distance).toBeCloseTo(0.01, 12);
  expect(peers["pytorch"]!.psnr).toBeCloseTo(20 * Math.log10(10.1 / (0.1 / Math.sqrt(2))), 9);
});

test("settings are refused by suites that do not take them", () => {
  const settings = { compute: "int8", cache: "off" } as const;
  expect(refused(settings, ["compute"], "sd3")).toBeUndefined();
  expect(refused(settings, [], "train")).toBe(
    "--compute int8 does not apply to the suite train; leave it out.",
  );
  expect(() => isOneOf(["off", "fast"], "cache", "slow")).toThrow(
    "--cache slow is not known; choose from off, fast.",
  );
});
