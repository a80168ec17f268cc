/**
 * Generations that draw at the same time share the runs of their network: rows at different steps, of different prompts, seeds and
 * scales go through it together, since many rows take less time together than one by one. Each generation samples as it does alone,
 * and asks for its rows; nothing else of it is shared.
 */
import { runTogether } from "../diffusion/denoiser.ts";
import type { NdArray } from "../engine/arrays/ndarray.ts";
import type { RunOptions } from "../engine/runtime/backend.ts";
import type { RunStage, Stage } from "./image-model.ts";

type Inputs = Readonly<Record<string, NdArray>>;
type Outputs = Awaited<ReturnType<RunStage>>;

/** One generation among those that share runs. */
export interface Participant {
  readonly run: RunStage;
  /** Says that it asks for no more runs, so that the others do not wait for it. */
  leave(): void;
}

interface Waiting {
  readonly participant: object;
  readonly stage: Stage;
  readonly inputs: Inputs;
  readonly options: RunOptions | undefined;
  readonly answer: (outputs: Outputs) => void;
  readonly fail: (error: unknown) => void;
}

/** The longest wait for other generations, in milliseconds, and as a share of the time of the last run. */
const PATIENCE = { ms: 50, share: 1 / 4 } as const;

/**
 * @param run runs a stage on rows
 * @param mostRows the most rows that a shared run of a stage may have
 * @returns a function that each generation calls once, to take part
 */
export function sharedRuns(run: RunStage, mostRows: (stage: Stage) => number): () => Participant {
  let waiting: Waiting[] = [];
  /** Generations whose next rows are worth waiting for. */
  const expected = new Set<object>();
  let arrived = () => {};
  let isRunning = false;
  let lastMs = 0;

  /** Waits until every expected generation has asked, or for a while. Those that did not ask are not waited for again. */
  const gathered = () =>
    new Promise<void>((resolve) => {
      const done = () => {
        clearTimeout(timer);
        arrived = () => {};
        resolve();
      };
      const timer = setTimeout(
        () => {
          const there = new Set(waiting.map(({ participant }) => participant));
          for (const each of expected) if (!there.has(each)) expected.delete(each);
          done();
        },
        Math.min(PATIENCE.ms, PATIENCE.share * lastMs),
      );
      arrived = () => {
        if (waiting.length >= expected.size) done();
      };
      arrived();
    });

  const runWaiting = async () => {
    if (isRunning) return;
    isRunning = true;
    while (waiting.length > 0) {
      await gathered();
      const group = firstGroup(waiting, mostRows);
      waiting = waiting.filter((each) => !group.includes(each));
      const begun = performance.now();
      await runGroup(group, run);
      lastMs = performance.now() - begun;
    }
    isRunning = false;
  };

  return () => {
    const participant = {};
    return {
      run: (stage, inputs, options) =>
        new Promise((answer, fail) => {
          expected.add(participant);
          waiting.push({ participant, stage, inputs, options, answer, fail });
          arrived();
          void runWaiting();
        }),
      leave: () => {
        expected.delete(participant);
        arrived();
      },
    };
  };
}

/** The one that waits longest, with all others that fit beside it. */
function firstGroup(waiting: readonly Waiting[], mostRows: (stage: Stage) => number): Waiting[] {
  const [first] = waiting as [Waiting, ...Waiting[]];
  const most = mostRows(first.stage);
  const group: Waiting[] = [];
  let rows = 0;
  for (const each of waiting) {
    const own = rowsIn(each.inputs);
    const fits = each.stage === first.stage && kindOf(each.inputs) === kindOf(first.inputs);
    if (each !== first && (!fits || rows + own > most)) continue;
    group.push(each);
    rows += own;
  }
  return group;
}

const rowsIn = (inputs: Inputs) => Object.values(inputs)[0]!.shape[0]!;

/** Names, types and shapes of the rows: equal for inputs that can be stacked. */
function kindOf(inputs: Inputs): string {
  return Object.entries(inputs)
    .map(
      ([
        name,
        {
          dtype,
          shape: [, ...row],
        },
      ]) => `${name} ${dtype} ${row.join("×")}`,
    )
    .toSorted()
    .join();
}

async function runGroup(group: readonly Waiting[], run: RunStage): Promise<void> {
  const [first] = group as [Waiting, ...Waiting[]];
  if (group.length > 1) {
    try {
      const outputs = await runTogether(
        (inputs) => run(first.stage, inputs),
        group.map(({ inputs }) => inputs),
      );
      for (const [i, { answer }] of group.entries()) answer(outputs[i]!);
      return;
    } catch {
      // One of them may be at fault, such as by a scale that gives infinite numbers: by itself, it fails alone.
    }
  }
  for (const { stage, inputs, options, answer, fail } of group) {
    await run(stage, inputs, options).then(answer, fail);
  }
}
