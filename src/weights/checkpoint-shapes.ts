/** What the keys and shapes of a checkpoint show of its model. */
import { FormatError, quote } from "../engine/errors.ts";
import type { Weights } from "./safetensors/safetensors.ts";

type Checkpoint = Pick<Weights, "name" | "entries">;

/**
 * Shapes of the tensors that a checkpoint of a model has to have.
 *
 * @param model its name in messages
 */
export function requiredShapes({ name, entries }: Checkpoint, model: string) {
  /** @throws FormatError if there is no such tensor */
  const shapeOf = (key: string): readonly number[] => {
    const shape = entries.get(key)?.shape;
    if (shape) return shape;
    throw new FormatError(
      `${name} has no ${quote(key)}, which every ${model} has; give a checkpoint with the original names.`,
    );
  };
  return { shapeOf, sizeOf: (key: string, axis: number) => shapeOf(key)[axis] ?? 0 };
}

/** The number of blocks `LIST.0.…`, `LIST.1.…`, … up to the first that is missing. */
export function blocksUnder({ entries }: Pick<Weights, "entries">, list: string): number {
  const own = [...entries.keys()].filter((key) => key.startsWith(`${list}.`));
  const numbers = new Set(own.map((key) => Number.parseInt(key.slice(list.length + 1), 10)));
  let count = 0;
  while (numbers.has(count)) count++;
  return count;
}
