/** cos x as PyTorch computes it for float32 on a CPU. */
import { fma } from "./torch-exp.ts";

const round = Math.fround;

/**
 * cos x for 0 ≤ x < π, bit by bit as PyTorch has it.
 *
 * The first Paella takes sines of 10⁴ times a cosine: one unit in its last place, by which PyTorch's vectorised cosine
 * (SLEEF's, Shibata & Petrogalli, 2020) is off for one number in twenty, moves logits by more than all other rounding.
 */
export function torchCos(x: number): number {
  // −cos x is the sine of x − π/2, which is a sum of two float32 numbers, as all is here.
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

/** π/2 in parts of which the first have few enough bits. */
const halfPi = [1.57073974609375, 5.657970905303955078e-5, 9.920936294705029468e-10].map(round);

/** sin y ≈ y·(1 + y²·(c₃ + y²·(c₅ + y²·(c₇ + y²·c₉)))), highest power first. */
const tailCoefficients = [
  2.6083159809786593541503e-6, -0.0001981069071916863322258, 0.00833307858556509017944336,
].map(round);
const CUBIC = round(-0.166666597127914428710938);
