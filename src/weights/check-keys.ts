/** Checks that a checkpoint fits a model: its keys, its shapes and its copies of fixed tables. */
import { FormatError, listed, quote } from "../engine/errors.ts";
import { type WeightSource } from "../engine/runtime/backend.ts";
import { reshaped } from "../engine/runtime/stored-weight.ts";
import { formatShape, isStatic, sameShape, type Shape } from "../engine/graph/shape.ts";
import { type ParamsRoot } from "../nn/params.ts";
import type { TensorEntry } from "./safetensors/header.ts";
import { type Weights } from "./safetensors/safetensors.ts";
import { storedWeights } from "./stored.ts";
import { castArray, isFloat } from "../engine/arrays/ndarray.ts";

/** All parameters and buffers that a model declared while it was traced. */
export type Asked = Pick<ParamsRoot, "declared" | "buffers">;

/** Maps the names of a model to the keys of a checkpoint. */
export interface KeyMap {
  /** The checkpoint's key of a weight. */
  readonly keyOf: (name: string) => string;
  /** Returns true if a key belongs to this model, since a file may hold several models. */
  readonly owns: (key: string) => boolean;
}

/** For checkpoints that hold a single model under its own names. */
export const sameKeys: KeyMap = { keyOf: (name) => name, owns: () => true };

/** What replaces what in a name, one replacement after another. */
export type Renaming = readonly (readonly [RegExp, string])[];

export function renamed(name: string, renaming: Renaming): string {
  return renaming.reduce((key, [from, to]) => key.replace(from, to), name);
}

/** For checkpoints that hold a single model under other names. */
export function renamedKeys(renaming: Renaming): KeyMap {
  return { ...sameKeys, keyOf: (name) => renamed(name, renaming) };
}

/**
 * Checks that a checkpoint has every declared weight in its shape, and nothing else but copies of fixed
 * tables. A 1×1 convolution [O, I, 1, 1] may be stored as a linear layer [O, I] or the other way round: the
 * numbers are the same.
 *
 * @throws FormatError that lists missing, unexpected and misshapen keys
 */
export function checkKeys(
  { declared, buffers }: Asked,
  checkpoint: {
    readonly name: string;
    readonly entries: ReadonlyMap<string, { readonly shape: readonly number[] }>;
  },
  { keyOf, owns }: KeyMap = sameKeys,
): void {
  const { name: file, entries } = checkpoint;
  const missing: string[] = [];
  const misshaped: string[] = [];
  const wanted = new Set<string>();
  const check = (name: string, expected: Shape, optional: boolean) => {
    const key = keyOf(name);
    wanted.add(key);
    const shape = entries.get(key)?.shape;
    if (shape && !fits(expected, shape)) {
      misshaped.push(`${quote(key)} is ${formatShape(shape)} instead of ${formatShape(expected)}`);
    }
    if (!shape && !optional) missing.push(`${quote(key)} ${formatShape(expected)}`);
  };
  for (const [name, { tensor }] of declared) check(name, tensor.shape, false);
  for (const [name, { tensor }] of buffers) check(name, tensor.shape, true);
  const extra = [...entries.keys()].filter((key) => owns(key) && !wanted.has(key)).map(quote);

  const problems = [
    missing.length > 0 ? `it lacks ${listed(missing)}` : "",
    extra.length > 0 ? `the model has no ${listed(extra)}` : "",
    misshaped.length > 0 ? listed(misshaped) : "",
  ].filter((problem) => problem !== "");
  if (problems.length === 0) return;
  throw new FormatError(
    `${file} does not fit the model: ${problems.join("; ")}; use a checkpoint of the same model and configuration.`,
  );
}

/**
 * Checks a checkpoint by `checkKeys` and returns its byte ranges as the weights of a program.
 *
 * @param whole the declarations of the whole model, including the parts that the program leaves out
 * @throws FormatError that lists missing, unexpected and misshapen keys, or names a weight whose numbers are unknown
 */
export function checkedWeights(
  whole: Asked,
  weights: Weights,
  map: KeyMap = sameKeys,
): WeightSource {
  checkKeys(whole, weights, map);
  checkTypes(whole, weights, map);
  const stored = storedWeights(weights, map.keyOf);
  return (name) => {
    const weight = stored(name);
    const shape = whole.declared.get(name)?.tensor.shape;
    return weight && shape && isStatic(shape) ? reshaped(weight, shape) : weight;
  };
}

/** @throws FormatError for integers without a scale in place of a weight: their numbers are unknown */
function checkTypes({ declared }: Asked, { entries }: Weights, { keyOf }: KeyMap): void {
  for (const [name, { tensor }] of declared) {
    const entry = entries.get(keyOf(name));
    const found = entry && isFloat(tensor.dtype) ? bareIntegers(entry) : undefined;
    if (!found) continue;
    throw new FormatError(
      `${found.source.name}: tensor ${quote(found.name)} is ${found.tag} without a scale, so that its numbers are unknown; give the model in bfloat16, in 8-bit floats, in int8_tensorwise or as GGUF.`,
    );
  }
}

/** The tensor, or the one among its parts, that holds integers without a scale. */
function bareIntegers(entry: TensorEntry): TensorEntry | undefined {
  if (entry.parts) return entry.parts.find((part) => bareIntegers(part));
  return entry.dtype && !isFloat(entry.dtype) && !entry.scale ? entry : undefined;
}

function fits(declared: Shape, stored: readonly number[]): boolean {
  return (
    sameShape(declared, stored) || (declared.length === 2 && sameShape([...declared, 1, 1], stored))
  );
}

/** More than the rounding of bfloat16 for numbers up to 1, and far less than two different tables differ. */
const ROUNDING = 2 ** -7;

/**
 * Checks that the fixed tables in a checkpoint equal those that the model computes. A program carries its own
 * tables, so a checkpoint that was trained with others would draw noise.
 *
 * @throws FormatError that names the table that differs
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
    // Comparing by > would accept NaN.
    const differs = own.findIndex((x, i) => !(Math.abs(x - stored[i]!) <= ROUNDING));
    if (differs < 0 && own.length === stored.length) continue;
    throw new FormatError(
      `${weights.name}: ${quote(key)} is not the table that this model computes (element ${differs} is ${stored[differs]} instead of ${own[differs]}); use a checkpoint of the same model and size.`,
    );
  }
}
