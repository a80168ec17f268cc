/** The steps of one of several ranks without the exchange between them, on zeros, to be measured. */
import { zeros } from "../../engine/arrays/ndarray.ts";
import { leafName } from "../../engine/graph/graph.ts";
import { resolve } from "../../engine/graph/shape.ts";
import type { Backend } from "../../engine/runtime/backend.ts";
import { type Collective, sumGradients } from "../collective/collective.ts";
import { createShardedTrainer } from "../collective/sharded-trainer.ts";
import type { RunConfig } from "../config/config.ts";
import type { Task } from "../loop.ts";
import type { TrainingStep } from "../step.ts";
import { createTrainer, type Trainer } from "../trainer.ts";

/** Compiles the step that a rank takes by itself: with local steps that of a single process, otherwise with gradients through the host. */
export async function rankTrainer(
  backend: Backend,
  step: TrainingStep,
  { initial }: Pick<Task, "initial">,
  { threads, shardOptimizer, localSteps }: RunConfig["training"],
  ranks: number,
): Promise<Trainer> {
  const options = threads ? { threads } : {};
  const start = await initial();
  if (localSteps) return createTrainer(backend, step, start, options);
  const collective = silent(ranks);
  if (shardOptimizer) return createShardedTrainer(backend, step, start, collective, options);
  return createTrainer(backend, step, start, {
    ...options,
    reduce: async (gradients) => sumGradients(collective, gradients),
    share: 1 / ranks,
  });
}

/** Ranks without communication, so that everything but the messages is measured. */
function silent(ranks: number): Collective {
  return {
    rank: 0,
    size: ranks,
    local: ranks,
    sum() {},
    broadcast() {},
    sumParts() {},
    gatherParts() {},
  };
}

/** Inputs of a step for some examples. */
export function zeroInputs({ graph, state }: TrainingStep, rows: number) {
  const given = graph.inputs.filter((leaf) => {
    const name = leafName(leaf);
    return name !== "step" && !(name in state);
  });
  return Object.fromEntries(
    given.map((leaf) => [leafName(leaf), zeros(leaf.dtype, resolve(leaf.shape, rows))]),
  );
}
