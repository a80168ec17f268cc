/** From measured steps to the result that `npm run bench` prints. */
import type { ContenderName } from "./roster.ts";
import type { StepResult } from "./contender.ts";
import type { Suite } from "./suites.ts";

/** What was seen of one contender. */
export interface Run {
  readonly settings: string;
  /** Every step in order; the first ones warm up and are not timed. */
  readonly steps: readonly StepResult[];
  readonly peakRssMb: number;
}

export interface Timing {
  readonly median_ms: number;
  readonly min_ms: number;
  readonly peak_rss_mb: number;
  readonly gflops: number;
  readonly timed_steps: number;
  readonly settings: string;
  /** Medians of the parts of a step, where it has any. */
  readonly parts_ms?: Readonly<Record<string, number>>;
  /** What each step gave, warm-up included: the losses or checksums that must agree. */
  readonly values: readonly number[];
}

export interface Report {
  readonly suite: string;
  readonly work: object;
  readonly ours: Timing | null;
  readonly peers: Readonly<Record<string, Timing>>;
  readonly ratio: Readonly<Record<string, number>>;
  readonly fma_peak_share: number | null;
  readonly fma_peak_gflops: number | null;
  /** Why a contender is missing, by name. */
  readonly skipped: Readonly<Record<string, string>>;
}

/** The second step still grows the heap to its size on some machines. */
export const warmupSteps = 2;

export function reportOf(
  name: string,
  suite: Suite,
  runs: ReadonlyMap<ContenderName, Run>,
  fmaPeakGflops: number | null,
  skipped: Readonly<Record<string, string>>,
): Report {
  const timings = new Map([...runs].map(([contender, run]) => [contender, timingOf(run, suite)]));
  const ours = timings.get("ours") ?? null;
  const peers = [...timings].filter(([contender]) => contender !== "ours");
  return {
    suite: name,
    work: { description: suite.description, gflop: suite.flops / 1e9, ...suite.work },
    ours,
    peers: Object.fromEntries(peers),
    ratio:
      ours === null
        ? {}
        : Object.fromEntries(peers.map(([peer, t]) => [peer, t.median_ms / ours.median_ms])),
    fma_peak_share: ours === null || fmaPeakGflops === null ? null : ours.gflops / fmaPeakGflops,
    fma_peak_gflops: fmaPeakGflops,
    skipped,
  };
}

function timingOf(run: Run, suite: Suite): Timing {
  const timed = run.steps.slice(warmupSteps);
  const times = timed.map((step) => step.ms);
  const parts = Object.keys(timed[0]?.parts ?? {});
  const medianMs = median(times);
  return {
    median_ms: medianMs,
    min_ms: Math.min(...times),
    peak_rss_mb: run.peakRssMb,
    gflops: suite.flops / 1e6 / medianMs,
    timed_steps: timed.length,
    settings: run.settings,
    ...(parts.length > 0 && {
      parts_ms: Object.fromEntries(
        parts.map((part) => [part, median(timed.map((step) => step.parts?.[part] ?? NaN))]),
      ),
    }),
    values: run.steps.map((step) => step.value),
  };
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/**
 * Relative. Rounding alone moves the losses of ten steps of `train` by less than 1e-6, the mistakes tried (a
 * missing 1/√d, an embedding that does not learn, no bias correction) by 1e-4 and more.
 */
const valueTolerance = 1e-4;

/** One sentence about the first step whose values differ too much; undefined where all agree. */
export function disagreement(
  runs: ReadonlyMap<ContenderName, Run>,
  valueName: string,
): string | undefined {
  const [reference, ...others] = runs;
  if (reference === undefined) return undefined;
  for (const [name, run] of others) {
    for (const [i, { value }] of run.steps.entries()) {
      const expected = reference[1].steps[i]?.value;
      if (expected === undefined) break;
      if (!(Math.abs(value - expected) <= valueTolerance * Math.abs(expected))) {
        return (
          `The ${valueName} of step ${i + 1} is ${expected} for ${reference[0]} but ${value} for ${name}: ` +
          `they must agree to ${valueTolerance} relative, so one of the two does not do the work described.`
        );
      }
    }
  }
  return undefined;
}

export function tableOf(report: Report): string {
  const rows = Object.entries({ ours: report.ours, ...report.peers });
  const peak = report.fma_peak_gflops;
  const cells = rows.flatMap(([name, t]) =>
    t === null
      ? []
      : [
          [
            name,
            t.median_ms.toFixed(1),
            t.min_ms.toFixed(1),
            t.gflops.toFixed(1),
            peak === null ? "-" : `${((100 * t.gflops) / peak).toFixed(1)} %`,
            t.peak_rss_mb.toFixed(0),
            String(t.timed_steps),
            report.ratio[name] === undefined ? "-" : report.ratio[name].toFixed(2),
          ],
        ],
  );
  const header = ["", "median ms", "min ms", "GFLOP/s", "of peak", "RSS MB", "steps", "vs ours"];
  const lines = aligned([header, ...cells]);
  const parts = rows.flatMap(([name, t]) => (t?.parts_ms ? [[name, t.parts_ms] as const] : []));
  if (parts.length > 0) {
    const partNames = Object.keys(parts[0]![1]);
    lines.push("", "median ms of each part");
    lines.push(
      ...aligned([
        ["", ...partNames],
        ...parts.map(([name, ms]) => [name, ...partNames.map((part) => ms[part]!.toFixed(2))]),
      ]),
    );
  }
  lines.push("", ...rows.flatMap(([name, t]) => (t === null ? [] : [`${name}: ${t.settings}`])));
  lines.push(...Object.entries(report.skipped).map(([name, why]) => `${name}: skipped, ${why}`));
  lines.push(
    peak === null ? "FMA peak: not measured" : `FMA peak: ${peak.toFixed(1)} GFLOP/s, measured`,
  );
  return lines.join("\n");
}

function aligned(rows: readonly (readonly string[])[]): string[] {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  return rows.map((row) =>
    row
      .map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)))
      .join("  ")
      .trimEnd(),
  );
}
