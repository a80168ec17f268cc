/** The forms in which weights are stored, as plain data; stored-weight.ts has the operations on them. */
import type { BlockFormat } from "../arrays/blocks.ts";
import type { DType, NdArray } from "../arrays/ndarray.ts";

/** An array in memory. */
export interface ArrayWeight {
  readonly kind: "array";
  readonly array: NdArray;
}

/** A byte range of a file, row-major and little-endian. The runtime maps the file instead of reading it. */
export interface FileWeight {
  readonly kind: "file";
  /** A path in Node; the name of a mounted file in the browser. */
  readonly path: string;
  readonly offset: number;
  readonly length: number;
  readonly dtype: DType;
  readonly shape: readonly number[];
}

/** Weights of one dtype that are concatenated along the first axis, each where it is stored. */
export interface RowsWeight {
  readonly kind: "rows";
  readonly parts: readonly StoredWeight[];
}

/** Numbers in blocks of a quantized type, in a file or in memory. Programs compute them from the bytes in each run. */
export interface BlocksWeight {
  readonly kind: "blocks";
  readonly format: BlockFormat;
  /** The number, counted from the block at `offset`, with which the weight begins. */
  readonly first: number;
  /** A path in Node, or the bytes, or how to fetch a range of them. */
  readonly path?: string;
  readonly bytes?: Uint8Array;
  readonly fetch?: RemoteWeight["fetch"];
  /** Where the blocks begin. */
  readonly offset: number;
  readonly shape: readonly number[];
}

/** Numbers that are to be multiplied by a scale of their own, as checkpoints in 8-bit floats and integers have them. */
export interface ScaledWeight {
  readonly kind: "scaled";
  readonly numbers: StoredWeight;
  /** One number, or one for each row: of one element, or of shape [rows, 1, …]. */
  readonly scale: StoredWeight;
  /** The numbers of a group along the rows of a matrix that a rotation (arrays/hadamard.ts) mixed; none unless given. */
  readonly rotated?: number | undefined;
}

/**
 * The weight [out, in] of a linear layer in 8 bits, for a product with rows of activations: `values`, int8 [in, out], times `scale`,
 * float32 [out], is the weight. For the product of the backward pass, `backward`, they are int8 [out, in] and float32 [in]. It is
 * quantized as it is read, some rows at a time.
 */
export interface ChannelsWeight {
  readonly kind: "channels";
  readonly part: "values" | "scale";
  readonly backward: boolean;
  readonly of: StoredWeight;
}

/** Bytes that are fetched as they are needed, such as those of a large file behind a URL. */
export interface RemoteWeight {
  readonly kind: "remote";
  /** Fetches a range of the bytes, which the caller owns. */
  readonly fetch: (offset: number, length: number) => Promise<Uint8Array<ArrayBuffer>>;
  readonly offset: number;
  readonly dtype: DType;
  readonly shape: readonly number[];
}

/** A weight whose axes lie in another order in its file, as those of Flax do, or some of its rows. It is read as a whole. */
export interface PermutedWeight {
  readonly kind: "permuted";
  readonly of: StoredWeight;
  /** The axis of `of` that each axis of this weight is. */
  readonly axes: readonly number[];
  /** Rows of the weight that count, where not all do. */
  readonly rows?: { readonly start: number; readonly count: number };
  /** The shape of these rows, where it is not that of the axes. */
  readonly shape: readonly number[];
}

/** A weight as it is stored, to which programs add a product of two matrices of a low rank, as LoRAs have it. */
export interface AdaptedWeight {
  readonly kind: "adapted";
  readonly base: StoredWeight;
  /** [rows, rank] */
  readonly up: NdArray<"float32">;
  /** [rank, columns], where the base has as many columns in all its other axes together. */
  readonly down: NdArray<"float32">;
}

export type StoredWeight =
  | ArrayWeight
  | FileWeight
  | RowsWeight
  | BlocksWeight
  | ScaledWeight
  | ChannelsWeight
  | PermutedWeight
  | RemoteWeight
  | AdaptedWeight;

export function arrayWeight(array: NdArray): StoredWeight {
  return { kind: "array", array };
}

/** Finds weights in an object of arrays by their names. */
export function arrayWeights(
  arrays: Readonly<Record<string, NdArray | undefined>>,
): (name: string) => StoredWeight | undefined {
  return (name) => {
    const array = arrays[name];
    return array && arrayWeight(array);
  };
}

/** The dtype and shape that a weight has once it is read. */
export interface WeightType {
  readonly dtype: DType;
  readonly shape: readonly number[];
}

/** Fills `target` with the bytes of a file from `offset` on. */
export type ReadFile = (target: Uint8Array, path: string, offset: number) => Promise<void>;

/** Adds weights to an ONNX graph. Each method returns the name of the value that holds the weight. */
export interface WeightEmitter {
  array(name: string, array: NdArray): string;
  file(name: string, weight: FileWeight): string;
  concat(parts: readonly string[]): string;
  multiply(numbers: string, scale: string): string;
  /** Takes back the rotation of groups of `size` numbers of a matrix of this shape. */
  rotate(numbers: string, size: number, shape: readonly number[]): string;
  blocks(name: string, weight: BlocksWeight): string;
  /** Adds the product of two matrices to a weight of this shape. */
  adapt(base: string, up: string, down: string, shape: readonly number[]): string;
}

/** The operations on weights of one form. */
export interface Storage<W extends StoredWeight> {
  type(weight: W): WeightType;
  /** The type of its numbers as they are stored, as formats call it. */
  label(weight: W): string;
  /** Bytes that the weight takes as it is stored. */
  bytes(weight: W): number;
  /** The files that hold the weight. */
  files(weight: W): readonly string[];
  /** The same weight with its files under other names. */
  relocated(weight: W, rename: (path: string) => string): StoredWeight;
  /** The same numbers in another shape of as many elements and, for rows, as many rows. */
  reshaped(weight: W, shape: readonly number[]): StoredWeight;
  /** `count` rows from row `start` of `axis`; all axes before it have length 1. */
  slice(weight: W, axis: number, start: number, count: number): StoredWeight;
  /**
   * Whether a runtime computes with the weight as it is stored; if not, it is read into an array first.
   *
   * @param readable whether the runtime reads weights of a dtype
   */
  inPlace(weight: W, readable: (dtype: DType) => boolean): boolean;
  /** Returns true if rows of a matrix can be chosen before the numbers are computed. */
  gatherable(weight: W): boolean;
  /** Returns true if its bytes are fetched as they are needed, and some rows do not take more of them than their own. */
  fetched(weight: W): boolean;
  /** Writes the elements, in the dtype of `type`, into `target`. */
  read(weight: W, target: Uint8Array, readFile: ReadFile): Promise<void>;
  emit(weight: W, name: string, emitter: WeightEmitter): string;
}
