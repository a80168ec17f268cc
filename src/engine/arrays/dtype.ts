/**
 * Element types: their size in bytes, the typed array that holds them on the host,
 * and the conversions between the 16-bit floats and float32 that JavaScript lacks.
 *
 * bfloat16 is a storage type: checkpoints hold it, arithmetic happens in float32.
 */
export const dtypes = [
  "float32",
  "float16",
  "bfloat16",
  "float64",
  "int64",
  "int32",
  "uint8",
  "bool",
] as const;

export type DType = (typeof dtypes)[number];

/** The array type of each dtype. float16 and bfloat16 are stored as raw 16-bit patterns, and bool as one byte that is 0 or 1. */
export interface DataOf {
  float32: Float32Array;
  float16: Uint16Array;
  bfloat16: Uint16Array;
  float64: Float64Array;
  int64: BigInt64Array;
  int32: Int32Array;
  uint8: Uint8Array;
  bool: Uint8Array;
}

export type TypedArray = DataOf[DType];

const arrayTypes = {
  float32: Float32Array,
  float16: Uint16Array,
  bfloat16: Uint16Array,
  float64: Float64Array,
  int64: BigInt64Array,
  int32: Int32Array,
  uint8: Uint8Array,
  bool: Uint8Array,
} as const satisfies { [D in DType]: unknown };

/** Returns the size of one element in bytes. */
export function byteSize(dtype: DType): number {
  return arrayTypes[dtype].BYTES_PER_ELEMENT;
}

export function isFloat(dtype: DType): boolean {
  return dtype === "float32" || dtype === "float16" || dtype === "bfloat16" || dtype === "float64";
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

const floatBits = new Float32Array(1);
const intBits = new Uint32Array(floatBits.buffer);

/** Returns the IEEE 754 binary16 bits of a number, rounded once, to nearest even. */
export function toFloat16(value: number): number {
  if (Number.isNaN(value)) return 0x7e00;
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const magnitude = Math.abs(value);
  if (magnitude >= 65520) return sign | 0x7c00;
  if (magnitude < 2 ** -14) return sign | roundHalfEven(magnitude * 2 ** 24);
  let exponent = Math.floor(Math.log2(magnitude));
  if (2 ** exponent > magnitude) exponent--;
  if (2 ** (exponent + 1) <= magnitude) exponent++;
  // A mantissa that rounds up to 2048 carries into the exponent by itself.
  return sign | (((exponent + 14) << 10) + roundHalfEven(magnitude * 2 ** (10 - exponent)));
}

function roundHalfEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor;
}

/** Returns the number that binary16 bits represent. */
export function fromFloat16(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const mantissa = bits & 0x3ff;
  if (exponent === 0x1f) return mantissa ? NaN : sign * Infinity;
  if (exponent === 0) return sign * mantissa * 2 ** -24;
  return sign * (1024 + mantissa) * 2 ** (exponent - 25);
}

/** Returns the bfloat16 bits of a number: the upper 16 bits of its float32 form, rounded to nearest even. */
export function toBfloat16(value: number): number {
  floatBits[0] = value;
  const bits = intBits[0]!;
  if (Number.isNaN(value)) return 0x7fc0;
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff;
}

/** Returns the number that bfloat16 bits represent. */
export function fromBfloat16(bits: number): number {
  intBits[0] = bits << 16;
  return floatBits[0]!;
}
