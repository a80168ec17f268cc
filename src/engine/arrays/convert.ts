/**
 * Bulk conversion between float32 and the 16-bit floats. These plain loops over typed arrays give the same results as the
 * scalar functions of dtype.ts and are fast enough for checkpoints of gigabytes. Every function works on any part of a tensor,
 * so a caller can convert chunk by chunk.
 */
import { type DType, fromFloat16, type TypedArray } from "./dtype.ts";
import { ShapeError } from "../errors.ts";

let halfValues: Float32Array | undefined;

/** The values of all 65,536 binary16 patterns (256 KB, built on first use): a look-up is faster than decoding the fields. */
function float16Table(): Float32Array {
  if (!halfValues) {
    halfValues = new Float32Array(65536);
    for (let bits = 0; bits < 65536; bits++) halfValues[bits] = fromFloat16(bits);
  }
  return halfValues;
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
 * Converts float32 values to bfloat16 bits, rounding to nearest even.
 *
 * @throws ShapeError when the arrays differ in length
 */
export function float32ToBfloat16(values: Float32Array, target: Uint16Array): void {
  checkLengths(values.length, target.length);
  const bits = bitsOf(values);
  for (let i = 0; i < bits.length; i++) {
    const word = bits[i]!;
    // Without this case a NaN whose payload is in the low half would become infinity.
    target[i] =
      (word & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : (word + 0x7fff + ((word >>> 16) & 1)) >>> 16;
  }
}

/**
 * Converts host data of any dtype to float32 values. 16-bit floats, uint8 and bool convert exactly; the rest is rounded.
 *
 * @throws ShapeError when the arrays differ in length
 */
export function toFloat32(dtype: DType, source: TypedArray, target: Float32Array): void {
  checkLengths(source.length, target.length);
  if (dtype === "float16") float16ToFloat32(source as Uint16Array, target);
  else if (dtype === "bfloat16") bfloat16ToFloat32(source as Uint16Array, target);
  else if (dtype !== "int64") target.set(source as Exclude<TypedArray, BigInt64Array>);
  else for (let i = 0; i < source.length; i++) target[i] = Number(source[i]);
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
