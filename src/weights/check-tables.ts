/** Whether the copies of fixed tables in a checkpoint are the tables that the model computes. */
import { FormatError } from "../engine/errors.ts";
import { castArray } from "../engine/arrays/ndarray.ts";
import { type Asked, type KeyMap, sameKeys } from "./check-keys.ts";
import { quote } from "../engine/messages.ts";
import type { Weights } from "./safetensors/safetensors.ts";

/** More than bfloat16 takes from numbers up to 1, far less than two different tables are apart. */
const ROUNDING = 2 ** -7;

/**
 * A program carries its own tables, so a checkpoint that was trained with others would draw nonsense.
 *
 * @throws FormatError that names the table which differs
 */
export async function checkTables(
  { buffers }: Pick<Asked, "buffers">,
  weights: Weights,
  { keyOf }: KeyMap = sameKeys,
): Promise<void> {
  for (const [name, { value }] of buffers) {
    const key = keyOf(name);
    if (!weights.entries.has(key)) continue;
    const stored = castArray(await weights.read(key), "float64").data;
    const own = castArray(value, "float64").data;
    // A NaN is at no distance from anything, and so must not be compared by >.
    const differs = own.findIndex((x, i) => !(Math.abs(x - stored[i]!) <= ROUNDING));
    if (differs < 0 && own.length === stored.length) continue;
    throw new FormatError(
      `${weights.name}: ${quote(key)} is not the table that this model computes (number ${differs} is ${stored[differs]} instead of ${own[differs]}); give a checkpoint of this very model and size.`,
    );
  }
}
