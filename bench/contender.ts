/**
 * A contender does the work of one suite with one engine, alone in a child process.
 *
 * A file `bench/ours-SUITE.ts` or `bench/peers/NAME-SUITE.ts` takes part by default-exporting a `Contender`.
 * `bench/contender-host.ts`, or `bench/peers/host.py` for Python, runs it with this line protocol:
 *
 *     (start)   →  {"settings": "…"}            after the setup, or {"absent": "why"} if a package is missing
 *     step      →  {"ms": 1.5, "value": 2.5}    one step, timed inside the child around the work alone
 */
import type { Settings } from "./settings.ts";

/** An engine in a child process of its own. */
export interface Contender {
  /** Loads the work from `workDir` (see `train-work.ts`, `matmul-work.ts`) and brings the engine to its best settings. */
  setup(workDir: string): Promise<ReadyContender>;
}

/** Thrown by a setup whose engine is not installed; the message says how to install it. */
export class Absent extends Error {}

/** A contender that computes as the work says, or as it is told to. */
export interface OwnContender extends Contender {
  setup(workDir: string, settings?: Settings): Promise<ReadyContender>;
}

export interface ReadyContender {
  /** Settings that affect the speed, such as version, threads and allocator; printed with the result. */
  readonly settings: string;
  step(): Promise<StepResult>;
}

export interface StepResult {
  /** Milliseconds of the work, excluding the reading of results for the check. */
  readonly ms: number;
  /** The number that all contenders must agree on: the loss before the update, or a checksum. */
  readonly value: number;
  /** False for an engine that draws by other numbers, of which only the time counts; true unless given. */
  readonly comparable?: false;
  /** Milliseconds of the parts that make up `ms`, by name. */
  readonly parts?: Readonly<Record<string, number>>;
  /** Outputs of the network that were asked for in the step, and those of them that a cache spared. */
  readonly skipped?: { readonly asked: number; readonly reused: number };
  /** The whole result, if contenders must agree on more than one number. */
  readonly result?: readonly number[];
}

/** Measures how many milliseconds `work` takes. */
export async function timed<T>(work: () => T | Promise<T>): Promise<{ ms: number; result: T }> {
  const start = performance.now();
  const result = await work();
  return { ms: performance.now() - start, result };
}
