/** Weights that no runtime computes with as they are stored, such as blocks of quantized numbers, as arrays. */
import { byteSize, type NdArray, sizeOf } from "../arrays/ndarray.ts";
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
  put(array: NdArray): Promise<StoredWeight>;
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
  const expanded = new Map<string, StoredWeight>();
  for (const { name, stored } of found) {
    const array = await readWeight(stored, readFile);
    expanded.set(name, store ? await store.put(array) : arrayWeight(array));
  }
  return (name) => expanded.get(name) ?? weights(name);
}
