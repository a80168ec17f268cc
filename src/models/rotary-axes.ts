/** Reads the rotary axes of a network from its config. */
import { FormatError } from "../engine/errors.ts";
import type { FieldReader } from "../weights/config-fields.ts";

/**
 * The channels of a head that the positions of each axis rotate.
 *
 * @param otherwise the published axes, as many as the network's places have; also the default where the field may be left out
 * @throws FormatError unless they are as many, even, and fill a head
 */
export function rotaryAxes<A extends readonly number[]>(
  read: FieldReader,
  name: string,
  { hidden, heads }: { readonly hidden: number; readonly heads: number },
  otherwise: A,
): { readonly [I in keyof A]: number } {
  const axes = read.counts(name, otherwise);
  const all = axes.reduce((sum, axis) => sum + axis, 0);
  const fit = all === hidden / heads && axes.every((axis) => axis % 2 === 0);
  if (axes.length === otherwise.length && fit) {
    return axes as unknown as { readonly [I in keyof A]: number };
  }
  throw new FormatError(
    `${read.file} has ${JSON.stringify(name)} = ${axes.join(", ")}, but there must be ${otherwise.length} even numbers that add up to the ${hidden / heads} channels of a head (width ${hidden}, ${heads} heads).`,
  );
}
