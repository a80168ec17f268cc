/** Weights that no runtime computes with as they are stored, such as blocks of quantized numbers, as arrays. */
import { byteSize, sizeOf } from "../arrays/ndarray.ts";
import { PatchwiseError } from "../errors.ts";
import { type Graph, leafName } from "../graph/graph.ts";
import type { WeightSource } from "./backend.ts";
import {
  arrayWeight,
  isInPlace,
  type ReadFile,
  readWeight,
  type StoredWeight,
  weightType,
} from "./stored-weight.ts";

/** A model of ONNX Runtime is one message of protobuf, which can hold 2 GiB. */
const MOST_BYTES = 2 ** 31 - 2 ** 24;

/** A store for the weights of one program outside its ONNX model. */
export interface WeightStore {
  /**
   * Reads and stores weights.
   *
   * @param groups weights that are read from the same numbers are together, so that these are read once
   * @returns the stored weights, in the same groups
   */
  put(groups: readonly (readonly StoredWeight[])[]): Promise<readonly (readonly StoredWeight[])[]>;
}

/**
 * The weights of a graph, of which those that are not computed with in place are read into memory.
 *
 * @param storeFor gives the place for this number of bytes; undefined to keep them in the model
 * @throws PatchwiseError if these are more than a program can hold
 */
export async function expandedWeights(
  { parameters }: Graph,
  weights: WeightSource,
  readFile: ReadFile,
  storeFor: (bytes: number) => Promise<WeightStore | undefined> = async () => undefined,
): Promise<WeightSource> {
  const found = parameters.flatMap((parameter) => {
    const name = leafName(parameter);
    const stored = weights(name);
    return stored && !isInPlace(stored, () => true) ? [{ name, stored }] : [];
  });
  if (found.length === 0) return weights;
  const total = found.reduce((sum, { stored }) => {
    const { dtype, shape } = weightType(stored);
    return sum + sizeOf(shape) * byteSize(dtype);
  }, 0);
  const store = await storeFor(total);
  if (!store && total > MOST_BYTES) {
    throw new PatchwiseError(
      `The quantized weights take more than the ${MOST_BYTES} bytes that a program can hold once they are expanded; give the model in float16 or bfloat16 as safetensors.`,
    );
  }
  const groups = grouped(found);
  const expanded = new Map<string, StoredWeight>();
  if (store) {
    const put = await store.put(groups.map((group) => group.map(({ stored }) => stored)));
    for (const [i, group] of groups.entries()) {
      for (const [j, { name }] of group.entries()) expanded.set(name, put[i]![j]!);
    }
  } else {
    for (const { name, stored } of groups.flat()) {
      expanded.set(name, arrayWeight(await readWeight(stored, readFile)));
    }
  }
  return (name) => expanded.get(name) ?? weights(name);
}

/** Puts the values and the scales of the same weight together. */
function grouped(
  found: readonly { readonly name: string; readonly stored: StoredWeight }[],
): readonly (typeof found)[] {
  const groups = new Map<StoredWeight, (typeof found)[number][]>();
  for (const each of found) {
    const { stored } = each;
    const from = stored.kind === "channels" ? stored.of : stored;
    groups.set(from, [...(groups.get(from) ?? []), each]);
  }
  return [...groups.values()];
}
