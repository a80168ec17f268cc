/** Seeds as 64 bits, which is what both generators take. */
import { PatchwiseError } from "../errors.ts";

/**
 * The low and the high 32 bits of a seed in two's complement.
 *
 * @throws PatchwiseError unless it is an integer in [-2^63, 2^64), and a safe one where it is a `number`
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
