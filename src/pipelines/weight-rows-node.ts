/** Reads weights some rows at a time, and measures what quantizing changes. */
import { castArray, sizeOf } from "../engine/arrays/ndarray.ts";
import { PatchwiseError } from "../engine/errors.ts";
import { sliceRows, type StoredWeight } from "../engine/runtime/stored-weight.ts";
import { readStored } from "../weights/stored-node.ts";

export interface NamedWeight {
  readonly name: string;
  readonly shape: readonly number[];
  readonly stored: StoredWeight;
}

/** Numbers that are read at a time. */
const PIECE = 2 ** 22;

/**
 * The numbers of a weight, whole rows of a matrix at a time.
 *
 * @throws PatchwiseError if one is not finite
 */
export async function* rowsOfWeight({
  name,
  shape,
  stored,
}: NamedWeight): AsyncGenerator<{ readonly start: number; readonly values: Float32Array }> {
  const rows = shape.length === 2 ? shape[0]! : 1;
  const inRow = sizeOf(shape) / rows;
  const step = Math.max(1, Math.floor(PIECE / inRow));
  for (let start = 0; start < rows; start += step) {
    const count = Math.min(step, rows - start);
    const part = rows === 1 ? stored : sliceRows(stored, 0, start, count);
    const values = castArray(await readStored(part), "float32").data;
    const wrong = values.find((value) => !Number.isFinite(value));
    if (wrong !== undefined) {
      throw new PatchwiseError(
        `${name} holds ${wrong}, which no quantized number can; give a model of finite numbers.`,
      );
    }
    yield { start, values };
  }
}

/** Measures how much numbers change, as a share of their size. */
export function changeMeter() {
  let [squares, changes] = [0, 0];
  return {
    add(before: Float32Array, after: Float32Array) {
      for (const [i, value] of before.entries()) {
        squares += value ** 2;
        changes += (value - after[i]!) ** 2;
      }
    },
    /** The root of the mean square of the changes, divided by that of the numbers. */
    share: () => (squares === 0 ? 0 : Math.sqrt(changes / squares)),
  };
}
