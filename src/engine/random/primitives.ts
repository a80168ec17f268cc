/**
 * Arithmetic that both random generators share: seeds as 32-bit words, and the Box–Muller transform in float32, which turns two
 * uniform numbers into two independent standard normal ones.
 *
 * `Math.log` and `Math.cos` may differ in the last bit between JavaScript engines. So the logarithm, sine and cosine are computed
 * here from IEEE operations alone, with the polynomials of the Cephes library (S. Moshier, `logf.c`, `sinf.c`), and a seed gives
 * the same bits in Node and in every browser. PyTorch's vectorized `randn` uses the same polynomials, and each multiply-add is
 * fused here where its AVX2 build fuses it.
 */
import { PatchwiseError } from "../errors.ts";

const round = Math.fround;

/**
 * Returns a·b + c, rounded once: the product of two float32 numbers is exact in float64. The sum is rounded to float64 first, so it
 * differs from a true fused operation if that lands on a tie of float32, about once in 2^29 operations.
 */
function fusedMultiplyAdd(a: number, b: number, c: number): number {
  return round(a * b + c);
}

const floatBits = new Float32Array(1);
const intBits = new Int32Array(floatBits.buffer);

const sqrtHalf = round(Math.SQRT1_2);
/** log(1 + x) = x - x²/2 + x³ P(x) on [sqrt(1/2) - 1, sqrt(2) - 1], highest power first. */
const logPolynomial = Float32Array.of(
  7.0376836292e-2,
  -1.151461031e-1,
  1.167699874e-1,
  -1.2420140846e-1,
  1.4249322787e-1,
  -1.6668057665e-1,
  2.0000714765e-1,
  -2.4999993993e-1,
  3.3333331174e-1,
);
/** log 2 in two parts; the first has so few bits that its product with an exponent is exact. */
const log2High = round(0.693359375);
const log2Low = round(-2.1219444e-4);

/** Returns the natural logarithm of a positive, normal float32. */
function log(x: number): number {
  floatBits[0] = x;
  let exponent = (intBits[0]! >> 23) - 126;
  intBits[0] = (intBits[0]! & 0x007fffff) | 0x3f000000;
  const fraction = floatBits[0]; // in [1/2, 1): x = fraction · 2^exponent
  let r = round(fraction - 1);
  if (fraction < sqrtHalf) {
    exponent--;
    r = round(r + fraction);
  }
  let y = logPolynomial[0]!;
  for (let i = 1; i < 9; i++) y = fusedMultiplyAdd(y, r, logPolynomial[i]!);
  const square = round(r * r);
  y = fusedMultiplyAdd(round(y * r), square, round(exponent * log2Low));
  y = fusedMultiplyAdd(-0.5, square, y);
  return fusedMultiplyAdd(exponent, log2High, round(r + y));
}

const fourOverPi = round(4 / Math.PI);
const twoPi = round(2 * Math.PI);
/** Minus π/4 in three parts, so that the reduced angle keeps its low bits (Cody and Waite). */
const piOver4 = Float32Array.of(-0.78515625, -2.4187564849853516e-4, -3.774894977445941e-8);
const cosPolynomial = Float32Array.of(
  2.443315711809948e-5,
  -1.388731625493765e-3,
  4.166664568298827e-2,
);
const sinPolynomial = Float32Array.of(-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1);

/**
 * Writes sqrt(-2 log u1) · cos(2π u2) to `out[cosIndex]` and the same with the sine to `out[sinIndex]`.
 *
 * @param u1 float32 in (0, 1], at least 2^-126
 * @param u2 float32 in [0, 1]
 */
export function boxMuller(
  out: Float32Array,
  cosIndex: number,
  sinIndex: number,
  u1: number,
  u2: number,
): void {
  const radius = round(Math.sqrt(round(-2 * log(u1))));
  const theta = round(twoPi * u2);

  // The angle is reduced to [-π/4, π/4] around an even multiple of π/4, which `octant` counts.
  const octant = (Math.trunc(round(theta * fourOverPi)) + 1) & ~1;
  let r = fusedMultiplyAdd(octant, piOver4[0]!, theta);
  r = fusedMultiplyAdd(octant, piOver4[1]!, r);
  r = fusedMultiplyAdd(octant, piOver4[2]!, r);

  const z = round(r * r);
  let c = fusedMultiplyAdd(cosPolynomial[0]!, z, cosPolynomial[1]!);
  c = fusedMultiplyAdd(c, z, cosPolynomial[2]!);
  c = fusedMultiplyAdd(round(c * z), z, round(-0.5 * z));
  c = round(c + 1);
  let s = fusedMultiplyAdd(sinPolynomial[0]!, z, sinPolynomial[1]!);
  s = fusedMultiplyAdd(s, z, sinPolynomial[2]!);
  s = fusedMultiplyAdd(round(s * z), r, r);

  const swapped = (octant & 2) !== 0;
  const sin = (octant & 4) !== 0 ? -1 : 1;
  const cos = ((octant - 2) & 4) === 0 ? -1 : 1;
  out[cosIndex] = radius * cos * (swapped ? s : c);
  out[sinIndex] = radius * sin * (swapped ? c : s);
}

/**
 * Returns the low and the high 32 bits of a seed in two's complement.
 *
 * @throws PatchwiseError unless the seed is an integer in [-2^63, 2^64), and a safe integer if it is a `number`
 */
export function seedWords(seed: number | bigint): [low: number, high: number] {
  if (typeof seed === "number" && !Number.isSafeInteger(seed)) {
    throw new PatchwiseError(
      `The seed ${seed} is not a whole number that a JavaScript number holds exactly; give an integer below 2^53 or a bigint.`,
    );
  }
  const value = BigInt(seed);
  if (value < -(2n ** 63n) || value >= 2n ** 64n) {
    throw new PatchwiseError(
      `The seed ${seed} does not fit into 64 bits; give one from -2^63 to 2^64 - 1.`,
    );
  }
  const bits = BigInt.asUintN(64, value);
  return [Number(bits & 0xffffffffn), Number(bits >> 32n)];
}
