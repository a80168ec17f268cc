/**
 * A conformance case: a small graph, the data to run it on, and how near a backend has to come to
 * the reference interpreter. Free of Node and of the browser, so that both can run it.
 */
import {
  castArray,
  type DType,
  isFloat,
  type NdArray,
  ndarray,
} from "../../src/engine/arrays/ndarray.ts";
import { type Graph, leafName } from "../../src/engine/graph/graph.ts";
import type { WeightSource } from "../../src/engine/runtime/backend.ts";
import { resolve, type Shape } from "../../src/engine/graph/shape.ts";
import { input, parameter } from "../../src/engine/graph/functional.ts";
import type { Tensor } from "../../src/engine/graph/tensor.ts";
import { randomArray } from "../support/arrays.ts";

export interface Case {
  readonly name: string;
  /** Makes the graph's outputs from leaves that `data` hands out. */
  readonly build: (data: CaseData) => Tensor | Readonly<Record<string, Tensor>>;
  /** The op only moves, picks or compares values: every bit has to agree. */
  readonly exact?: boolean;
  /** Magnitude of the terms whose sum is a small or zero output, as gradients are: errors are relative to at least this. */
  readonly scale?: number;
  /** The case needs the NaN and log 0 = −∞ of IEEE 754, which WGSL does not promise. */
  readonly ieee754?: boolean;
  /** Batch sizes that one program is run with, one after another, where a leaf has a batch. */
  readonly batches?: readonly number[];
}

/** The same batch after a smaller and an empty one shows whether anything was kept from those. */
export const defaultBatches: readonly number[] = [3, 1, 0, 3];

export interface LeafOptions {
  readonly dtype?: DType;
  /** Values are in [low, high). */
  readonly low?: number;
  readonly high?: number;
  /** Only whole numbers, also in a float dtype. */
  readonly whole?: boolean;
}

/** Hands out leaves to a case and knows the data behind them. */
export class CaseData {
  private readonly seed: number;
  private readonly leaves: { tensor: Tensor; make: (shape: readonly number[]) => NdArray }[] = [];
  private readonly weights: { name: string; stored: NdArray; read: NdArray }[] = [];

  /** @param name seeds the random values */
  constructor(name: string) {
    this.seed = seedOf(name);
  }

  /** An input with random values, of any shape. */
  uniform(shape: Shape, options: LeafOptions = {}): Tensor {
    const index = this.leaves.length;
    const name = `x${index}`;
    const { dtype = "float32" } = options;
    const tensor = input(name, shape, dtype);
    this.leaves.push({ tensor, make: (actual) => random(this.seed + index, actual, options) });
    return tensor;
  }

  /** An input with these values. */
  values(
    values: readonly number[],
    dtype: DType = "float32",
    shape: readonly number[] = [values.length],
  ): Tensor {
    const tensor = input(`x${this.leaves.length}`, shape, dtype);
    this.leaves.push({ tensor, make: () => ndarray(dtype, shape, values) });
    return tensor;
  }

  /** A weight that becomes part of the program; it may be stored in another dtype than it is read as. */
  weight(shape: readonly number[], options: LeafOptions & { stored?: DType } = {}): Tensor {
    const index = this.weights.length;
    const name = `layer.weight${index}`;
    const { dtype = "float32", stored = dtype } = options;
    const array = random(this.seed - 1 - index, shape, { ...options, dtype: stored });
    const tensor = parameter(name, shape, dtype);
    this.weights.push({ name, stored: array, read: castArray(array, dtype) });
    return tensor;
  }

  /** Values of the inputs that a graph came to use. */
  inputs(graph: Graph, batchSize: number | undefined): Record<string, NdArray> {
    const used = this.leaves.filter(({ tensor }) => graph.inputs.includes(tensor));
    return Object.fromEntries(
      used.map(({ tensor, make }) => [leafName(tensor), make(resolve(tensor.shape, batchSize))]),
    );
  }

  readonly weightSource: WeightSource = (name) => {
    const weight = this.weights.find((known) => known.name === name);
    return weight && { kind: "array", array: weight.stored };
  };

  /** The weights as the graph reads them. */
  parameters(): Record<string, NdArray> {
    return Object.fromEntries(this.weights.map(({ name, read }) => [name, read]));
  }
}

function random(seed: number, shape: readonly number[], options: LeafOptions): NdArray {
  const { dtype = "float32", whole = !isFloat(dtype) } = options;
  const { low = dtype === "bool" || dtype === "uint8" ? 0 : -2 } = options;
  const { high = dtype === "bool" ? 2 : 3 } = options;
  return castArray(randomArray(seed, whole ? "int64" : "float64", shape, low, high), dtype);
}

/** FNV-1a: each case has numbers of its own, whatever cases stand before it. */
function seedOf(name: string): number {
  let hash = 0x811c9dc5;
  for (const character of name) hash = Math.imul(hash ^ character.codePointAt(0)!, 0x01000193);
  return hash;
}
