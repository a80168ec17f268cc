/**
 * `npm run bench -- SUITE [--json] [--rounds N] [--threads N] [--only NAME,NAME]` runs Patchwise and its peers on
 * the same work. Every contender is a child process that lives for the whole run, and their steps alternate
 * (ours, peer, ours, next peer, …), so that drift of the machine cancels.
 * Progress goes to stderr, the result to stdout. Exit codes: 0 done, 1 failed or values disagree, 2 bad usage.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { type Child, startChild } from "./child.ts";
import { compileFmaPeak } from "./fma-peak.ts";
import { paretoTable } from "./pareto.ts";
import { disagreement, type MeasuredStep, reportOf, type Run, tableOf } from "./report.ts";
import { contenderNames, type ContenderName, entrants, launchOf } from "./roster.ts";
import { exactly, isOneOf, refused, type Settings } from "./settings.ts";
import { type Suite, suites, writeWork } from "./suites.ts";
import { cacheModes } from "../src/diffusion/step-cache.ts";
import { UsageError } from "../src/engine/errors.ts";
import { computations } from "../src/pipelines/compute.ts";

interface Options {
  readonly suiteName: string;
  readonly suite: Suite;
  readonly json: boolean;
  readonly rounds: number;
  readonly threads: number;
  readonly only: readonly ContenderName[];
}

interface Running {
  readonly name: ContenderName;
  readonly child: Child;
  readonly steps: MeasuredStep[];
}

/** A pause before each step, so that the threads of the previous contender go to sleep. */
const settleMs = 250;
/** The number of timed steps that even the slowest peer takes. */
const leastTimedSteps = 2;

const usage = `npm run bench -- SUITE [options]

Times Patchwise and other engines on the same work. SUITE is one of ${Object.keys(suites).join(", ")}.
"npm run bench -- pareto [PICTURES] [--model FOLDER] [--svg FILE]" measures what int8, the cache, fewer steps and guidance save on the
bundled model, or on a trained model of classes, and what they cost in PSNR, KID and prompt accuracy.
"npm run bench -- remedies [PICTURES] [--model FOLDER]" measures what each form of int8 changes, in the network's output and in drawings.
"npm run bench -- attention [FILE.svg]" measures time and memory of each kind of attention on 256 to 16,384 tokens.

The suite serve measures the server instead, ranks a training by one and by two ranks of MPI, and packed clips of different
sizes in one sequence, browser int8 beside float32 in headless Chromium; all take --json alone: see serve.ts, ranks.ts, packed.ts and browser.ts.

  --only NAME,…   runs these contenders alone: ${contenderNames.join(", ")}.
                  --only ours leaves out the peers, which take most of the time
  --rounds N      timed steps of each contender
  --threads N     threads of each contender (default: one per core)
  --compute int8  ours with products of 8-bit integers, the peers in float32 (sample, emoji, sd3)
  --cache MODE    ours with steps that are skipped, careful or fast (sample, emoji)
  --model FOLDER  with the weights of a trained DiT-S/2 instead of random ones, in whole drawings (sample)
  --depth N       with N blocks instead of 24, where memory is short (sd3)
  --json          prints one JSON object instead of a table`;

