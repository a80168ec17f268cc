/** The memory of a training, found before anything is compiled. */
import { byteSize, sizeOf } from "../engine/arrays/ndarray.ts";
import { UsageError } from "../engine/errors.ts";
import { graphOf } from "../engine/graph/graph.ts";
import { resolve } from "../engine/graph/shape.ts";
import type { Tensor } from "../engine/graph/tensor.ts";
import { countElements, estimateMemory, processBytes } from "../engine/passes/cost.ts";
import type { RunConfig } from "./config/config.ts";
import type { Batches, LoopOptions } from "./loop.ts";
import type { Tree } from "./optimizers.ts";
import { wantsSamples } from "./due.ts";
import type { TrainingStep } from "./step.ts";

const BYTES = 4;

/**
 * The most bytes that the process takes; on other devices than the CPU most of them are there.
 *
 * @param rows examples that this process computes at once
 */
export function memoryOf(
  step: TrainingStep,
  { loader, validation, overhead }: Batches,
  rows: number,
  {
    config: { samples, training },
    task,
    collective,
    draws = false,
  }: Pick<LoopOptions, "config" | "task" | "collective" | "draws">,
): number {
  const { graph, state, stored } = step;
  const parameters = countElements(Object.values(task.trained));
  const trained = rankMemory(step, parameters, training)(rows, collective?.size ?? 1);
  const { weights } = estimateMemory(graph, rows, state);
  // Drawing samples takes the weights three times: read from the state, in the drawing program, and packed for it.
  const drawing = draws && wantsSamples(samples) ? 3 * weights : 0;
  // Packing lays a second copy of fixed weights beside the first.
  const packed = stored?.prepack ? weights : 0;
  return trained + overhead + loader.memory + (validation?.memory ?? 0) + drawing + packed;
}

/**
 * The memory of a rank: of one program alone, and of two with weights and gradients on the host beside them. With a divided optimizer, the
 * second one has its share.
 *
 * @param parameters the number of trained weights
 */
export function rankMemory(
  step: TrainingStep,
  parameters: number,
  { shardOptimizer, localSteps }: Pick<RunConfig["training"], "shardOptimizer" | "localSteps">,
): (rows: number, ranks: number) => number {
  const host = BYTES * parameters;
  // Ranks that meet rarely keep where they last met, and the momentum.
  const kept = localSteps ? 2 * host : 0;
  const together = () => {
    const { gradient, update, state } = step.halves();
    return { gradient, updating: estimateMemory(update, 1, state).total - processBytes };
  };
  let known: ReturnType<typeof together> | undefined;
  return (rows, ranks) => {
    if (ranks === 1 || localSteps) {
      return estimateMemory(step.graph, rows, step.state).total + kept;
    }
    const { gradient, updating } = (known ??= together());
    const share = shardOptimizer ? 1 / ranks : 1;
    // Beside weights and gradients: the part of the sums, or those of several batches.
    const sums = shardOptimizer ? share : step.accumulate > 1 ? 1 : 0;
    return estimateMemory(gradient, rows).total + updating * share + (2 + sums) * host;
  };
}

/**
 * Bytes that every step of the training takes, counted in moments from the forward pass alone: the state, and the inputs of trained
 * linear layers, which their gradients need.
 */
export function leastMemory(loss: Tensor, trained: Tree, batch: number): number {
  const weights = new Set(Object.values(trained));
  const kept = new Set(
    graphOf({ loss }).nodes.flatMap(({ op, inputs }) =>
      op === "linear" && weights.has(inputs[1]!) ? [inputs[0]!] : [],
    ),
  );
  return stateBytes(trained) + bytesOf([...kept], batch);
}

/** The weights, their averages, and at least one moment. */
function stateBytes(trained: Tree): number {
  return 3 * bytesOf(Object.values(trained), 1);
}

function bytesOf(tensors: readonly Tensor[], batch: number): number {
  return tensors.reduce(
    (sum, { shape, dtype }) => sum + sizeOf(resolve(shape, batch)) * byteSize(dtype),
    0,
  );
}

/**
 * @param how the certainty of what is needed
 * @throws UsageError if more is needed than available, with a batch that would fit if there is one
 */
export function requireMemory(
  needed: number,
  available: number | undefined,
  trained: Tree,
  batch: number,
  how: "up to" | "at least" = "up to",
): void {
  if (available === undefined || needed <= available) return;
  const state = stateBytes(trained);
  const fitting = Math.floor((batch * (available - state)) / (needed - state));
  const way =
    fitting >= 1
      ? `lower training.batch to ${how === "at least" ? "less than " : "about "}${fitting} (training.accumulate makes up for it), or lower picture.size or the size of the model, or raise model.patch`
      : "lower picture.size or the size of the model, or raise model.patch";
  throw new UsageError(
    `The training needs ${how} ${gibibytes(needed)} of memory, but ${gibibytes(available)} are available; ${way}.`,
  );
}

function gibibytes(bytes: number): string {
  return `${(bytes / 2 ** 30).toFixed(1)} GiB`;
}
