/** Host data: a typed array with a shape, row-major and contiguous, and its element types. The symbolic counterpart is `Tensor`. */
import {
  float32ToFloat16,
  fromBfloat16,
  fromFloat16,
  fromFloat8,
  isFloat8,
  toBfloat16,
  toFloat16,
  toFloat32,
  toFloat8,
} from "./convert.ts";
import { ShapeError } from "../errors.ts";

/** Element types. bfloat16 and the 8-bit floats are storage types: checkpoints hold them, arithmetic happens in float32. */
export const dtypes = [
  "float32",
  "float16",
  "bfloat16",
  "float8_e4m3fn",
  "float8_e5m2",
  "float64",
  "int64",
  "int32",
  "uint8",
  "int8",
  "bool",
] as const;

export type DType = (typeof dtypes)[number];

/** The array type of each dtype. Floats of 8 and 16 bits are stored as raw bit patterns, and bool as one byte that is 0 or 1. */
export interface DataOf {
  float32: Float32Array;
  float16: Uint16Array;
  bfloat16: Uint16Array;
  float8_e4m3fn: Uint8Array;
  float8_e5m2: Uint8Array;
  float64: Float64Array;
  int64: BigInt64Array;
  int32: Int32Array;
  uint8: Uint8Array;
  int8: Int8Array;
  bool: Uint8Array;
}

export type TypedArray = DataOf[DType];

const arrayTypes = {
  float32: Float32Array,
  float16: Uint16Array,
  bfloat16: Uint16Array,
  float8_e4m3fn: Uint8Array,
  float8_e5m2: Uint8Array,
  float64: Float64Array,
  int64: BigInt64Array,
  int32: Int32Array,
  uint8: Uint8Array,
  int8: Int8Array,
  bool: Uint8Array,
} as const satisfies { [D in DType]: unknown };

/** Returns the size of one element in bytes. */
export function byteSize(dtype: DType): number {
  return arrayTypes[dtype].BYTES_PER_ELEMENT;
}

export function isFloat(dtype: DType): boolean {
  return dtype.startsWith("float") || dtype === "bfloat16";
}

/** Creates a zero-filled array of `length` elements. */
export function allocate<D extends DType>(dtype: D, length: number): DataOf[D] {
  return new arrayTypes[dtype](length) as DataOf[D];
}

/** Returns a view, not a copy, of `length` elements from `byteOffset` of a buffer on. The offset must be aligned. */
export function viewOf<D extends DType>(
  dtype: D,
  buffer: ArrayBuffer,
  byteOffset: number,
  length: number,
): DataOf[D] {
  return new arrayTypes[dtype](buffer, byteOffset, length) as DataOf[D];
}

export interface NdArray<D extends DType = DType> {
  readonly dtype: D;
  readonly shape: readonly number[];
  /** The elements in row-major order; floats of 8 and 16 bits are raw bits. */
  readonly data: DataOf[D];
}

/** Returns the number of elements of a shape, which is 1 for a scalar. */
export function sizeOf(shape: readonly number[]): number {
  return shape.reduce((product, dim) => product * dim, 1);
}

/** Returns the distance, in elements, between neighbours along each axis of a row-major array. */
export function stridesOf(shape: readonly number[]): number[] {
  const strides = new Array<number>(shape.length);
  let stride = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    strides[axis] = stride;
    stride *= shape[axis]!;
  }
  return strides;
}

/**
 * Wraps a typed array without copying it, or converts plain numbers to `dtype`.
 *
 * @example ndarray("float32", [2, 2], [1, 2, 3, 4])
 * @throws ShapeError when the number of elements is not the product of the shape
 */
