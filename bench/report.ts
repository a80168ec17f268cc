/** Computes the result that `npm run bench` prints from measured steps. */
import type { ContenderName } from "./roster.ts";
import type { StepResult } from "./contender.ts";
import type { Suite } from "./suites.ts";

/** A step with the processor time that it took, in ms; null or absent if unknown. */
export type MeasuredStep = StepResult & { readonly processorMs?: number | null };

/** The measurements of one contender. */
export interface Run {
  readonly settings: string;
  /** Every step in order; the first ones warm up and are not timed. */
  readonly steps: readonly MeasuredStep[];
  /** Excludes pages of mapped files; null if unknown. */
  readonly peakMemoryMb: number | null;
  /** With the pages of mapped files that were resident; null or absent if unknown. */
  readonly peakTotalMb?: number | null;
}

export interface Timing {
  readonly median_ms: number;
  readonly min_ms: number;
  /** The median of the processor time of a step, in which reading results for the check is counted too; null if unknown. */
  readonly processor_ms: number | null;
  readonly peak_memory_mb: number | null;
  /** With the resident pages of mapped files, such as weights; null if unknown. */
  readonly peak_total_mb: number | null;
  readonly gflops: number;
  readonly timed_steps: number;
  readonly settings: string;
  /** The share of the network's outputs that a cache spared, if there is one. */
  readonly skipped_share?: number;
  /** Medians of the parts of a step, if it has parts. */
  readonly parts_ms?: Readonly<Record<string, number>>;
  /** These medians divided by that of one part, for suites that ask for it. */
  readonly parts_relative?: Readonly<Record<string, number>>;
  /** The loss or checksum of each step including the warm-up, on which contenders must agree. */
  readonly values: readonly number[];
  /** The largest relative distance of a step's result from ours, if steps have results. */
  readonly distance?: number;
  /** The least PSNR of a step's result to ours in dB, over the range of the former; for suites in which ours is approximate. */
  readonly psnr?: number;
}

export interface PartReport {
  readonly gflop: number;
  readonly ratio: Readonly<Record<string, number>>;
  readonly fma_peak_share: number | null;
}

export interface Report {
  readonly suite: string;
  readonly work: object;
  readonly ours: Timing | null;
  readonly peers: Readonly<Record<string, Timing>>;
  readonly ratio: Readonly<Record<string, number>>;
  /** The same by processor time, which a busy machine changes little. */
  readonly processor_ratio: Readonly<Record<string, number>>;
  readonly fma_peak_share: number | null;
  readonly fma_peak_gflops: number | null;
  /** The same for each part of a step, if it has parts. */
  readonly parts?: Readonly<Record<string, PartReport>>;
  /** The reasons for missing contenders, by name. */
  readonly skipped: Readonly<Record<string, string>>;
}

export function reportOf(
  name: string,
  suite: Suite,
  runs: ReadonlyMap<ContenderName, Run>,
  fmaPeakGflops: number | null,
  skipped: Readonly<Record<string, string>>,
): Report {
  const expected = runs.get("ours")?.steps ?? [];
  const timings = new Map(
    [...runs].map(([contender, run]) => [contender, timingOf(run, suite, expected)]),
  );
  const ours = timings.get("ours") ?? null;
  const peers = [...timings].filter(([contender]) => contender !== "ours");
  const share = (gflops: number): number | null =>
    fmaPeakGflops === null ? null : gflops / fmaPeakGflops;
  const ratioBy = (medianOf: (timing: Timing) => number | undefined): Record<string, number> => {
    const own = ours === null ? undefined : medianOf(ours);
    return Object.fromEntries(
      peers.flatMap(([peer, timing]) => {
        const other = medianOf(timing);
        return own === undefined || other === undefined ? [] : [[peer, other / own] as const];
      }),
    );
  };
  return {
    suite: name,
    work: { description: suite.description, gflop: suite.flops / 1e9, ...suite.work },
    ours,
    peers: Object.fromEntries(peers),
    ratio: ratioBy((timing) => timing.median_ms),
    processor_ratio: ratioBy((timing) => timing.processor_ms ?? undefined),
    fma_peak_share: ours === null ? null : share(ours.gflops),
    fma_peak_gflops: fmaPeakGflops,
    ...(suite.partFlops && {
      parts: Object.fromEntries(
        Object.entries(suite.partFlops).map(([part, flops]) => {
          const ms = ours?.parts_ms?.[part];
          return [
            part,
            {
              gflop: flops / 1e9,
              ratio: ratioBy((timing) => timing.parts_ms?.[part]),
              fma_peak_share: ms === undefined ? null : share(flops / 1e6 / ms),
            },
          ];
        }),
      ),
    }),
    skipped,
  };
}

