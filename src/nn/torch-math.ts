/**
 * Computes eˣ as PyTorch does for float32 on a CPU, bit by bit, for −87 < x < 88.
 *
 * Checkpoints were trained with frequencies computed by it. At a time step of 1000, one unit in the last place of a frequency
 * changes an embedding by 6·10⁻⁵, and PyTorch's vectorized exponential (from SLEEF; Shibata & Petrogalli, 2020) is not correctly
 * rounded: one result in ten is off by such a unit.
 */

export function torchExp(x: number): number {
  // x = k·ln 2 + r, with ln 2 in two parts; the first has so few bits that its product with k is exact.
  const k = Math.round(Math.fround(x * Math.fround(Math.LOG2E)));
  const r = fma(k, -LN2_LOW, fma(k, -LN2_HIGH, x));
  const tail = coefficients.reduce((sum, coefficient) => fma(sum, r, coefficient));
  return Math.fround(1 + fma(Math.fround(r * r), tail, r)) * 2 ** k;
}

const LN2_HIGH = 0.693145751953125;
const LN2_LOW = Math.fround(1.428606765330187e-6);

/** eʳ ≈ 1 + r + r²·(c₅r⁵ + … + c₀) for |r| ≤ ln 2 / 2, highest power first. */
const coefficients = [
  1.98527618e-4, 1.3930436e-3, 8.3333608e-3, 4.1666485e-2, 1.6666667e-1, 0.5,
].map(Math.fround);

/** Returns a·b + c, rounded once: the product of two float32 numbers is exact in float64. */
function fma(a: number, b: number, c: number): number {
  return Math.fround(a * b + c);
}

const round = Math.fround;

/**
 * Computes cos x for 0 ≤ x < π as PyTorch does for float32 on a CPU, bit by bit.
 *
 * The first version of Paella takes sines of 10⁴ times a cosine. PyTorch's vectorized cosine (from SLEEF; Shibata & Petrogalli,
 * 2020) is off by one unit in the last place for one number in twenty, which changes logits by more than all other rounding.
 */
export function torchCos(x: number): number {
  // −cos x is the sine of x − π/2, which is represented as the sum of two float32 numbers, as is every value here.
  let [high, low] = [x, 0];
  for (const part of halfPi) {
    const sum = round(high - part);
    const added = round(sum - high);
    const lost = round(round(high - round(sum - added)) + round(-part - added));
    [high, low] = [sum, round(lost + low)];
  }
  const square = round(high * high);
  const squareLow = fma(round(high + high), low, round(high * high - square));
  const tail = round(tailCoefficients.reduce((sum, c) => fma(sum, square, c)) * square);
  const cubic = round(CUBIC + tail);
  const cubicLow = round(round(CUBIC - cubic) + tail);
  const bend = round(cubic * square);
  const bendLow = fma(cubic, squareLow, fma(cubicLow, square, round(cubic * square - bend)));
  const ratio = round(1 + bend);
  const ratioLow = round(round(round(1 - ratio) + bend) + bendLow);
  return -fma(high, ratio, fma(low, ratio, round(high * ratioLow)));
}

/** π/2 in parts; the first have so few bits that subtracting them is exact. */
const halfPi = [1.57073974609375, 5.657970905303955078e-5, 9.920936294705029468e-10].map(round);

/** sin y ≈ y·(1 + y²·(c₃ + y²·(c₅ + y²·(c₇ + y²·c₉)))), highest power first. */
const tailCoefficients = [
  2.6083159809786593541503e-6, -0.0001981069071916863322258, 0.00833307858556509017944336,
].map(round);
const CUBIC = round(-0.166666597127914428710938);
