/** Measures what a training step takes on this machine, as one process and as a rank of several. */
import { once } from "node:events";
import { availableParallelism as cores } from "node:os";
import { Worker } from "node:worker_threads";
import { UsageError } from "../../engine/errors.ts";
import { countElements } from "../../engine/passes/cost.ts";
import type { Backend } from "../../engine/runtime/backend.ts";
import { closing } from "../../weights/sources/closing.ts";
import { keepFreedMemory } from "../collective/freed-memory-node.ts";
import type { RunConfig } from "../config/config.ts";
import type { Task } from "../loop.ts";
import { rankMemory } from "../memory.ts";
import type { TrainingStep } from "../step.ts";
import { createTrainer, type Trainer } from "../trainer.ts";
import { type BusyRank, besideBusyRanks } from "./busy-ranks-node.ts";
import type { Line, RankCosts } from "./plan.ts";
import { rankTrainer, zeroInputs } from "./rank-steps.ts";

/** The most multiply-adds of a measured forward pass, which bounds the examples of a step. */
const MOST_WORK = 2e11;

/** A training whose steps are measured. */
export interface MeasuredTraining {
  readonly backend: Backend;
  /** The step of one batch. */
  readonly step: TrainingStep;
  readonly task: Pick<Task, "initial" | "trained" | "multiplyAdds">;
  /** Its batch has the most examples of a step. */
  readonly training: RunConfig["training"];
  /** Bytes of memory. */
  readonly available: number | undefined;
}

/** Ranks that share the cores of this machine. */
export interface LocalRanks extends Pick<BusyRank, "given" | "out"> {
  /** The numbers of ranks. */
  readonly counts: readonly number[];
}

/**
 * Measures steps of two sizes, each as one program and as two, on zeros: the middle of three after one that does
 * not count, by processor time for a single thread and by the clock otherwise.
 *
 * @param local measures also the step of a rank while the others of this machine take theirs
 * @throws UsageError if measuring takes more than the available memory
 */
export async function measuredCosts(
  measured: MeasuredTraining,
  local?: LocalRanks,
): Promise<RankCosts> {
  const { backend, step, task, training, available } = measured;
  const { batch, threads, shardOptimizer, localSteps } = training;
  const parameters = countElements(Object.values(task.trained));
  const memory = rankMemory(step, parameters, training);
  const most = Math.min(batch, Math.max(2, Math.floor(MOST_WORK / task.multiplyAdds())));
  const counts = local?.counts.filter((ranks) => ranks > 1) ?? [];
  const rowsOf = (ranks: number) => Math.min(most, batch / ranks);
  const needed = Math.max(
    memory(most, 1),
    memory(most, 2),
    ...counts.map((ranks) => ranks * memory(rowsOf(ranks), ranks)),
  );
  if (available !== undefined && needed > available) {
    throw new UsageError(
      `Measuring a step of this training takes ${gigabytes(needed)}, and ${gigabytes(available)} are free; give the speed of the ranks as --speed, with which nothing is run.`,
    );
  }
  const own = threads ? { threads } : {};
  const single = await createTrainer(backend, step, await task.initial(), own);
  const whole = await timesOf(single, measured, most);
  keepFreedMemory();
  const ranked = await timesOf(await rankTrainer(backend, step, task, training, 2), measured, most);
  const [alone, together] = linesThrough(sizes(most), [whole, ranked]);
  const beside: Record<number, Line> = {};
  for (const ranks of counts) {
    const rows = rowsOf(ranks);
    const shared = { ...training, threads: threads ?? Math.floor(cores() / ranks) };
    const work = { ...local!, ranks, rows, threads: shared.threads };
    const times = await besideBusyRanks(work, async () => {
      const trainer = await rankTrainer(backend, step, task, shared, ranks);
      return timesOf(trainer, { step, training: shared }, rows);
    });
    beside[ranks] = linesThrough(sizes(rows), [times])[0]!;
  }
  return {
    parameters,
    alone: alone!,
    together: together!,
    beside,
    shards: shardOptimizer,
    localSteps: localSteps?.steps,
    copyRate: measuredCopyRate(),
    memory,
  };
}

/** The numbers of examples of the two steps that are measured, of which the second is the larger one. */
function sizes(rows: number): readonly [few: number, many: number] {
  return [Math.ceil(rows / 4), rows];
}

/** Measures steps of a trainer with two numbers of examples, and disposes of it. */
async function timesOf(
  trainer: Trainer,
  { step, training: { threads } }: Pick<MeasuredTraining, "step" | "training">,
  rows: number,
): Promise<readonly [short: number, long: number]> {
  const [few, many] = sizes(rows);
  const clock = threads === 1 ? processorSeconds : wallSeconds;
  return closing({ close: () => trainer.dispose() }, async () => {
    const short = await usual(() => trainer.step(zeroInputs(step, few)), clock);
    return [short, await usual(() => trainer.step(zeroInputs(step, many)), clock)];
  });
}

/**
 * Lines of one slope, since both kinds of step compute the same for an example, each through its time for the larger number.
 *
 * @param times of each kind, for both numbers of examples
 */
export function linesThrough(
  [few, many]: readonly [number, number],
  times: readonly (readonly [short: number, long: number])[],
): readonly Line[] {
  const rises = times.map(([short, long]) =>
    few === many ? long / many : (long - short) / (many - few),
  );
  const mean = rises.reduce((sum, rise) => sum + rise, 0) / rises.length;
  const most = Math.min(...times.map(([, long]) => long)) / many;
  const perRow = Math.min(most, Math.max(0, mean));
  return times.map(([, long]) => ({ fixed: long - perRow * many, perRow }));
}

/** Bytes a second that memory copies. */
export function measuredCopyRate(): number {
  const from = new Float32Array(2 ** 23).fill(1);
  const to = new Float32Array(from.length);
  let least = Infinity;
  for (let i = 0; i < 4; i++) {
    const begun = performance.now();
    to.set(from);
    least = Math.min(least, performance.now() - begun);
  }
  return from.byteLength / (least / 1000);
}

/**
 * Bytes a second that each of several cores copies while all of them do.
 *
 * @param counts numbers of cores, up to those of this machine
 */
export async function measuredCopyRates(
  counts: readonly number[],
): Promise<Record<number, number>> {
  const rates: Record<number, number> = {};
  for (const count of counts) {
    const others = Array.from({ length: count - 1 }, () => new Worker(copying, { eval: true }));
    await Promise.all(others.map((worker) => once(worker, "message")));
    rates[count] = measuredCopyRate();
    await Promise.all(others.map((worker) => worker.terminate()));
  }
  return rates;
}

/** A thread that copies until it is ended. */
const copying = `
const from = new Float32Array(2 ** 23).fill(1);
const to = new Float32Array(from.length);
to.set(from);
require("node:worker_threads").parentPort.postMessage("begun");
for (;;) to.set(from);
`;

/** A single thread takes as much processor time as it would take on an idle machine, whatever else runs. */
function processorSeconds(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

function wallSeconds(): number {
  return performance.now() / 1000;
}

/** The time of a run in the middle of three, after one that does not count. */
async function usual(run: () => Promise<unknown>, clock: () => number): Promise<number> {
  await run();
  const times: number[] = [];
  for (let i = 0; i < 3; i++) {
    const begun = clock();
    await run();
    times.push(clock() - begun);
  }
  return times.toSorted((a, b) => a - b)[1]!;
}

function gigabytes(bytes: number): string {
  return `${(bytes / 2 ** 30).toFixed(1)} GiB`;
}
