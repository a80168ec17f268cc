/** Opens a training without running it, to check it and to measure its speed. */
import { availableMemory } from "../../engine/runtime/available-memory-node.ts";
import { closing } from "../../weights/sources/closing.ts";
import type { RunConfig, TrainingConfig } from "../config/config.ts";
import type { DataSource, Task } from "../loop.ts";
import { leastMemory, requireMemory } from "../memory.ts";
import { type CheckedTraining, forwardSeconds } from "../speed.ts";
import { conditionIn } from "../tasks/denoiser.ts";
import { openSource, planOf, type train, type TrainContext } from "./train-node.ts";

/** The parts of a training that is opened but not run. */
export interface OpenedTraining {
  readonly config: RunConfig;
  readonly source: DataSource;
  readonly task: Task;
}

/**
 * Opens data and network of a training, and closes them after their use. Writes nothing.
 *
 * @throws UsageError as `train` does
 */
export async function openedTraining<T>(
  given: Parameters<typeof train>[0],
  context: TrainContext,
  use: (opened: OpenedTraining) => Promise<T>,
): Promise<T> {
  const { backend, out } = context;
  const plan = await planOf(given, context);
  const { config } = plan;
  return closing(plan, async () => {
    const start = { report: () => {}, step: 0, resumed: false };
    const source = await openSource(config, undefined, { backend, out, ...start });
    return closing(source, async () => use({ config, source, task: await plan.task(source) }));
  });
}

/**
 * Checks what can be known of a training before it: its data, its network and the least memory that it takes, and measures its
 * speed.
 *
 * @throws UsageError as `train` does
 */
export async function checkTraining(
  given: TrainingConfig,
  context: TrainContext,
): Promise<CheckedTraining> {
  const { backend } = context;
  return openedTraining(given, context, async ({ config: { training }, source, task }) => {
    const { loss, trained } = task;
    const { batch } = training;
    const memory = backend.device === "cpu" ? availableMemory() : undefined;
    requireMemory(leastMemory(loss, trained, batch), memory, trained, batch, "at least");
    return {
      pictures: source.info.count,
      condition: conditionIn(given, source),
      multiplyAdds: task.multiplyAdds(),
      seconds: await forwardSeconds(task, training, backend),
    };
  });
}
