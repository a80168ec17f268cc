/** Programs of stages: made when they are first run, and kept as long as memory allows. */
import { estimateTogether } from "../engine/passes/cost.ts";
import type { Backend, Program } from "../engine/runtime/backend.ts";
import type { RunStage, Stage } from "./image-model.ts";
import { type Keeping, keepingOf, stageMemory } from "./memory.ts";

export interface StagePrograms {
  readonly run: RunStage;
  dispose(): Promise<void>;
}

interface Kept {
  readonly program: Program;
  readonly keeping: Keeping;
  /** The most rows that it ran. */
  rows: number;
}

/**
 * Runs follow one another, so that no program is dropped while it runs.
 *
 * @param memory bytes that the process may take: the programs that were not used for longest are dropped where another
 *   would exceed them; unless given, encoders are dropped when anything else runs, since they are run once a drawing
 */
export function stagePrograms(backend: Backend, memory?: number): StagePrograms {
  /** In the order of their last use. */
  const kept = new Map<Stage, Kept>();

  const drop = async (stage: Stage) => {
    const { program } = kept.get(stage)!;
    kept.delete(stage);
    await program.dispose();
  };
  /** What must go before a stage is run. */
  const nextToDrop = (stage: Stage, rows: number, keeping: Keeping): Stage | undefined => {
    if (kept.get(stage)?.keeping === "fast" && keeping === "stored") return stage;
    const others = [...kept].filter(([other]) => other !== stage);
    if (memory === undefined) return others.find(([, has]) => has.keeping === "stored")?.[0];
    const total = estimateTogether([
      stageMemory(stage, rows, keeping),
      ...others.map(([other, has]) => stageMemory(other, has.rows, has.keeping)),
    ]);
    return total > memory ? others[0]?.[0] : undefined;
  };
  const ready = async (stage: Stage, rows: number): Promise<Program> => {
    const keeping =
      kept.get(stage)?.keeping === "stored" ? "stored" : keepingOf(stage, rows, memory);
    for (;;) {
      const other = nextToDrop(stage, rows, keeping);
      if (!other) break;
      await drop(other);
    }
    const found = kept.get(stage);
    const program =
      found?.program ??
      (await backend.compile(stage.graph(), {
        weights: stage.weights,
        prepack: keeping === "fast",
        convertEachRun: keeping === "stored",
      }));
    kept.delete(stage);
    kept.set(stage, { program, keeping, rows: Math.max(rows, found?.rows ?? 0) });
    return program;
  };

  let last: Promise<unknown> = Promise.resolve();
  const inTurn = <T>(work: () => Promise<T>): Promise<T> => {
    const result = last.then(work);
    last = result.catch(() => undefined);
    return result;
  };
  return {
    run: (stage, inputs, options) =>
      inTurn(async () => {
        options?.signal?.throwIfAborted();
        const rows = Object.values(inputs)[0]?.shape[0] ?? 1;
        return (await ready(stage, rows)).run(inputs, options);
      }),
    dispose: () =>
      inTurn(async () => {
        for (const stage of kept.keys()) await drop(stage);
      }),
  };
}
