/**
 * `npm run bench -- attention [FILE.svg]`: the processor time of a forward pass and the peak of memory of a small DiT (2 blocks of width
 * 256) with each kind of attention on 256 to 16,384 tokens, one picture and one thread, on Linux. Exponents are fitted by least squares
 * to the logarithms from 1,024 tokens on: time ∝ tokens^exponent.
 */
import { execFile } from "node:child_process";
import { writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { promisify } from "node:util";
import { chart } from "../examples/chart.ts";
import { type AttentionKind, attentionKinds } from "./attention-work.ts";

/** Patches along a side. */
const sides = [16, 32, 64, 128];
const fittedFrom = 1024;

interface Measured {
  readonly tokens: number;
  readonly milliseconds: number;
  readonly megabytes: number;
}

/** The slope of log y over log x by least squares. */
export function exponentOf(points: readonly (readonly [x: number, y: number])[]): number {
  const logs = points.map(([x, y]) => [Math.log(x), Math.log(y)] as const);
  const mean = (axis: 0 | 1) => logs.reduce((sum, each) => sum + each[axis], 0) / logs.length;
  const [x, y] = [mean(0), mean(1)];
  const product = logs.reduce((sum, each) => sum + (each[0] - x) * (each[1] - y), 0);
  return product / logs.reduce((sum, each) => sum + (each[0] - x) ** 2, 0);
}

async function measured({ kind }: AttentionKind, side: number): Promise<Measured> {
  const script = resolve("bench/attention-run.ts");
  const args = [...process.execArgv, script, kind, String(side)];
  const { stdout } = await promisify(execFile)(process.execPath, args);
  return { tokens: side ** 2, ...(JSON.parse(stdout) as Omit<Measured, "tokens">) };
}

/** Measures all kinds, writes a chart of the times if a file is named, and returns a table in Markdown. */
export async function attentionTable(
  file: string | undefined,
  report: (line: string) => void,
): Promise<string> {
  const rows: { readonly kind: AttentionKind; readonly points: readonly Measured[] }[] = [];
  for (const kind of attentionKinds) {
    const points: Measured[] = [];
    for (const side of sides) {
      points.push(await measured(kind, side));
      report(`${kind.kind}: ${JSON.stringify(points.at(-1))}`);
    }
    rows.push({ kind, points });
  }
  if (file !== undefined) {
    const series = rows.map(({ kind, points }) => ({
      name: nameOf(kind),
      style: "both" as const,
      points: points.map(({ tokens, milliseconds }) => ({ x: tokens, y: milliseconds })),
    }));
    const svg = chart({
      title: "A forward pass by kind of attention",
      x: { label: "tokens", scale: "log" },
      y: { label: "processor time, ms", scale: "log" },
      series,
    });
    writeFileSync(file, svg);
  }
  return tableOf(rows);
}

function tableOf(
  rows: readonly { readonly kind: AttentionKind; readonly points: readonly Measured[] }[],
): string {
  const header = ["attention", ...sides.map((side) => `${side ** 2} tokens`), "exponent"];
  const lines = rows.map(({ kind, points }) => {
    const cells = points.map(
      ({ milliseconds, megabytes }) => `${milliseconds.toFixed(0)} ms, ${megabytes.toFixed(0)} MB`,
    );
    const large = points.filter(({ tokens }) => tokens >= fittedFrom);
    const exponent = exponentOf(
      large.map(({ tokens, milliseconds }) => [tokens, milliseconds] as const),
    );
    return [nameOf(kind), ...cells, exponent.toFixed(2)];
  });
  const all = [header, header.map((_, i) => (i === 0 ? "---" : "---:")), ...lines];
  return all.map((cells) => `| ${cells.join(" | ")} |`).join("\n");
}

function nameOf(kind: AttentionKind): string {
  if (kind.kind === "window") return `window, ${kind.size}`;
  if (kind.kind === "tile") return `tile, ${kind.size}, window ${kind.window}`;
  return kind.kind === "compressed" ? `compressed, ${kind.factor}` : kind.kind;
}