export function ndarray<D extends DType>(
  dtype: D,
  shape: readonly number[],
  values: DataOf[D] | readonly number[],
): NdArray<D> {
  const size = sizeOf(shape);
  if (values.length !== size) {
    throw new ShapeError(
      `A ${dtype} array of shape [${shape.join(", ")}] needs ${size} elements, but ${values.length} were given.`,
    );
  }
  const data = Array.isArray(values)
    ? fromNumbers(dtype, values as readonly number[])
    : (values as DataOf[D]);
  return { dtype, shape: [...shape], data };
}

/** Creates an array of zeros. */
export function zeros<D extends DType>(dtype: D, shape: readonly number[]): NdArray<D> {
  return { dtype, shape: [...shape], data: allocate(dtype, sizeOf(shape)) };
}

/** Creates a float32 scalar: an array without axes. */
export function scalar(value: number): NdArray<"float32"> {
  return ndarray("float32", [], [value]);
}

/** Returns the size of the elements in bytes. */
export function bytesOf(array: NdArray): number {
  return array.data.length * byteSize(array.dtype);
}

/** Converts every element to a JavaScript number; int64 values beyond 2^53 lose digits. */
export function toNumbers(array: NdArray): number[] {
  const decode = decoder(array.dtype);
  return Array.from(array.data as ArrayLike<number | bigint>, decode);
}

/** Converts the values to another dtype. Returns the array itself if it already has that dtype. */
export function castArray<D extends DType>(array: NdArray, dtype: D): NdArray<D> {
  if (array.dtype === dtype) return array as unknown as NdArray<D>;
  const target = allocate(dtype, array.data.length);
  if (dtype === "float32") toFloat32(array.dtype, array.data, target as Float32Array);
  else if (dtype === "float16" && array.dtype === "float32") {
    float32ToFloat16(array.data as Float32Array, target as Uint16Array);
  } else {
    const source = array.data as ArrayLike<number | bigint>;
    const [decode, encode] = [decoder(array.dtype), encoder(dtype)];
    for (let i = 0; i < source.length; i++) {
      (target as { [index: number]: number | bigint })[i] = encode(decode(source[i]!));
    }
  }
  return { dtype, shape: array.shape, data: target };
}

/** The largest number that rounds to a finite float16. */
const MOST_HALF = 65_519;

/** Returns true if all numbers are within the range of float16. */
export function fitsHalf({ dtype, data }: NdArray): boolean {
  const decode = decoder(dtype);
  return (data as ArrayLike<number | bigint> & { every: Float32Array["every"] }).every(
    (value) => Math.abs(decode(value)) <= MOST_HALF,
  );
}

/** Converts weights to the dtype of a file; those with numbers beyond the range of float16 stay as they are. */
export function castWeights(array: NdArray, dtype: "float32" | "float16"): NdArray {
  return dtype === "float16" && !fitsHalf(array) ? array : castArray(array, dtype);
}

function fromNumbers<D extends DType>(dtype: D, values: readonly number[]): DataOf[D] {
  const target = allocate(dtype, values.length) as { [index: number]: number | bigint };
  const encode = encoder(dtype);
  for (let i = 0; i < values.length; i++) target[i] = encode(values[i]!);
  return target as unknown as DataOf[D];
}

function decoder(dtype: DType): (element: number | bigint) => number {
  if (dtype === "float16") return (bits) => fromFloat16(bits as number);
  if (dtype === "bfloat16") return (bits) => fromBfloat16(bits as number);
  if (isFloat8(dtype)) return (bits) => fromFloat8(dtype, bits as number);
  return Number;
}

/** Converts one number as a C cast does: integers are truncated towards zero and wrap around, and every non-zero bool is 1. */
function encoder(dtype: DType): (value: number) => number | bigint {
  switch (dtype) {
    case "float16":
      return toFloat16;
    case "bfloat16":
      return toBfloat16;
    case "float8_e4m3fn":
    case "float8_e5m2":
      return (value) => toFloat8(dtype, value);
    case "int64":
      return (value) => BigInt(Math.trunc(value));
    case "bool":
      return (value) => (value === 0 ? 0 : 1);
    default:
      return (value) => value;
  }
}