function readOptions(): Options | undefined {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      help: { type: "boolean", default: false },
      json: { type: "boolean", default: false },
      rounds: { type: "string" },
      threads: { type: "string", default: String(availableParallelism()) },
      only: { type: "string", default: contenderNames.join(",") },
      compute: { type: "string", default: exactly.compute },
      cache: { type: "string", default: exactly.cache },
      model: { type: "string" },
      depth: { type: "string" },
    },
  });
  if (values.help) return undefined;
  const suiteNames = Object.keys(suites);
  const [suiteName, ...rest] = positionals;
  const makeSuite = suiteName === undefined ? undefined : suites[suiteName];
  if (suiteName === undefined || makeSuite === undefined || rest.length > 0) {
    throw new RangeError(
      `"${positionals.join(" ")}" is not a suite: name one of ${suiteNames.join(", ")}, or see --help.`,
    );
  }
  const only = values.only.split(",").map((name) => {
    const known = contenderNames.find((contender) => contender === name);
    if (known !== undefined) return known;
    throw new RangeError(
      `--only ${name} is not a contender; choose from ${contenderNames.join(", ")}.`,
    );
  });
  const threads = positiveInteger("--threads", values.threads);
  const settings: Settings = {
    compute: isOneOf(computations, "compute", values.compute),
    cache: isOneOf(cacheModes, "cache", values.cache),
  };
  const depth = values.depth === undefined ? undefined : positiveInteger("--depth", values.depth);
  const suite = makeSuite(threads, settings, { model: values.model, depth });
  if (values.model !== undefined && !suite.takesModel) {
    throw new RangeError(`--model does not apply to the suite ${suiteName}; leave it out.`);
  }
  if (depth !== undefined && !suite.takesDepth) {
    throw new RangeError(`--depth does not apply to the suite ${suiteName}; leave it out.`);
  }
  const problem = refused(settings, suite.takes ?? [], suiteName);
  if (problem !== undefined) throw new RangeError(problem);
  return {
    suiteName,
    suite,
    json: values.json,
    rounds: positiveInteger("--rounds", values.rounds ?? String(suite.rounds)),
    threads,
    only,
  };
}

function positiveInteger(option: string, text: string): number {
  const value = Number(text);
  if (Number.isInteger(value) && value > 0) return value;
  throw new RangeError(`${option} ${text} is not a whole number above 0: give one.`);
}

