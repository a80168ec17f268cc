/** Weights that no runtime computes with as they are stored, such as blocks of quantized numbers, as arrays. */
import { PatchwiseError } from "../errors.ts";
import { type Graph, leafName } from "../graph/graph.ts";
import type { WeightSource } from "./backend.ts";
import {
  arrayWeight,
  isInPlace,
  type ReadFile,
  readWeight,
  type StoredWeight,
} from "./stored-weight.ts";

/** A model of ONNX Runtime is one message of protobuf, which can hold 2 GiB. */
const MOST_BYTES = 2 ** 31 - 2 ** 24;

/**
 * The weights of a graph, of which those that are not computed with in place are read into memory.
 *
 * @throws PatchwiseError if these are more than a program can hold
 */
export async function expandedWeights(
  { parameters }: Graph,
  weights: WeightSource,
  readFile: ReadFile,
): Promise<WeightSource> {
  const expanded = new Map<string, StoredWeight>();
  let total = 0;
  for (const name of parameters.map(leafName)) {
    const stored = weights(name);
    if (!stored || isInPlace(stored, () => true)) continue;
    const array = await readWeight(stored, readFile);
    total += array.data.byteLength;
    if (total > MOST_BYTES) {
      throw new PatchwiseError(
        `The quantized weights take more than the ${MOST_BYTES} bytes that a program can hold once they are expanded; give the model in float16 or bfloat16 as safetensors.`,
      );
    }
    expanded.set(name, arrayWeight(array));
  }
  return expanded.size === 0 ? weights : (name) => expanded.get(name) ?? weights(name);
}
