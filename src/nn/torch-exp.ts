/**
 * eˣ as PyTorch computes it for float32 on a CPU, bit by bit, for −87 < x < 88.
 *
 * Checkpoints were trained on its frequencies. At a time step of 1000 one unit in the last place of a frequency moves
 * an embedding by 6·10⁻⁵, and PyTorch's vectorised exponential (SLEEF's, Shibata & Petrogalli, 2020) is not
 * correctly rounded: one number in ten is off by such a unit.
 */
export function torchExp(x: number): number {
  // x = k·ln 2 + r, with ln 2 in two parts of which the first has few enough bits that k times it is exact.
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

/** a·b + c, rounded once: the product of two float32 numbers is exact in float64. */
export function fma(a: number, b: number, c: number): number {
  return Math.fround(a * b + c);
}
