/**
 * What a contender is: one engine doing one suite's work, alone in a child process.
 *
 * A file `bench/ours-SUITE.ts` or `bench/peers/NAME-SUITE.ts` default-exports a `Contender`; being there is
 * enough to take part. `bench/contender-host.ts` runs it and speaks this line protocol, as `bench/peers/host.py`
 * does for Python:
 *
 *     (start)   →  {"settings": "…"}            once set up, or {"absent": "why"} where a package is missing
 *     step      →  {"ms": 1.5, "value": 2.5}    one step, timed inside the child around the work alone
 */
export interface Contender {
  /** Loads the work from `workDir` (see `train-work.ts`, `matmul-work.ts`) and brings the engine to its best settings. */
  setup(workDir: string): Promise<ReadyContender>;
}

export interface ReadyContender {
  /** Version, threads, allocator: whatever decides the speed. Printed with the result. */
  readonly settings: string;
  step(): Promise<StepResult>;
}

export interface StepResult {
  /** Milliseconds of the work, without reading it back for the check. */
  readonly ms: number;
  /** The number that all contenders must agree on: the loss before the update, or a checksum. */
  readonly value: number;
  /** Milliseconds of the parts that make up `ms`, by name. */
  readonly parts?: Readonly<Record<string, number>>;
  /** What was computed, where contenders must agree on more than one number. */
  readonly result?: readonly number[];
}

/** Milliseconds that `work` takes, and what it gives. */
export async function timed<T>(work: () => T | Promise<T>): Promise<{ ms: number; result: T }> {
  const start = performance.now();
  const result = await work();
  return { ms: performance.now() - start, result };
}
