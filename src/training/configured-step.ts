/** The step of a training, and the number of steps, by its config. */
import type { RunConfig } from "./config/config.ts";
import type { Task } from "./loop.ts";
import { withFixedWeights } from "./fixed-weights.ts";
import { configuredOptimizer, type Optimizer } from "./optimizers.ts";
import { type TrainingStep, trainingStep } from "./step.ts";

/** Traces the step of a training as its config says. */
export function configuredStep(
  {
    loss,
    trained,
    fixed,
    fixedType = "float32",
  }: Pick<Task, "loss" | "trained" | "fixed" | "fixedType">,
  training: RunConfig["training"],
  optimizer: Optimizer = configuredOptimizer(training.optimizer),
): TrainingStep {
  const step = trainingStep({
    loss,
    params: trained,
    optimizer,
    // A constant decay would keep a part of the random first weights in short trainings.
    emaDecay: (count) => count.add(1).div(count.add(10)).minimum(training.ema),
    clip: training.clip ?? undefined,
    accumulate: training.accumulate,
  });
  return withFixedWeights(step, fixed, fixedType);
}

/** The number of steps of the whole training; undefined if the clock ends it. */
export function stepsOf(
  { steps: given, compute, batch, accumulate }: RunConfig["training"],
  task: Pick<Task, "multiplyAdds">,
): number | undefined {
  if (compute === undefined) return given;
  return Math.max(1, Math.round((compute * 1e12) / (3 * task.multiplyAdds() * batch * accumulate)));
}
