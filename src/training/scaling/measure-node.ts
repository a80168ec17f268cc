/** Measures what a training step takes on this machine, as one process and as a rank of several. */
import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { zeros } from "../../engine/arrays/ndarray.ts";
import { UsageError } from "../../engine/errors.ts";
import { leafName } from "../../engine/graph/graph.ts";
import { resolve } from "../../engine/graph/shape.ts";
import { countElements } from "../../engine/passes/cost.ts";
import type { Backend } from "../../engine/runtime/backend.ts";
import { closing } from "../../weights/sources/closing.ts";
import { type Collective, sumGradients } from "../collective/collective.ts";
import type { Task } from "../loop.ts";
import { rankMemory } from "../memory.ts";
import { type TrainingStep } from "../step.ts";
import { createTrainer, type Trainer } from "../trainer.ts";
import type { RunConfig } from "../config/config.ts";
import { createShardedTrainer } from "../collective/sharded-trainer.ts";
import type { Line, RankCosts } from "./plan.ts";

/** The most multiply-adds of a measured forward pass, which bounds the examples of a step. */
const MOST_WORK = 2e11;

/**
 * Measures steps of two sizes, each as one program and as two, on zeros: the best of three after one that does
 * not count, by processor time for a single thread and by the clock otherwise.
 *
 * @param training its batch has the most examples of a step
 * @param available bytes of memory
 * @throws UsageError if measuring takes more than the available memory
 */
export async function measuredCosts(
  backend: Backend,
  step: TrainingStep,
  { initial, trained, multiplyAdds }: Pick<Task, "initial" | "trained" | "multiplyAdds">,
  training: RunConfig["training"],
  available: number | undefined,
): Promise<RankCosts> {
  const { batch, threads, shardOptimizer, localSteps } = training;
  const parameters = countElements(Object.values(trained));
  const memory = rankMemory(step, parameters, training);
  const rows = Math.min(batch, Math.max(2, Math.floor(MOST_WORK / multiplyAdds())));
  const needed = Math.max(memory(rows, 1), memory(rows, 2));
  if (available !== undefined && needed > available) {
    throw new UsageError(
      `Measuring a step of this training takes ${gigabytes(needed)}, and ${gigabytes(available)} are free; give the speed of the ranks as --speed, with which nothing is run.`,
    );
  }
  const few = Math.ceil(rows / 4);
  const options = threads ? { threads } : {};
  const clock = threads === 1 ? processorSeconds : wallSeconds;
  const timed = async (trainer: Trainer): Promise<readonly [short: number, long: number]> =>
    closing({ close: () => trainer.dispose() }, async () => {
      const short = await best(() => trainer.step(inputsOf(step, few)), clock);
      return [short, await best(() => trainer.step(inputsOf(step, rows)), clock)];
    });
  const whole = await timed(await createTrainer(backend, step, await initial(), options));
  const ranked = await timed(
    shardOptimizer
      ? await createShardedTrainer(backend, step, await initial(), silent, options)
      : await createTrainer(backend, step, await initial(), {
          ...options,
          reduce: async (gradients) => sumGradients(silent, gradients),
          share: 1 / silent.size,
        }),
  );
  const [alone, together] = linesThrough([few, rows], [whole, ranked]);
  return {
    parameters,
    alone: alone!,
    together: together!,
    shards: shardOptimizer,
    localSteps: localSteps?.steps,
    copyRate: measuredCopyRate(),
    memory,
  };
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

/** Two ranks without communication, so that everything but the messages is measured. */
const silent: Collective = {
  rank: 0,
  size: 2,
  local: 2,
  sum() {},
  broadcast() {},
  sumParts() {},
  gatherParts() {},
};

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

function inputsOf({ graph, state }: TrainingStep, rows: number) {
  const given = graph.inputs.filter((leaf) => {
    const name = leafName(leaf);
    return name !== "step" && !(name in state);
  });
  return Object.fromEntries(
    given.map((leaf) => [leafName(leaf), zeros(leaf.dtype, resolve(leaf.shape, rows))]),
  );
}

/** A single thread takes as much processor time as it would take on an idle machine, whatever else runs. */
function processorSeconds(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

function wallSeconds(): number {
  return performance.now() / 1000;
}

async function best(run: () => Promise<unknown>, clock: () => number): Promise<number> {
  await run();
  let least = Infinity;
  for (let i = 0; i < 3; i++) {
    const begun = clock();
    await run();
    least = Math.min(least, clock() - begun);
  }
  return least;
}

function gigabytes(bytes: number): string {
  return `${(bytes / 2 ** 30).toFixed(1)} GiB`;
}
