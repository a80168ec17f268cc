/** The speed of a network on this machine, measured before it is trained. */
import { zeros } from "../engine/arrays/ndarray.ts";
import { graphOf, leafName } from "../engine/graph/graph.ts";
import { resolve } from "../engine/graph/shape.ts";
import type { Backend } from "../engine/runtime/backend.ts";
import { closing } from "../weights/sources/closing.ts";
import type { RunConfig } from "./config/config.ts";
import type { Task } from "./loop.ts";

/** The facts that are known of a training before it begins. */
export interface CheckedTraining {
  /** Pictures to train on. */
  readonly pictures: number;
  readonly condition: "none" | "class" | "text";
  /** Multiply-adds of a forward pass of one picture. */
  readonly multiplyAdds: number;
  /** Measured seconds of a forward pass of one picture. */
  readonly seconds: number;
}

/** The most examples of a measured run: larger batches take longer, and are hardly faster for each example. */
const MOST_ROWS = 8;

/**
 * Measures a forward pass with the first weights on zeros: the second of two runs, since the first also reserves memory.
 *
 * @returns seconds for each example
 */
export async function forwardSeconds(
  { loss, initial, fixed }: Pick<Task, "loss" | "initial" | "fixed">,
  { batch, threads }: Pick<RunConfig["training"], "batch" | "threads">,
  backend: Backend,
): Promise<number> {
  const graph = graphOf({ loss });
  const rows = Math.min(batch, MOST_ROWS);
  const weights = await initial();
  const inputs = Object.fromEntries(
    graph.inputs.map((leaf) => [leafName(leaf), zeros(leaf.dtype, resolve(leaf.shape, rows))]),
  );
  const trained = Object.fromEntries(
    graph.parameters
      .map(leafName)
      .filter((name) => name in weights)
      .map((name) => [name, weights[name]!]),
  );
  const program = await backend.compile(graph, { weights: fixed, ...(threads && { threads }) });
  return closing({ close: () => program.dispose() }, async () => {
    await program.run({ ...inputs, ...trained });
    const begun = performance.now();
    await program.run({ ...inputs, ...trained });
    return (performance.now() - begun) / 1000 / rows;
  });
}