function progress(text: string): void {
  process.stderr.write(`${text}\n`);
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function tired({ steps }: Running, { warmups, patienceMs }: Suite): boolean {
  const timed = steps.slice(warmups);
  const spent = timed.reduce((sum, { ms }) => sum + ms, 0);
  return spent > patienceMs && timed.length >= leastTimedSteps;
}

async function bench(options: Options, workDir: string): Promise<number> {
  const { suite, threads } = options;
  const running = new Map<ContenderName, Running>();
  const skipped: Record<string, string> = {};

  const skip = (name: ContenderName, why: string): void => {
    running.get(name)?.child.kill();
    running.delete(name);
    skipped[name] = why;
    progress(`${name}: skipped, ${why}`);
  };
  const attempt = async (name: ContenderName, action: () => Promise<void>): Promise<void> => {
    try {
      await action();
    } catch (error) {
      if (name === "ours") throw error;
      skip(name, messageOf(error));
    }
  };

  progress(`${options.suiteName}: ${suite.description}, ${(suite.flops / 1e9).toFixed(1)} GFLOP`);
  await writeWork(suite, workDir);
  const fma = await compileFmaPeak(workDir, threads);
  if (typeof fma === "string") progress(`FMA peak: not measured, ${fma}`);
  const peaks: number[] = [];
  const measurePeak = async (): Promise<void> => {
    if (typeof fma !== "string") peaks.push(await fma.measure());
  };

  for (const name of options.only) {
    const why = suite.absent?.[name];
    if (why !== undefined) skip(name, why);
  }
  try {
    for (const entrant of entrants(options.suiteName)) {
      const { name } = entrant;
      if (!options.only.includes(name)) continue;
      await attempt(name, async () => {
        const launch = await launchOf(entrant, workDir, threads);
        const child = typeof launch === "string" ? launch : await startChild(launch);
        if (typeof child === "string") {
          if (name === "ours") throw new Error(`Patchwise itself cannot run here: ${child}.`);
          return skip(name, child);
        }
        running.set(name, { name, child, steps: [] });
        progress(`${name}: ${child.settings}`);
      });
    }

    await measurePeak();
    const takeStep = async ({ name, child, steps }: Running): Promise<void> => {
      await sleep(settleMs);
      await attempt(name, async () => {
        const step = await child.step();
        const note = steps.length < suite.warmups ? " (warm-up)" : "";
        steps.push(step);
        progress(`${name}: ${step.ms.toFixed(1)} ms, ${suite.valueName} ${step.value}${note}`);
      });
    };
    const ours = running.get("ours");
    for (let round = 0; round < suite.warmups + options.rounds; round++) {
      const peers = [...running.values()].filter(
        (entrant) => entrant !== ours && !tired(entrant, suite),
      );
      if (ours !== undefined && peers.length === 0) await takeStep(ours);
      for (const peer of peers) {
        if (ours !== undefined) await takeStep(ours);
        await takeStep(peer);
      }
      await measurePeak();
    }

    const runs = new Map<ContenderName, Run>();
    for (const { name, child, steps } of running.values()) {
      runs.set(name, {
        settings: child.settings,
        steps,
        peakMemoryMb: child.peakMb(),
        peakTotalMb: child.peakTotalMb(),
      });
    }
    const peak = peaks.length > 0 ? Math.max(...peaks) : null;
    const report = reportOf(options.suiteName, suite, runs, peak, skipped);
    const output = options.json ? JSON.stringify(report) : tableOf(report);
    process.stdout.write(`${output}\n`);
    const problem = disagreement(runs, suite);
    if (problem === undefined) return 0;
    progress(problem);
    return 1;
  } finally {
    for (const { child } of running.values()) child.kill();
  }
}

async function pareto(): Promise<number> {
  const { values, positionals } = parseArgs({
    args: process.argv.slice(3),
    allowPositionals: true,
    options: { model: { type: "string" }, svg: { type: "string" } },
  });
  const pictures = positiveInteger("PICTURES", positionals[0] ?? "16");
  process.stdout.write(`${await paretoTable({ pictures, ...values }, progress)}\n`);
  return 0;
}

async function remedies(): Promise<number> {
  const { values, positionals } = parseArgs({
    args: process.argv.slice(3),
    allowPositionals: true,
    options: { model: { type: "string" } },
  });
  const pictures = positiveInteger("PICTURES", positionals[0] ?? "8");
  const { remediesTable } = await import("./remedies.ts");
  process.stdout.write(`${await remediesTable({ pictures, ...values }, progress)}\n`);
  return 0;
}

async function main(): Promise<number> {
  if (process.argv[2] === "pareto") {
    return pareto();
  }
  if (process.argv[2] === "remedies") {
    return remedies();
  }
  if (process.argv[2] === "attention") {
    const { attentionTable } = await import("./attention.ts");
    process.stdout.write(`${await attentionTable(process.argv[3], progress)}\n`);
    return 0;
  }
  if (process.argv[2] === "serve") {
    const { benchServer } = await import("./serve.ts");
    return benchServer(process.argv.includes("--json"));
  }
  if (process.argv[2] === "packed") {
    const { benchPacked, packedTable } = await import("./packed.ts");
    const report = await benchPacked();
    const json = process.argv.includes("--json");
    process.stdout.write(`${json ? JSON.stringify(report) : packedTable(report)}\n`);
    return 0;
  }
  if (process.argv[2] === "browser") {
    const { benchBrowser, browserTable } = await import("./browser.ts");
    const rows = await benchBrowser(progress);
    const json = process.argv.includes("--json");
    process.stdout.write(`${json ? JSON.stringify(rows) : browserTable(rows)}\n`);
    return 0;
  }
  if (process.argv[2] === "ranks") {
    const { benchRanks } = await import("./ranks.ts");
    const report = await benchRanks(progress);
    const [one, two] = report.imagesPerSecond;
    const planned = report.planned.map((speed) => speed.toFixed(2)).join(" and ");
    const line = `${report.mpi}: one rank ${one.toFixed(2)}, two ranks ${two.toFixed(2)} images/s (planned ${planned}), ratio ${report.ratio.toFixed(2)}; losses differ by up to ${report.lossDifference.toExponential(1)}`;
    process.stdout.write(`${process.argv.includes("--json") ? JSON.stringify(report) : line}\n`);
    return 0;
  }
  let options: Options | undefined;
  try {
    options = readOptions();
  } catch (error) {
    progress(messageOf(error));
    return 2;
  }
  if (!options) {
    process.stdout.write(`${usage}\n`);
    return 0;
  }
  const workDir = mkdtempSync(join(tmpdir(), "patchwise-bench-"));
  try {
    return await bench(options, workDir);
  } catch (error) {
    progress(messageOf(error));
    return 1;
  } finally {
    rmSync(workDir, { recursive: true, force: true });
  }
}

process.exitCode = await main().catch((error: unknown) => {
  if (!(error instanceof RangeError || error instanceof UsageError)) throw error;
  progress(error.message);
  return 2;
});
