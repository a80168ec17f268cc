/** The loss on pictures that were not trained on, always the same with the same noise. */
import { arrayWeights } from "../../engine/runtime/stored-weight.ts";
import { graphOf } from "../../engine/graph/graph.ts";
import type { NdArray } from "../../engine/arrays/ndarray.ts";
import { fork, randomKey } from "../../engine/random/random.ts";
import type { Backend } from "../../engine/runtime/backend.ts";
import type { Loader } from "../../data/loading/loader-node.ts";
import type { DenoiserConfig } from "../config/config.ts";
import { type ExampleOptions, examplesOf } from "./examples.ts";
import { objective } from "./objective.ts";

/** Reads its pictures now, and closes their loader; the function that it returns measures weights. */
export async function validator(
  loader: Loader,
  { training, diffusion, validation }: DenoiserConfig,
  { examples, backend }: { readonly examples: ExampleOptions; readonly backend: Backend },
): Promise<(weights: Readonly<Record<string, NdArray>>) => Promise<number>> {
  const { batches: count, times } = validation!;
  const { recipe } = examples;
  const measured = {
    ...examples,
    recipe: times && recipe.process === "flow" ? { ...recipe, times } : recipe,
    dropCondition: 0,
  };
  const batches: Record<string, NdArray>[] = [];
  try {
    for (let i = 0; i < count; i++) {
      const key = fork(randomKey(0, 1), i);
      batches.push(examplesOf(await loader.next(), key, measured));
    }
  } finally {
    await loader.close();
  }
  const { loss } = objective(examples.network, diffusion, { recompute: false });
  return async (weights) => {
    const program = await backend.compile(graphOf({ loss }), {
      weights: arrayWeights(weights),
      ...(training.threads && { threads: training.threads }),
    });
    let sum = 0;
    for (const inputs of batches) sum += Number((await program.run(inputs))["loss"]!.data[0]);
    await program.dispose();
    return sum / count;
  };
}