function timingOf(run: Run, suite: Suite, expected: readonly MeasuredStep[]): Timing {
  const pairs = run.steps.flatMap(({ result }, i) => {
    const own = expected[i]?.result;
    return result && own ? [[result, own] as const] : [];
  });
  const processor = run.steps.slice(suite.warmups).map((step) => step.processorMs ?? NaN);
  const sum = (figure: (step: MeasuredStep) => number) =>
    run.steps.reduce((total, step) => total + figure(step), 0);
  const asked = sum((step) => step.skipped?.asked ?? 0);
  const timed = run.steps.slice(suite.warmups);
  const times = timed.map((step) => step.ms);
  const parts = Object.keys(timed[0]?.parts ?? {});
  const medianMs = median(times);
  const partsMs = Object.fromEntries(
    parts.map((part) => [part, median(timed.map((step) => step.parts?.[part] ?? NaN))]),
  );
  const one = suite.relativeTo === undefined ? undefined : partsMs[suite.relativeTo];
  return {
    median_ms: medianMs,
    min_ms: Math.min(...times),
    processor_ms: processor.every(Number.isFinite) ? median(processor) : null,
    peak_memory_mb: run.peakMemoryMb,
    peak_total_mb: run.peakTotalMb ?? null,
    gflops: suite.flops / 1e6 / medianMs,
    timed_steps: timed.length,
    settings: run.settings,
    ...(asked > 0 && { skipped_share: sum((step) => step.skipped?.reused ?? 0) / asked }),
    ...(parts.length > 0 && { parts_ms: partsMs }),
    ...(one !== undefined && {
      parts_relative: Object.fromEntries(parts.map((part) => [part, partsMs[part]! / one])),
    }),
    values: run.steps.map((step) => step.value),
    ...(pairs.length > 0 && {
      distance: Math.max(...pairs.map(([a, b]) => distance(a, b))),
      ...(suite.approximate && { psnr: Math.min(...pairs.map(([a, b]) => resultPsnr(b, a))) }),
    }),
  };
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/**
 * The relative tolerance of values. Rounding changes the losses of ten steps of `train` by less than 1e-6; mistakes such as
 * a missing 1/√d, an embedding that is not trained, or no bias correction change them by 1e-4 or more.
 */
const valueTolerance = 1e-4;

/** The tolerance of whole results, by `distance`. Rounding changes the latents of 50 steps of `sample` by 3e-7. */
const resultTolerance = 1e-5;

/** The relative distance ‖a − b‖ / ‖b‖ of a result from the expected one. */
function distance(a: readonly number[], b: readonly number[]): number {
  if (a.length !== b.length) return Infinity;
  let [apart, size] = [0, 0];
  for (const [i, expected] of b.entries()) {
    apart += (a[i]! - expected) ** 2;
    size += expected ** 2;
  }
  return size === 0 ? apart : Math.sqrt(apart / size);
}

/** The relative tolerance of results of 8-bit integers or skipped steps, which finds mistakes but no loss of quality. */
const approximateTolerance = 0.25;

/** 20·log₁₀(range / root of the mean square of a − b) in dB, with the range of the exact numbers b. */
function resultPsnr(a: readonly number[], b: readonly number[]): number {
  let [apart, least, most] = [0, Infinity, -Infinity];
  for (const [i, exact] of b.entries()) {
    apart += (a[i]! - exact) ** 2;
    least = Math.min(least, exact);
    most = Math.max(most, exact);
  }
  return 20 * Math.log10((most - least) / Math.sqrt(apart / b.length));
}

/** Describes the first step whose values differ too much; undefined if all agree. */
export function disagreement(
  runs: ReadonlyMap<ContenderName, Run>,
  { valueName, approximate = false }: Pick<Suite, "valueName" | "approximate">,
): string | undefined {
  const tolerance = approximate
    ? { value: approximateTolerance, result: approximateTolerance }
    : { value: valueTolerance, result: resultTolerance };
  const [reference, ...others] = runs;
  if (reference === undefined) return undefined;
  const cause = (limit: number) =>
    `they must agree to ${limit} relative, so one of the two does not do the work described.`;
  for (const [name, run] of others) {
    for (const [i, { value, comparable = true, result }] of run.steps.entries()) {
      const expected = reference[1].steps[i];
      if (expected === undefined) break;
      if (!comparable) continue;
      if (!(Math.abs(value - expected.value) <= tolerance.value * Math.abs(expected.value))) {
        return `The ${valueName} of step ${i + 1} is ${expected.value} for ${reference[0]} but ${value} for ${name}: ${cause(tolerance.value)}`;
      }
      const apart = distance(result ?? [], expected.result ?? []);
      if (!(apart <= tolerance.result)) {
        return `The results of step ${i + 1} of ${reference[0]} and ${name} are ${apart} apart: ${cause(tolerance.result)}`;
      }
    }
  }
  return undefined;
}

export function tableOf(report: Report): string {
  const rows = Object.entries({ ours: report.ours, ...report.peers });
  const peak = report.fma_peak_gflops;
  const approximate = rows.some(([, t]) => t?.psnr !== undefined);
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
            t.peak_memory_mb?.toFixed(0) ?? "-",
            String(t.timed_steps),
            report.ratio[name] === undefined ? "-" : report.ratio[name].toFixed(2),
            t.processor_ms?.toFixed(0) ?? "-",
            report.processor_ratio[name]?.toFixed(2) ?? "-",
            ...(approximate ? [t.psnr === undefined ? "-" : t.psnr.toFixed(1)] : []),
          ],
        ],
  );
  const header = ["", "median ms", "min ms", "GFLOP/s", "of peak", "memory MB", "steps", "vs ours"];
  header.push("processor ms", "vs ours", ...(approximate ? ["PSNR dB"] : []));
  const lines = aligned([header, ...cells]);
  const parts = rows.flatMap(([name, t]) => (t?.parts_ms ? [[name, t.parts_ms] as const] : []));
  if (parts.length > 0) {
    const partNames = Object.keys(parts[0]![1]);
    const cellOf = (of: Readonly<Record<string, number>>) =>
      partNames.map((part) => of[part]?.toFixed(2) ?? "-");
    lines.push("", "median ms of each part");
    lines.push(
      ...aligned([["", ...partNames], ...parts.map(([name, ms]) => [name, ...cellOf(ms)])]),
    );
    const relative = rows.flatMap(([name, t]) =>
      t?.parts_relative ? [[name, ...cellOf(t.parts_relative)]] : [],
    );
    if (relative.length > 0) {
      lines.push("", "the same, divided by one of them");
      lines.push(...aligned([["", ...partNames], ...relative]));
    }
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
