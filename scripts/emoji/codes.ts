/**
 * The code of a picture: its leading principal components at 32×32 pixels, each scaled to unit variance. 256 numbers keep 93 % of
 * the variance, and a picture made from them alone is recognised as often as the picture itself.
 */
import { type NdArray, ndarray } from "../../src/engine/arrays/ndarray.ts";
import { input } from "../../src/engine/graph/functional.ts";
import { graphOf } from "../../src/engine/graph/graph.ts";
import { batch } from "../../src/engine/graph/shape.ts";
import type { Tensor } from "../../src/engine/graph/tensor.ts";
import { fork, normal, randomKey } from "../../src/engine/random/random.ts";
import type { Backend } from "../../src/engine/runtime/backend.ts";
import { orthonormalise } from "../orthonormalise.ts";
import { SIDE } from "./pictures.ts";

/** Numbers of a code. */
export const WIDTH = 256;
/** Height and width of the pictures whose components are the code. */
export const COARSE = 32;
const D = 3 * COARSE * COARSE;
/** The iterated subspace is a little larger than needed, so that its last directions converge too. */
const [SOUGHT, ROUNDS] = [WIDTH + 32, 40];

/** code = encode · coarse + bias, and coarse ≈ decode · code + mean. */
export interface Code {
  /** [256, 3072] */
  readonly encode: NdArray<"float32">;
  /** [256] */
  readonly bias: NdArray<"float32">;
  /** [3072, 256] */
  readonly decode: NdArray<"float32">;
  /** [3072] */
  readonly mean: NdArray<"float32">;
}

/** Averages the pixels of each 2×2 square: [B, 3, 64, 64] → [B, 3072]. */
export function coarse(x: Tensor): Tensor {
  const by = SIDE / COARSE;
  return x
    .reshape([x.dim(0), 3, COARSE, by, COARSE, by])
    .mean([3, 5])
    .reshape([x.dim(0), D]);
}

/**
 * Fits the code to pictures by subspace iteration.
 *
 * @param batches values of pictures, [B, 3, 64, 64] each
 */
export async function fitCode(backend: Backend, batches: readonly NdArray[]): Promise<Code> {
  const x = coarse(input("x", [batch, 3, SIDE, SIDE]));
  const scatter = await backend.compile(
    graphOf({ product: x.swapAxes(0, 1).matmul(x), sum: x.sum(0) }),
  );
  const product = new Float64Array(D * D);
  const mean = new Float64Array(D);
  let count = 0;
  for (const each of batches) {
    const result = await scatter.run({ x: each });
    const [own, sum] = [result["product"]!.data, result["sum"]!.data] as Float32Array[];
    for (let i = 0; i < D * D; i++) product[i]! += own![i]!;
    for (let i = 0; i < D; i++) mean[i]! += sum![i]!;
    count += each.shape[0]!;
  }
  await scatter.dispose();
  for (let i = 0; i < D; i++) mean[i]! /= count;
  const covariance = new Float32Array(D * D);
  for (let i = 0; i < D; i++) {
    for (let k = 0; k < D; k++)
      covariance[i * D + k] = product[i * D + k]! / count - mean[i]! * mean[k]!;
  }
  const directions = await leading(backend, covariance);
  const encode = new Float32Array(WIDTH * D);
  const decode = new Float32Array(D * WIDTH);
  const bias = new Float32Array(WIDTH);
  for (const [i, { direction, variance }] of directions.entries()) {
    const spread = Math.sqrt(variance);
    for (let k = 0; k < D; k++) {
      encode[i * D + k] = direction[k]! / spread;
      decode[k * WIDTH + i] = direction[k]! * spread;
      bias[i]! -= (direction[k]! / spread) * mean[k]!;
    }
  }
  return {
    encode: ndarray("float32", [WIDTH, D], encode),
    bias: ndarray("float32", [WIDTH], bias),
    decode: ndarray("float32", [D, WIDTH], decode),
    mean: ndarray("float32", [D], Float32Array.from(mean)),
  };
}

interface Component {
  readonly direction: Float64Array;
  readonly variance: number;
}

/** The leading eigenvectors of a covariance, with their eigenvalues, largest first. */
async function leading(backend: Backend, covariance: Float32Array): Promise<Component[]> {
  const [a, q] = [input("a", [D, D]), input("q", [D, SOUGHT])];
  const program = await backend.compile(graphOf({ next: a.matmul(q) }));
  const given = ndarray("float32", [D, D], covariance);
  const times = async (columns: readonly Float64Array[]) => {
    const values = new Float32Array(D * SOUGHT);
    for (const [i, column] of columns.entries()) {
      for (let k = 0; k < D; k++) values[k * SOUGHT + i] = column[k]!;
    }
    const { next } = await program.run({ a: given, q: ndarray("float32", [D, SOUGHT], values) });
    const data = next!.data as Float32Array;
    return columns.map((_, i) =>
      Float64Array.from({ length: D }, (__, k) => data[k * SOUGHT + i]!),
    );
  };
  const key = fork(randomKey(0), "components");
  let columns = Array.from({ length: SOUGHT }, (_, i) =>
    Float64Array.from(normal(fork(key, i), [D]).data),
  );
  for (let round = 0; round < ROUNDS; round++) {
    orthonormalise(columns);
    columns = await times(columns);
  }
  orthonormalise(columns);
  const image = await times(columns);
  await program.dispose();
  return columns
    .map((direction, i) => ({
      direction,
      variance: direction.reduce((sum, value, k) => sum + value * image[i]![k]!, 0),
    }))
    .sort((one, other) => other.variance - one.variance)
    .slice(0, WIDTH);
}
