/** Chooses how the process of a training takes its steps: alone, or as one of several ranks. */
import { UsageError } from "../../engine/errors.ts";
import type { LoopOptions } from "../loop.ts";
import type { TrainingStep } from "../step.ts";
import { createTrainer, type Trainer } from "../trainer.ts";
import { fromFirstRank, sumGradients, withMeanLoss } from "./collective.ts";
import { type LocalTrainer, localTrainer } from "./local-steps.ts";
import { createShardedTrainer } from "./sharded-trainer.ts";

/** The trainer of this process, or of this rank of several. */
export async function openTrainer(
  options: LoopOptions,
  step: TrainingStep,
): Promise<MeetingTrainer> {
  const { backend, config, task, from, collective, reduce } = options;
  const { threads, shardOptimizer, localSteps } = config.training;
  const given = threads ? { threads } : {};
  // Passed on at once: a variable would keep the first state in memory all along.
  const first = async () =>
    from
      ? { step: from.step, state: fromFirstRank(collective, await from.readState()) }
      : fromFirstRank(collective, await task.initial());
  if (localSteps) {
    if (shardOptimizer) {
      throw new UsageError(
        "training.localSteps and training.shardOptimizer exclude each other, since processes that update alone need the whole optimizer; leave one of them out.",
      );
    }
    const start = await first();
    const own = await createTrainer(backend, step, start, given);
    const trainer = await localTrainer(own, localSteps, collective, start);
    return collective ? { ...trainer, ...withMeanLoss(collective, trainer) } : trainer;
  }
  if (!collective) return createTrainer(backend, step, await first(), { ...given, reduce });
  const trainer = shardOptimizer
    ? await createShardedTrainer(backend, step, await first(), collective, given)
    : await createTrainer(backend, step, await first(), {
        ...given,
        reduce: async (gradients) => sumGradients(collective, gradients),
        share: 1 / collective.size,
      });
  return withMeanLoss(collective, trainer);
}

/** A trainer whose ranks may have to meet before they have one state. */
export type MeetingTrainer = Trainer & Partial<Pick<LocalTrainer, "meet">>;
