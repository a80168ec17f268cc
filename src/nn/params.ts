/**
 * Parameters by scope: `p.at("blocks.0").at("qkv")` is a path, and the path is the checkpoint key.
 *
 * A model declares each weight where it uses it, with its shape and initial value in the same line. Because `Params` is an
 * interface, LoRA, quantized weights, EMA and taps are views of it that models need not know of.
 */
import { mapValues } from "../engine/records.ts";
import { ShapeError, UsageError } from "../engine/errors.ts";
import { type NdArray, sizeOf, zeros } from "../engine/arrays/ndarray.ts";
import { fork, normal as drawNormal, type RandomKey, uniform } from "../engine/random/random.ts";
import { formatShape, isStatic, sameShape, type Shape } from "../engine/graph/shape.ts";
import { constant, parameter, storedTable } from "../engine/graph/functional.ts";
import type { Tensor } from "../engine/graph/tensor.ts";

export interface Params {
  /** Returns the scope of a part, such as "blocks.0" or "qkv". */
  at(path: string): Params;
  /** Declares a weight of this scope. Returns the same tensor each time. */
  param(name: string, shape: Shape, init: Init): Tensor;
  /** Declares a fixed table, which is a constant of the graph. Checkpoints may contain a copy under its key. */
  buffer(name: string, value: NdArray): Tensor;
  /** Names an intermediate tensor of this scope, which a graph returns only where `withTaps` asks for it. */
  tap(name: string, tensor: Tensor): void;
  /** True if a tap of this scope, or of one within it, may have been asked for. */
  readonly tapped: boolean;
}

/** The initial value of a weight. `uniform` is over [−bound, bound), and `stored` is a table that only checkpoints contain. */
export type Init =
  | { readonly kind: "stored" }
  | { readonly kind: "constant"; readonly value: number }
  | { readonly kind: "normal"; readonly std: number }
  | { readonly kind: "uniform"; readonly bound: number };

export const stored: Init = { kind: "stored" };
export const zero: Init = { kind: "constant", value: 0 };
export const one: Init = { kind: "constant", value: 1 };
export const normal = (std: number): Init => ({ kind: "normal", std });

/** Xavier initialization (Glorot & Bengio, 2010) of a weight [out, in, ...kernel], times `gain`. */
export function xavierUniform(shape: readonly number[], gain = 1): Init {
  const [outputs = 1, inputs = 1, ...kernel] = shape;
  return { kind: "uniform", bound: gain * Math.sqrt(6 / ((inputs + outputs) * sizeOf(kernel))) };
}

/** A declared weight. */
export interface Declared {
  readonly tensor: Tensor;
  readonly init: Init;
}

/** The tensors of all weights that a model declared, some of which a graph may not read. */
export function declaredTensors({ declared }: Pick<ParamsRoot, "declared">): readonly Tensor[] {
  return [...declared.values()].map(({ tensor }) => tensor);
}

/** A fixed table, and the constant that represents it in the graph. */
export interface Buffered {
  readonly tensor: Tensor;
  readonly value: NdArray;
}

export interface ParamsRoot extends Params {
  /** All weights declared so far, by key, in order of first use. */
  readonly declared: ReadonlyMap<string, Declared>;
  /** All fixed tables, by key. They are not weights, though some checkpoints contain them. */
  readonly buffers: ReadonlyMap<string, Buffered>;
}

/** Creates an empty root scope, to which models add their weights while they are traced. */
export function createParams(): ParamsRoot {
  const declared = new Map<string, Declared>();
  const buffers = new Map<string, Buffered>();
  const scope = (prefix: string): Params => ({
    at: (path) => scope(`${prefix}${path}.`),
    param(name, shape, init) {
      const key = prefix + name;
      const known = declared.get(key);
      if (!known) {
        const tensor = init.kind === "stored" ? storedTable(key, shape) : parameter(key, shape);
        declared.set(key, { tensor, init });
        return tensor;
      }
      if (!sameShape(known.tensor.shape, shape)) {
        throw new ShapeError(
          `The parameter ${key} is ${formatShape(known.tensor.shape)} in one place and ${formatShape(shape)} in another.`,
        );
      }
      return known.tensor;
    },
    buffer(name, value) {
      const tensor = constant(value);
      buffers.set(prefix + name, { tensor, value });
      return tensor;
    },
    tap() {},
    tapped: false,
  });
  return { ...scope(""), declared, buffers };
}

/**
 * Draws the initial values of all declared weights. Each has a random stream of its own, which its name determines, so that adding
 * a weight to a model does not change the others.
 */
export function initialize(
  { declared }: Pick<ParamsRoot, "declared">,
  key: RandomKey,
): Record<string, NdArray<"float32">> {
  return mapValues(Object.fromEntries(declared), ({ tensor, init }, name) =>
    firstValue(name, tensor.shape, init, fork(key, name)),
  );
}

function firstValue(name: string, shape: Shape, init: Init, key: RandomKey): NdArray<"float32"> {
  if (!isStatic(shape)) {
    throw new ShapeError(`A weight of shape ${formatShape(shape)} depends on the batch size.`);
  }
  switch (init.kind) {
    case "stored":
      throw new UsageError(
        `The table ${name} is only contained in checkpoints; start from a checkpoint, or choose computed positions in the config.`,
      );
    case "constant":
      return filled(zeros("float32", shape), () => init.value);
    case "normal":
      return filled(drawNormal(key, shape), (x) => x * init.std);
    case "uniform":
      return filled(uniform(key, shape), (x) => (2 * x - 1) * init.bound);
  }
}

function filled(array: NdArray<"float32">, f: (x: number) => number): NdArray<"float32"> {
  return { ...array, data: array.data.map(f) };
}

/** A pattern of dotted paths as a regular expression: `*` stands for anything but dots, and `**` for anything. */
export function pathPattern(pattern: string): RegExp {
  const source = pattern
    .replace(/[.+?^${}()|[\]\\]/g, "\\$&")
    .replace(/\*+/g, (stars) => (stars.length > 1 ? ".*" : "[^.]*"));
  return new RegExp(`^${source}$`);
}
