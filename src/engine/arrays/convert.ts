/**
 * Conversion between numbers and the floats of 8 and 16 bits that JavaScript lacks: of one number, and in bulk. The bulk functions give
 * the same results and are fast enough for checkpoints of gigabytes. They work on any part of a tensor, so a caller can convert
 * chunk by chunk.
 */
import type { DType, TypedArray } from "./ndarray.ts";
import { ShapeError } from "../errors.ts";

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

let halfValues: Float32Array | undefined;

/** The values of all 65,536 binary16 patterns (256 KB, built on first use): a look-up is faster than decoding the fields. */
export function float16Table(): Float32Array {
  if (!halfValues) {
    halfValues = new Float32Array(65536);
    for (let bits = 0; bits < 65536; bits++) halfValues[bits] = fromFloat16(bits);
  }
  return halfValues;
}

/** "OCP 8-bit Floating Point Specification" (Open Compute Project, 2023). */
const float8Formats = {
  /** Four bits of exponent and no infinities, so that the largest number is 448. */
  float8_e4m3fn: { mantissa: 3, bias: 7, special: (bits: number) => bits === 0x7f && NaN },
  /** The upper half of a binary16. */
  float8_e5m2: {
    mantissa: 2,
    bias: 15,
    special: (bits: number) => bits >= 0x7c && (bits === 0x7c ? Infinity : NaN),
  },
} as const;

export type Float8 = keyof typeof float8Formats;

export function isFloat8(dtype: DType): dtype is Float8 {
  return dtype in float8Formats;
}

const float8Values = new Map<Float8, Float32Array>();

/** The values of all 256 patterns of an 8-bit float. */
function float8Table(format: Float8): Float32Array {
  let table = float8Values.get(format);
  if (!table) {
    const { mantissa, bias, special } = float8Formats[format];
    const unit = 2 ** mantissa;
    table = Float32Array.from({ length: 256 }, (_, pattern) => {
      const bits = pattern & 0x7f;
      const sign = pattern & 0x80 ? -1 : 1;
      const other = special(bits);
      if (other !== false) return sign * other;
      const exponent = bits >> mantissa;
      const whole = (bits % unit) + (exponent === 0 ? 0 : unit);
      return sign * whole * 2 ** (Math.max(exponent, 1) - bias - mantissa);
    });
    float8Values.set(format, table);
  }
  return table;
}

/** Returns the number that the bits of an 8-bit float represent. */
export function fromFloat8(format: Float8, bits: number): number {
  return float8Table(format)[bits]!;
}

/** Returns the bits of the nearest 8-bit float, ties to even. Numbers beyond the range become NaN in E4M3 and infinite in E5M2. */
export function toFloat8(format: Float8, value: number): number {
  const table = float8Table(format);
  const sign = value < 0 || Object.is(value, -0) ? 0x80 : 0;
  const magnitude = Math.abs(value);
  let low = 0;
  while (low < 0x7f && table[low + 1]! <= magnitude) low++;
  if (Number.isNaN(magnitude)) return 0x7f;
  if (table[low] === magnitude) return sign | low;
  // Beyond the largest number, the next would follow at the same distance as the one before.
  const next = Number.isFinite(table[low + 1])
    ? table[low + 1]!
    : 2 * table[low]! - table[low - 1]!;
  const middle = (table[low]! + next) / 2;
  const up = magnitude > middle || (magnitude === middle && low % 2 === 1);
  return sign | (up ? low + 1 : low);
}

/**
 * Converts binary16 bits to float32 values without rounding.
 *
 * @throws ShapeError when the arrays differ in length
 */
export function float16ToFloat32(bits: Uint16Array, target: Float32Array): void {
  checkLengths(bits.length, target.length);
  const table = float16Table();
  for (let i = 0; i < bits.length; i++) target[i] = table[bits[i]!]!;
}

/**
 * Converts bfloat16 bits to float32 values without rounding.
 *
 * @throws ShapeError when the arrays differ in length
 */
export function bfloat16ToFloat32(bits: Uint16Array, target: Float32Array): void {
  checkLengths(bits.length, target.length);
  const out = bitsOf(target);
  for (let i = 0; i < bits.length; i++) out[i] = bits[i]! << 16;
}

/**
 * Converts float32 values to binary16 bits, rounding to nearest even. Values beyond 65,504 become infinite.
 *
 * @throws ShapeError when the arrays differ in length
 */
export function float32ToFloat16(values: Float32Array, target: Uint16Array): void {
  checkLengths(values.length, target.length);
  const bits = bitsOf(values);
  const sum = new Float32Array(1);
  const sumBits = bitsOf(sum);
  for (let i = 0; i < bits.length; i++) {
    const word = bits[i]!;
    const sign = (word >>> 16) & 0x8000;
    const magnitude = word & 0x7fffffff;
    let half: number;
    if (magnitude >= 0x38800000) {
      if (magnitude > 0x7f800000) {
        target[i] = 0x7e00;
        continue;
      }
      // Half a unit in the last place, less one where the kept part is even, carries exactly when the
      // nearest-even rule rounds up. 0x1c000 moves the exponent's bias from 127 to 15.
      half =
        magnitude >= 0x477ff000
          ? 0x7c00
          : ((magnitude + 0xfff + ((magnitude >>> 13) & 1)) >>> 13) - 0x1c000;
    } else {
      // Below 2^-14 the unit is 2^-24, float32's own unit in [0.5, 1): adding 0.5 rounds for us.
      sum[0] = Math.abs(values[i]!) + 0.5;
      half = sumBits[0]! - 0x3f000000;
    }
    target[i] = sign | half;
  }
}

/**
 * Converts host data of any dtype to float32 values. Floats of 8 and 16 bits, 8-bit integers and bool convert exactly; the rest is rounded.
 *
 * @throws ShapeError when the arrays differ in length
 */
export function toFloat32(dtype: DType, source: TypedArray, target: Float32Array): void {
  checkLengths(source.length, target.length);
  if (dtype === "float16") float16ToFloat32(source as Uint16Array, target);
  else if (dtype === "bfloat16") bfloat16ToFloat32(source as Uint16Array, target);
  else if (isFloat8(dtype)) {
    const table = float8Table(dtype);
    for (let i = 0; i < source.length; i++) target[i] = table[source[i] as number]!;
  } else if (dtype !== "int64") target.set(source as Exclude<TypedArray, BigInt64Array>);
  else for (let i = 0; i < source.length; i++) target[i] = Number(source[i]);
}

/** Multiplies values by one scale, or each of as many rows as there are scales by its own. */
export function scaleRows(values: Float32Array, scales: Float32Array): void {
  const inRow = values.length / scales.length;
  for (const [row, scale] of scales.entries()) {
    for (let i = row * inRow; i < (row + 1) * inRow; i++) values[i] = values[i]! * scale;
  }
}

function bitsOf(values: Float32Array): Uint32Array {
  return new Uint32Array(values.buffer, values.byteOffset, values.length);
}

function checkLengths(source: number, target: number): void {
  if (source === target) return;
  throw new ShapeError(
    `Conversion needs a target of ${source} elements, as many as its source, but the target has ${target}.`,
  );
}
