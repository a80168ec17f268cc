/** The error function in double precision, which JavaScript's Math lacks. */

/** Below this value the power series converges fast, and above it the continued fraction. */
const SPLIT = 2;

/** erf(x) = 2/√π · ∫₀ˣ exp(−t²) dt, with an absolute error below 1e-15. */
export function erf(x: number): number {
  if (Number.isNaN(x)) return x;
  const magnitude = Math.abs(x);
  const value = magnitude < SPLIT ? series(magnitude) : 1 - tail(magnitude);
  return x < 0 ? -value : value;
}

/** 1 − erf(x), without the cancellation for large x. */
export function erfc(x: number): number {
  return x >= SPLIT ? tail(x) : 1 - erf(x);
}

/** erf(x) = 2/√π · exp(−x²) · Σ 2ⁿ·x²ⁿ⁺¹ / (1·3·5···(2n+1)); all terms are positive, so none cancel. DLMF 7.6.2. */
function series(x: number): number {
  let term = x;
  let total = x;
  for (let n = 1; term > total * 1e-17; n++) {
    term *= (2 * x * x) / (2 * n + 1);
    total += term;
  }
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * total;
}

/** erfc(x) = exp(−x²)/√π · 1/(x + (1/2)/(x + (2/2)/(x + (3/2)/(x + …)))). DLMF 7.9.1. */
function tail(x: number): number {
  let fraction = x;
  for (let n = 80; n >= 1; n--) fraction = x + n / 2 / fraction;
  return Math.exp(-x * x) / Math.sqrt(Math.PI) / fraction;
}
