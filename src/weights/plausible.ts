/** Holds what a config asks for against the header of its weights, before a model of that size is traced. */
import { FormatError } from "../engine/errors.ts";
import type { Weights } from "./safetensors/safetensors.ts";

/** No side of a weight is a product of more than a few numbers of a config, such as 4 gates times 4 times the width. */
const SIDES = 16;
/** Numbers that no shape bounds: frequencies, token ids, lengths in seconds or steps. */
const MOST = 2 ** 24;
/** Positions and tokens of a sequence: a mask of attention has their square. */
const MOST_PLACES = 2 ** 12;

const counts = /depth|layers|blocks|refiners|preamble|levels/i;
const sides =
  /hidden|width|channels|vocabulary|classes$|head|groups|inner|inputs|outputs|pooled|bottleneck|context|codebook|patch|kernel|stem|buckets|frequencies|projection|multipliers|inter/i;
const places = /length|positions|frames|distance/i;

/**
 * Throws if weights cannot be those of a config, whose numbers may be anything: tracing a model takes time and memory that grow
 * with them.
 *
 * @param owner how the message names the config
 * @throws FormatError that names the field
 */
export function requirePlausible(
  owner: string,
  config: unknown,
  { name, entries }: Pick<Weights, "name" | "entries">,
): void {
  let largest = 0;
  // A tensor with an empty side takes no bytes, however long its others are.
  for (const { shape } of entries.values()) {
    if (!shape.includes(0)) for (const side of shape) largest = Math.max(largest, side);
  }
  for (const [field, value] of flatNumbers(config)) {
    const most = counts.test(field)
      ? entries.size
      : sides.test(field)
        ? SIDES * largest
        : places.test(field)
          ? MOST_PLACES
          : MOST;
    if (value <= most) continue;
    throw new FormatError(
      `${owner} says that its model has a ${field} of ${value}, but ${name} has ${entries.size === 1 ? "1 weight" : `${entries.size} weights`} with sides of up to ${largest}; give the config and the weights of one model.`,
    );
  }
}

/** All numbers of plain data by path, such as "prompt.depth". */
function flatNumbers(value: unknown, path = ""): (readonly [string, number])[] {
  if (typeof value === "number") return [[path, value]];
  if (typeof value !== "object" || value === null) return [];
  return Object.entries(value).flatMap(([key, inner]) =>
    flatNumbers(inner, path === "" ? key : `${path}.${key}`),
  );
}
