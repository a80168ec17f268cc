/** Figures for Prometheus, in its text format (https://prometheus.io/docs/instrumenting/exposition_formats/). */
import { monitorEventLoopDelay } from "node:perf_hooks";
import type { JobTable } from "./jobs.ts";

export interface RequestCounter {
  add(method: string, status: number): void;
  entries(): Iterable<readonly [labels: string, count: number]>;
  /** The longest stall of the event loop since the last question, in seconds. */
  longestStall(): number;
  close(): void;
}

/** Counts answers by method and status, and watches the event loop. */
export function requestCounter(): RequestCounter {
  const counts = new Map<string, number>();
  const resolution = 10;
  const delay = monitorEventLoopDelay({ resolution });
  delay.enable();
  return {
    add(method, status) {
      const labels = `method="${method.replace(/[^A-Z]/g, "")}",status="${status}"`;
      counts.set(labels, (counts.get(labels) ?? 0) + 1);
    },
    entries: () => counts,
    longestStall() {
      // Each sample is the time between two ticks of the timer.
      const longest = delay.count === 0 ? 0 : delay.max / 1e9 - resolution / 1000;
      delay.reset();
      return Math.max(0, longest);
    },
    close: () => delay.disable(),
  };
}

export function metrics(jobs: JobTable, requests: RequestCounter): string {
  const { ended, seconds, steps, crashes } = jobs.counts;
  const rows = (name: string, type: "counter" | "gauge", help: string, values: Values) => [
    `# HELP patchwise_${name} ${help}`,
    `# TYPE patchwise_${name} ${type}`,
    ...[...values].map(
      ([labels, value]) => `patchwise_${name}${labels === "" ? "" : `{${labels}}`} ${value}`,
    ),
  ];
  const one = (value: number): Values => [["", value]];
  const by = (label: string, values: Readonly<Record<string, number>>): Values =>
    Object.entries(values).map(([key, value]) => [`${label}="${key}"`, value]);
  return `${[
    rows("jobs", "gauge", "Jobs that wait or are drawn.", by("state", jobs.lengths())),
    rows("jobs_ended_total", "counter", "Jobs that are over.", by("state", ended)),
    rows("job_seconds_total", "counter", "Time that succeeded jobs took to draw.", one(seconds)),
    rows("steps_total", "counter", "Steps that were drawn.", one(steps)),
    rows("processes", "gauge", "Processes that draw.", one(jobs.processes)),
    rows("process_crashes_total", "counter", "Processes that ended by themselves.", one(crashes)),
    rows("http_requests_total", "counter", "Answers.", requests.entries()),
    rows(
      "event_loop_stall_seconds",
      "gauge",
      "The longest stall of the event loop since the last question.",
      one(requests.longestStall()),
    ),
    rows(
      "resident_memory_bytes",
      "gauge",
      "Memory of the server's own process.",
      one(process.memoryUsage.rss()),
    ),
  ]
    .flat()
    .join("\n")}\n`;
}

type Values = Iterable<readonly [labels: string, value: number]>;
